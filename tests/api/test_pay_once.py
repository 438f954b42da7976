"""Repeating a request with its Idempotency-Key: one paid call, one answer."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.api.examples import EXAMPLES, GEN_EXAMPLES
from app.emulator.server import Emulator
from tests.api.conftest import Start, token

TEXT_TO_IMAGE = "/api/v1/image/text-to-image"
UPSCALE = "/api/v1/image/image-upscale"
GEMINI = "gemini-2.5-flash-image"


class Client:
    """Posts with a key of its own."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.key = uuid4().hex

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers={"Idempotency-Key": self.key, **headers})


@pytest.fixture(scope="module")
def url(start: Start) -> Iterator[str]:
    with start(request_timeout_seconds=20, retry_pause_seconds=0.01) as url:
        yield url


@pytest.fixture
def client(url: str, emulator: Emulator) -> Iterator[Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token()}"}, timeout=30) as http:
        yield Client(http)


def sent(emulator: Emulator) -> int:
    """How many calls of models there were, of which each may be paid."""
    return sum(call.vendor != "gcs" for call in emulator.calls.list())


WISHES: dict[str, tuple[str, dict[str, Any]]] = {
    "text-to-image, stored": (TEXT_TO_IMAGE, {"prompt": "a cat", "sampleCount": 2}),
    "text-to-image in base64": (TEXT_TO_IMAGE, {"prompt": "a cat", "responseFormat": "b64_json"}),
    "by Gemini": (TEXT_TO_IMAGE, {"prompt": "a cat", "model": GEMINI, "sampleCount": 2}),
    "by Gemini in base64": (
        TEXT_TO_IMAGE,
        {"prompt": "a cat", "model": GEMINI, "sampleCount": 2, "responseFormat": "b64_json"},
    ),
    "as JPEG, which Gemini does not make": (
        TEXT_TO_IMAGE,
        {
            "prompt": "a cat",
            "model": GEMINI,
            "responseFormat": "b64_json",
            "outputOptions": {"mimeType": "image/jpeg"},
        },
    ),
    "upscale": (UPSCALE, EXAMPLES["image-upscale"]),
    "edit": ("/api/v1/image/image-edit", EXAMPLES["image-edit"]),
    "gen": ("/gen", {"mode": "text2img", "prompt": "a cat"}),
    "gen, rewritten and stored": (
        "/gen",
        {"mode": "text2img", "prompt": "a cat", "regen_prompt": True, "response_format": "url"},
    ),
    "img2img": ("/gen", next(one for one in GEN_EXAMPLES.values() if one["mode"] == "img2img")),
}


@pytest.mark.parametrize("name", WISHES)
def test_a_repeated_request_is_answered_as_before(client: Client, emulator: Emulator, name: str) -> None:
    path, body = WISHES[name]
    first = client.post(path, body)
    assert first.status_code == 200, first.text
    calls, paid = sent(emulator), emulator.calls.paid
    again = client.post(path, body)
    assert (again.status_code, again.content) == (200, first.content)
    assert (sent(emulator), emulator.calls.paid) == (calls, paid)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-receipt-id"] == first.headers["x-receipt-id"]
    assert float(first.headers["x-cost-usd"]) > 0
    assert again.headers["x-cost-usd"] == "0.000000"


def test_json_and_a_form_are_the_same_request(client: Client, emulator: Emulator) -> None:
    picture = EXAMPLES["image-upscale"]["image"]
    first = client.post(UPSCALE, {"image": picture, "upscaleFactor": "x2"})
    again = client.http.post(
        UPSCALE,
        data={"upscaleFactor": "x2"},
        files={"image": ("a.png", base64.b64decode(picture), "image/png")},
        headers={"Idempotency-Key": f'"{client.key}"'},  # as the draft of the standard spells it
    )
    assert (again.status_code, again.content) == (200, first.content)
    assert sent(emulator) == 1


