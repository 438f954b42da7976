"""Orders for trouble (by a prompt, in code, by the control routes), and the record of calls."""

import base64
import hashlib
import threading
from typing import Any, get_args

import httpx
import pytest

from app.emulator.calls import KEPT, Calls
from app.emulator.server import Emulator
from app.emulator.trouble import Kind, Trouble, Troubles
from tests.support.vertex_client import picture


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


def ask(troubles: Troubles, text: str = "", *, vendor: str = "vertex", model: str = "m") -> Any:
    trouble = troubles.ask(vendor, model, text)
    return trouble and (trouble.kind, trouble.arg)


@pytest.mark.parametrize("kind", sorted(set(get_args(Kind)) - {"answer", "storage-down"}))
def test_word_in_the_prompt_orders_it_for_this_call(kind: Kind, troubles: Troubles) -> None:
    assert ask(troubles, f"a cat #trouble:{kind} in a hat") == (kind, None)
    assert ask(troubles, "a cat in a hat") is None


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("#trouble:slow=2.5, please", ("slow", "2.5")),
        ("#trouble:429=7", ("429", "7")),
        ("#trouble:nonsense", None),
        ("#trouble:answer", None),
        ("#trouble:nonsense #trouble:500", ("500", None)),
        ("trouble:500", None),
        ("#trouble:half-blocked", ("half-blocked", None)),
    ],
)
def test_words_in_a_text(text: str, trouble: Any, troubles: Troubles) -> None:
    assert ask(troubles, text) == trouble


def test_order_lasts_for_its_number_of_calls(troubles: Troubles) -> None:
    troubles.set("503", times=2)
    assert [ask(troubles) for _ in range(3)] == [("503", None), ("503", None), None]


def test_order_lasts_until_cleared(troubles: Troubles) -> None:
    troubles.set("500")
    assert [ask(troubles) for _ in range(3)] == [("500", None)] * 3
    troubles.clear()
    assert ask(troubles) is None


def test_order_is_for_its_vendor_and_model_only(troubles: Troubles) -> None:
    troubles.set("retired", vendor="vertex", model="a")
    assert ask(troubles, vendor="bedrock", model="a") is None
    assert ask(troubles, model="b") is None
    assert ask(troubles, model="a") == ("retired", None)


def test_an_ordered_answer_is_returned_once(troubles: Troubles) -> None:
    answer = {"status": 200, "body": {}}
    troubles.set("answer", arg=answer)
    assert [ask(troubles), ask(troubles)] == [("answer", answer), None]


def test_orders_come_before_words(troubles: Troubles) -> None:
    troubles.set("500", times=1)
    assert ask(troubles, "#trouble:hang") == ("500", None)
    assert ask(troubles, "#trouble:hang") == ("hang", None)


def test_turn_counts_per_text(troubles: Troubles) -> None:
    turns = [troubles.ask("vertex", "m", text) for text in ("a #trouble:half-blocked",) * 2]
    assert turns == [Trouble("half-blocked", None, 0), Trouble("half-blocked", None, 1)]


def test_storage_down_in_a_prompt_is_for_the_store(troubles: Troubles) -> None:
    assert ask(troubles, "a cat #trouble:storage-down=600") is None
    assert ask(troubles) is None
    assert ask(troubles, vendor="gcs") == ("storage-down", "600")


def test_storage_comes_back_after_its_time(troubles: Troubles) -> None:
    assert ask(troubles, "a cat #trouble:storage-down=0") is None
    assert ask(troubles, vendor="gcs") is None


def test_the_header_replaces_the_words(troubles: Troubles) -> None:
    assert troubles.ask("vertex", "m", "#trouble:500", "429=7") == Trouble("429", "7")
    assert troubles.ask("vertex", "m", "#trouble:500", "nonsense") is None
    assert troubles.ask("vertex", "m", "", "answer") is None


def test_storage_down_in_a_header_keeps_one_object_out(troubles: Troubles) -> None:
    assert troubles.ask("vertex", "m", "#trouble:storage-down", "storage-down") is None
    assert ask(troubles, vendor="gcs", model="a.png") is None
    for _ in range(2):
        assert troubles.ask("gcs", "a.png", "", "storage-down=600") == Trouble("storage-down", "600")
    assert troubles.ask("gcs", "a.png", "") is None, "the spool says nothing and gets in"
    assert troubles.ask("gcs", "b.png", "", "storage-down=0") is None
    assert troubles.ask("gcs", "", "", "storage-down") is None, "a chunk of an upload that was let in"
    assert troubles.ask("gcs", "c.png", "", "500") is None, "a word for the model"