@pytest.mark.parametrize(
    ("path", "first", "other", "told"),
    [
        (
            TEXT_TO_IMAGE,
            {"prompt": "a cat"},
            {"prompt": "a dog"},
            {
                "statusCode": 422,
                "message": "Idempotency-Key was used with a different request",
                "error": "Unprocessable Entity",
            },
        ),
        (
            "/gen",
            {"mode": "text2img", "prompt": "a cat"},
            {"mode": "text2img", "prompt": "a dog"},
            {
                "status": "error",
                "error": "Unprocessable Entity",
                "details": "Idempotency-Key was used with a different request",
            },
        ),
    ],
)
def test_a_key_belongs_to_one_request(
    client: Client, emulator: Emulator, path: str, first: Any, other: Any, told: Any
) -> None:
    assert client.post(path, first).status_code == 200
    refused = client.post(path, other)
    assert (refused.status_code, refused.json()) == (422, told)
    assert refused.headers["x-error-code"] == "key_reused"
    assert sent(emulator) == 1
    assert client.post("/pro/gen", other | {"mode": "text2img"}).status_code == 200  # another route


def test_another_callers_key_is_another_key(client: Client, emulator: Emulator) -> None:
    body = {"prompt": "a cat"}
    other = f"Bearer {token(sub='user-2')}"
    first, second = client.post(TEXT_TO_IMAGE, body), client.post(TEXT_TO_IMAGE, body, Authorization=other)
    assert first.json() != second.json()
    assert sent(emulator) == 2


@pytest.mark.parametrize(
    ("key", "status"),
    [("", 400), ("x" * 256, 400), ("a\tb", 400), ("a b", 400), ('""', 200), ("x" * 255, 200)],
)
def test_a_key_has_1_to_255_characters(client: Client, key: str, status: int) -> None:
    client.key = key
    answer = client.post(TEXT_TO_IMAGE, {"prompt": "a cat"})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["message"] == "Idempotency-Key must have 1 to 255 visible ASCII characters"


def test_a_block_is_repeated_as_it_was(client: Client, emulator: Emulator) -> None:
    body = {"prompt": "a cat #trouble:blocked-output"}
    first, again = client.post(TEXT_TO_IMAGE, body), client.post(TEXT_TO_IMAGE, body)
    assert (first.status_code, again.status_code) == (400, 400)
    assert again.json() == first.json()
    assert again.headers["x-error-code"] == first.headers["x-error-code"] == "blocked"
    assert again.headers["idempotency-replayed"] == "true"
    assert sent(emulator) == 1


def test_what_was_not_served_frees_the_key(client: Client, emulator: Emulator) -> None:
    refused = client.post(TEXT_TO_IMAGE, {"prompt": "a cat"}, **{"X-Trouble": "429=60"})
    assert refused.status_code == 429
    assert "x-receipt-id" not in refused.headers
    other = client.post(TEXT_TO_IMAGE, {"prompt": "a dog"})
    assert other.status_code == 200
    assert "idempotency-replayed" not in other.headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TEXT_TO_IMAGE, {"prompt": "a cat #trouble:drop"}),
        ("/gen", {"mode": "text2img", "prompt": "a cat #trouble:drop"}),
    ],
)
def test_an_unknown_outcome_is_never_paid_again(
    client: Client, emulator: Emulator, path: str, body: Any
) -> None:
    first, again = client.post(path, body), client.post(path, body)
    assert first.status_code in (500, 504)
    assert first.json()["receiptId"] == first.headers["x-receipt-id"]
    assert float(first.headers["x-cost-usd"]) > 0
    assert again.status_code == 504
    assert again.json()["receiptId"] == first.json()["receiptId"]
    assert sent(emulator) == 1


def test_an_unknown_rewrite_is_never_paid_again(client: Client, emulator: Emulator) -> None:
    """The image models do not read Vietnamese: without the rewrite there is no picture."""
    body = {"mode": "text2img", "prompt": "con mèo", "regen_prompt": True, "prompt_language": "vi"}
    emulator.troubles.set("drop", vendor="claude", times=1)
    first, again = client.post("/gen", body), client.post("/gen", body)
    assert (first.status_code, again.status_code) == (500, 500)
    assert again.json()["receiptId"] == first.json()["receiptId"] == again.headers["x-receipt-id"]
    assert sent(emulator) == 1