# ── The control routes ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def control(emulator: Emulator) -> str:
    return f"{emulator.http_url}/__emulator"


def test_trouble_is_ordered_and_cleared_over_http(control: str, emulator: Emulator) -> None:
    order = {"kind": "429", "vendor": "bedrock", "times": 1, "arg": 7, "model": "m"}
    assert httpx.post(f"{control}/trouble", json=order).status_code == 204
    assert ask(emulator.troubles, vendor="bedrock") == ("429", 7)
    httpx.post(f"{control}/trouble", json={"kind": "500"})
    assert httpx.delete(f"{control}/trouble").status_code == 204
    assert ask(emulator.troubles) is None


@pytest.mark.parametrize(
    "order", [{"kind": "earthquake"}, {}, [], {"kind": "500", "vendor": "azure"}, {"kind": "500", "x": 1}]
)
def test_order_that_makes_no_sense_is_refused(order: Any, control: str, emulator: Emulator) -> None:
    response = httpx.post(f"{control}/trouble", json=order)
    assert (response.status_code, list(response.json())) == (400, ["errors"])
    assert ask(emulator.troubles) is None


def test_calls_are_shown_and_forgotten_over_http(control: str, emulator: Emulator) -> None:
    data = picture()
    body = {"prompt": "a pear", "image": base64.b64encode(data).decode()}
    call = emulator.calls.record("bedrock", "invoke", "m", body)
    emulator.calls.finish(call, 200, paid=2)
    assert httpx.get(f"{control}/calls").json() == {
        "paid": 2,
        "calls": [
            {
                "id": call.id,
                "vendor": "bedrock",
                "method": "invoke",
                "model": "m",
                "body": {"prompt": "a pear", "image": fingerprint(data)},
                "started": call.started,
                "status": 200,
                "paid": 2,
                "cancelled": False,
                "finished": True,
            }
        ],
    }
    assert httpx.delete(f"{control}/calls").status_code == 204
    assert httpx.get(f"{control}/calls").json() == {"paid": 0, "calls": []}


# ── The book of calls ────────────────────────────────────────────────────────────────────────────────


def fingerprint(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


JPEG = picture(format="JPEG")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        pytest.param(base64.b64encode(JPEG).decode(), fingerprint(JPEG), id="base64"),
        pytest.param(base64.urlsafe_b64encode(JPEG).decode().rstrip("="), fingerprint(JPEG), id="URL-safe"),
        pytest.param(JPEG, fingerprint(JPEG), id="bytes"),
        pytest.param("/9j/ is how it begins", "/9j/ is how it begins", id="not base64"),
        pytest.param("x y" * 2000, fingerprint(b"x y" * 2000), id="long text"),
        pytest.param([{"a": (1, None)}], [{"a": [1, None]}], id="nested"),
    ],
)
def test_pictures_are_kept_as_their_fingerprint(value: Any, kept: Any) -> None:
    call = Calls().record("vertex", "predict", "m", {"value": value})
    assert call.body == {"value": kept}


def test_newest_calls_are_kept_and_all_are_counted() -> None:
    calls = Calls()
    for _ in range(KEPT + 5):
        calls.finish(calls.record("vertex", "predict", "m", {}), 200, paid=1)
    assert (len(calls.list()), calls.list()[0].id, calls.paid) == (KEPT, 6, KEPT + 5)


def test_cancelled_call_stays_cancelled_and_what_it_cost_is_paid() -> None:
    calls = Calls()
    call = calls.record("vertex", "predict", "m", {})
    calls.cancel(call)
    calls.finish(call, 200, paid=1)
    assert (call.cancelled, call.status, call.paid, calls.paid) == (True, None, 1, 1)


def test_answered_call_cannot_be_cancelled() -> None:
    calls = Calls()
    call = calls.record("vertex", "predict", "m", {})
    calls.finish(call, 200)
    calls.cancel(call)
    assert not call.cancelled


def test_waiting_ends_with_the_event() -> None:
    calls = Calls()
    threading.Timer(0.01, calls.record, ("vertex", "predict", "m", {})).start()
    calls.wait_for(lambda all: len(all) == 1)


def test_waiting_too_long_is_an_error() -> None:
    with pytest.raises(TimeoutError, match=r"after 0.01 s the calls were \[\]"):
        Calls().wait_for(lambda all: len(all) == 1, timeout=0.01)