def test_at_the_same_time_on_two_gateways_it_is_paid_once(
    start: Start, emulator: Emulator, migrated_url: str, tmp_path: Path
) -> None:
    key = uuid4().hex

    def ask(url: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token()}", "Idempotency-Key": key}
        body = {"prompt": "a cat #trouble:slow=0.5", "responseFormat": "b64_json"}
        return httpx.post(f"{url}{TEXT_TO_IMAGE}", json=body, headers=headers, timeout=30)

    shared = {"database_url": migrated_url, "private_store": str(tmp_path / "private")}
    with start(**shared) as one, start(**shared) as two, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, [one, two] * 4))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.content for answer in answers}) == 1
    assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [False] + [True] * 7
    assert sent(emulator) == 1


@pytest.mark.parametrize("response_format", ["url", "b64_json"])
def test_who_hangs_up_and_asks_again_gets_the_picture(
    client: Client, emulator: Emulator, response_format: str
) -> None:
    body = {"prompt": "a cat #trouble:slow=1", "responseFormat": response_format}
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(TEXT_TO_IMAGE, json=body, headers={"Idempotency-Key": client.key}, timeout=0.5)
    again = client.post(TEXT_TO_IMAGE, body)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert sent(emulator) == 1


LATE: list[tuple[str, dict[str, Any]]] = [
    (TEXT_TO_IMAGE, {"prompt": "a cat #trouble:slow=2"}),
    (TEXT_TO_IMAGE, {"prompt": "a cat #trouble:slow=2", "responseFormat": "b64_json"}),
    (TEXT_TO_IMAGE, {"prompt": "a cat #trouble:slow=2", "model": GEMINI, "sampleCount": 2}),
    ("/gen", {"mode": "text2img", "prompt": "a cat #trouble:slow=2"}),
]


@pytest.fixture(scope="module")
def hasty(start: Start) -> Iterator[str]:
    with start(request_timeout_seconds=1.2) as url:
        yield url


@pytest.mark.parametrize(("path", "body"), LATE)
def test_a_call_goes_on_when_its_callers_time_is_up(
    hasty: str, client: Client, emulator: Emulator, path: str, body: Any
) -> None:
    client.http.base_url = hasty
    first = client.post(path, body)
    assert first.status_code == 504
    assert first.json()["receiptId"] == first.headers["x-receipt-id"]
    while (again := client.post(path, body)).status_code == 409:
        assert int(again.headers["retry-after"])
    assert (again.status_code, again.headers["x-receipt-id"]) == (200, first.headers["x-receipt-id"])
    assert sent(emulator) == body.get("sampleCount", 1)
    (receipt,) = client.http.get("/api/v1/receipts?limit=1").json()["receipts"]
    assert {call["state"] for call in receipt["calls"]} == {"settled"}


def test_a_call_ends_when_call_seconds_are_over(start: Start, client: Client, emulator: Emulator) -> None:
    body = {"prompt": "a cat #trouble:slow=30"}
    with start(request_timeout_seconds=1, call_seconds=1.5) as url:
        client.http.base_url = url
        assert client.post(TEXT_TO_IMAGE, body).status_code == 504
        emulator.calls.wait_for(lambda calls: [call.cancelled for call in calls] == [True])
        while (again := client.post(TEXT_TO_IMAGE, body)).status_code == 409:
            pass
        assert (again.status_code, again.json()["receiptId"]) == (504, again.headers["x-receipt-id"])
    assert sent(emulator) == 1


def test_late_samples_do_not_keep_those_that_are_ready(
    hasty: str, client: Client, emulator: Emulator
) -> None:
    client.http.base_url = hasty
    emulator.troubles.set("hang", vendor="vertex", times=1)
    answer = client.post(TEXT_TO_IMAGE, {"prompt": "a cat", "model": GEMINI, "sampleCount": 3})
    assert (answer.status_code, len(answer.json()["images"])) == (200, 2)
    assert answer.json()["failed"] == [{"message": "no answer in time"}]
    (receipt,) = client.http.get("/api/v1/receipts?limit=1").json()["receipts"]
    assert sorted(call["state"] for call in receipt["calls"]) == ["abandoned", "settled", "settled"]
