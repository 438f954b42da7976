"""Every kind of trouble: the answer, and that no sample is paid twice."""

import base64
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from app.emulator.trouble import Kind
from tests.api.conftest import Client, Start, client_of
from tools.rig.bodies import OPERATIONS, as_json, path, picture, without_receipt
from tools.rig.bodies import body as body_of

INTERNAL = {"statusCode": 500, "message": "Terjadi kesalahan internal"}
UNAVAILABLE = {"statusCode": 503, "message": "Service Unavailable"}
TIMEOUT = {"statusCode": 504, "message": "Gateway Timeout"}
TOO_MANY = {"statusCode": 429, "message": "Too Many Requests"}
SHORT = {
    "statusCode": 400,
    "message": "Request blocked by safety filters",
    "raiFilteredReason": "The model returned no picture",
}


@pytest.fixture(scope="module")
def hasty(start: Start) -> Iterator[str]:
    """A gateway with a short deadline, after which it does not wait for a vendor that hangs."""
    with start(request_timeout_seconds=2, retry_pause_seconds=0.05) as url:
        yield url


@pytest.fixture
def chaos(hasty: str, emulator: Emulator) -> Iterator[Client]:
    client = client_of(hasty)
    yield client
    client.http.close()


@pytest.mark.parametrize(
    ("trouble", "status", "body", "asked", "paid"),
    [
        pytest.param("empty", 400, SHORT, 1, 0, id="empty answer"),
        pytest.param("429=0", 429, TOO_MANY, 3, 0, id="quota"),
        pytest.param("429=60", 429, TOO_MANY, 1, 0, id="quota for long"),
        pytest.param("500", 500, INTERNAL, 1, 0, id="vendor broke"),
        pytest.param("503", 503, UNAVAILABLE, 3, 0, id="overload"),
        pytest.param("hang", 504, TIMEOUT, 1, 0, id="no answer"),
        pytest.param("drop", 500, INTERNAL, 1, 1, id="cut off after paying"),
    ],
)
@pytest.mark.parametrize("model", ["imagen-3.0-generate-001", "gemini-2.5-flash-image"])
def test_trouble_is_told_and_nothing_is_paid_twice(
    chaos: Client,
    emulator: Emulator,
    model: str,
    trouble: str,
    status: int,
    body: dict[str, Any],
    asked: int,
    paid: int,
) -> None:
    answer = chaos.text_to_image(f"a lighthouse #trouble:{trouble}", model=model)
    told = without_receipt(answer) if status in (500, 504) else answer.json()
    assert (answer.status_code, told) == (status, body)
    calls = [call for call in emulator.calls.list() if call.vendor == "vertex"]
    assert (len(calls), emulator.calls.paid) == (asked, paid)
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1


OTHER = {
    "success": False,
    "statusCode": 400,
    "message": "Request blocked by safety filters: Other in prompt",
    "raiFilteredReason": "Support codes: 42876398",
    "errorCode": 42876398,
    "category": "Other",
    "filteredOn": "prompt",
    "hint": "Rephrase the prompt and try again",
}
VIOLENCE = {
    "success": False,
    "statusCode": 400,
    "message": "Request blocked by safety filters: Violence in output",
    "raiFilteredReason": "Support codes: 56562880",
    "errorCode": 56562880,
    "category": "Violence",
    "filteredOn": "output",
    "hint": "Avoid violent or graphic content in prompts",
}


@pytest.mark.parametrize(
    ("kind", "arg", "status", "body", "asked", "paid"),
    [
        pytest.param("blocked-prompt", None, 400, OTHER, 1, 0, id="blocked prompt"),
        pytest.param("blocked-output", None, 400, VIOLENCE, 1, 0, id="blocked output"),
        pytest.param("text-only", None, 400, SHORT, 1, 0, id="no reason given"),
        pytest.param("empty", None, 400, SHORT, 1, 0, id="empty answer"),
        pytest.param("429", 0, 429, TOO_MANY, 3, 0, id="quota"),
        pytest.param("429", 60, 429, TOO_MANY, 1, 0, id="quota for long"),
        pytest.param("500", None, 500, INTERNAL, 1, 0, id="vendor broke"),
        pytest.param("503", None, 503, UNAVAILABLE, 3, 0, id="overload"),
        pytest.param("hang", None, 504, TIMEOUT, 1, 0, id="no answer"),
        pytest.param("drop", None, 500, INTERNAL, 1, 1, id="cut off after paying"),
    ],
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_trouble_of_every_endpoint_is_told_and_nothing_is_paid_twice(
    chaos: Client,
    emulator: Emulator,
    operation: str,
    kind: Kind,
    arg: int | None,
    status: int,
    body: dict[str, Any],
    asked: int,
    paid: int,
) -> None:
    emulator.troubles.set(kind, vendor="vertex", arg=arg)
    answer = chaos.post(path(operation), one_sample(operation))
    told = without_receipt(answer) if status in (500, 504) else answer.json()
    assert (answer.status_code, told) == (status, body)
    calls = [call for call in emulator.calls.list() if call.vendor == "vertex"]
    assert (len(calls), emulator.calls.paid) == (asked, paid)
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_passing_trouble_costs_one_picture(chaos: Client, emulator: Emulator, operation: str) -> None:
    emulator.troubles.set("503", vendor="vertex", times=2)
    assert chaos.post(path(operation), one_sample(operation)).status_code == 200
    assert (len(emulator.calls.list()), emulator.calls.paid) == (3, 1)


def one_sample(operation: str, **fields: str) -> dict[str, Any]:
    count = {} if operation == "image-upscale" else {"sampleCount": 1}
    wish: dict[str, Any] = as_json(body_of(operation, **count, **fields))
    return wish


@pytest.mark.parametrize("trouble", ["blocked-prompt", "blocked-output", "text-only"])
@pytest.mark.parametrize("model", ["imagen-3.0-generate-001", "gemini-2.5-flash-image"])
def test_a_block_is_never_a_success(chaos: Client, emulator: Emulator, model: str, trouble: str) -> None:
    answer = chaos.text_to_image(f"a lighthouse #trouble:{trouble}", model=model)
    body = answer.json()
    assert answer.status_code == 400
    assert body["message"].startswith("Request blocked by safety filters")
    if "errorCode" in body:
        assert set(body) == {
            "success",
            "statusCode",
            "message",
            "raiFilteredReason",
            "errorCode",
            "category",
            "filteredOn",
            "hint",
        }
        assert body["message"].endswith(f": {body['category']} in {body['filteredOn']}")
    else:
        assert set(body) == {"statusCode", "message", "raiFilteredReason"}


@pytest.mark.parametrize("model", ["imagen-3.0-generate-001", "gemini-2.5-flash-image"])
def test_a_half_blocked_batch_is_told(chaos: Client, emulator: Emulator, model: str) -> None:
    answer = chaos.text_to_image("lighthouses #trouble:half-blocked", model=model, sampleCount=4)
    body = answer.json()
    assert (answer.status_code, len(body["images"]), len(body["filtered"])) == (200, 2, 2)
    assert all("raiFilteredReason" in one for one in body["filtered"])


GOOD = {"bytesBase64Encoded": base64.b64encode(picture()).decode(), "mimeType": "image/png"}
CUT_OFF = {"bytesBase64Encoded": base64.b64encode(picture()[:-20]).decode(), "mimeType": "image/png"}
BATCHES = ("text-to-image", "image-edit", "image-customize", "virtual-try-on", "product-recontext")


@pytest.mark.parametrize("wanted", ["url", "b64_json"])
@pytest.mark.parametrize("operation", BATCHES)
def test_what_is_lost_of_a_batch_is_told(
    chaos: Client, emulator: Emulator, operation: str, wanted: str
) -> None:
    samples = [GOOD, CUT_OFF, GOOD, {"raiFilteredReason": "Support codes: 56562880"}]
    emulator.troubles.set("answer", vendor="vertex", arg={"status": 200, "body": {"predictions": samples}})
    wish = {"prompt": "a lighthouse"} if operation == "text-to-image" else as_json(body_of(operation))
    answer = chaos.post(path(operation), {**wish, "sampleCount": 4, "responseFormat": wanted})
    body = answer.json()
    made = body["images"] if wanted == "url" else body["predictions"]
    assert (answer.status_code, len(made)) == (200, 2)
    assert [one["errorCode"] for one in body["filtered"]] == [56562880]
    assert body["failed"] == [{"message": "the picture in the answer was broken"}]


def test_a_quota_in_the_middle_of_a_batch_costs_one_picture(chaos: Client, emulator: Emulator) -> None:
    emulator.troubles.set("429", vendor="vertex", times=1, arg=60)
    answer = chaos.text_to_image("lighthouses", model="gemini-2.5-flash-image", sampleCount=3)
    body = answer.json()
    assert (answer.status_code, len(body["images"]), emulator.calls.paid) == (200, 2, 2)
    assert body["failed"] == [{"message": "the vendor's quota is used up"}]
    assert "filtered" not in body


@pytest.mark.parametrize(("seconds", "status"), [(0.5, 200), (60, 504)])
def test_a_slow_vendor_is_waited_for_until_the_deadline(chaos: Client, seconds: float, status: int) -> None:
    assert chaos.text_to_image(f"a lighthouse #trouble:slow={seconds}").status_code == status


@pytest.mark.parametrize("operation", ["text-to-image", *OPERATIONS])
def test_a_paid_picture_survives_the_store_s_absence(
    start: Start, emulator: Emulator, operation: str
) -> None:
    """503 now; when the store is back the picture lands under its name."""
    emulator.troubles.set("storage-down")
    with start(upload_seconds=1, spool_seconds=0.2) as url:
        client = client_of(url)
        if operation == "text-to-image":
            answer = client.text_to_image("a lighthouse")
        else:
            answer = client.post(path(operation), one_sample(operation, responseFormat="url"))
        client.http.close()
        (pending,) = answer.json().pop("pending")
        assert (answer.status_code, answer.json()) == (503, {**UNAVAILABLE, "pending": [pending]})
        assert (answer.headers["X-Error-Code"], answer.headers["Retry-After"]) == ("storage_down", "1")
        emulator.troubles.clear()
        emulator.calls.wait_for(
            lambda calls: any(call.method == "objects.insert" and call.status == 200 for call in calls), 10
        )
    picture = httpx.get(pending["url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, pending["mimeType"])
    assert pending["url"].endswith(pending["filename"])
    assert emulator.calls.paid == 1


@pytest.mark.parametrize("fields", [{}, {"responseFormat": "b64_json", "storageUri": "gs://image-gateway/a"}])
def test_what_is_not_stored_in_time_is_pending(
    start: Start, emulator: Emulator, fields: dict[str, Any]
) -> None:
    emulator.troubles.set("hang", vendor="gcs", times=1)
    with start(upload_seconds=2, upload_wait_seconds=0.5, spool_seconds=0.2) as url:
        client = client_of(url)
        answer = client.text_to_image("a lighthouse", sampleCount=2, **fields)
        client.http.close()
        emulator.calls.wait_for(
            lambda calls: sum(call.method == "objects.insert" and call.status == 200 for call in calls) == 2,
            10,
        )
    (pending,) = answer.json()["pending"]
    (stored,) = answer.json()["predictions" if fields else "images"]
    assert answer.status_code == 200
    assert {httpx.get(one["url"]).status_code for one in (pending, stored)} == {200}
    assert set(pending) == {"url", "filename", "mimeType", "generatedAt"}


def test_a_deadline_before_the_wait_for_storage_ends_tells_the_url(start: Start, emulator: Emulator) -> None:
    """Not a 504, after which nobody knows the URL of a paid picture."""
    emulator.troubles.set("hang", vendor="gcs")
    with start(request_timeout_seconds=2, upload_wait_seconds=60, spool_seconds=0.2) as url:
        client = client_of(url)
        answer = client.text_to_image("a lighthouse")
        client.http.close()
        emulator.troubles.clear()
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "storage_down")
    assert len(answer.json()["pending"]) == 1


def test_nothing_is_sold_that_could_not_be_kept(
    start: Start, emulator: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Starts a gateway whose spool accepts no files, as on a full or read-only disk."""
    spool = tmp_path_factory.mktemp("gone") / "spool"
    with start(spool_dir=spool) as url:
        shutil.rmtree(spool)
        spool.write_text("in its place")
        client = client_of(url)
        answer = client.text_to_image("a lighthouse")
        assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
        assert (answer.headers["X-Error-Code"], answer.headers["Retry-After"]) == ("storage_down", "15")
        assert emulator.calls.list() == ()
        assert client.text_to_image("a lighthouse", responseFormat="b64_json").status_code == 200
        client.http.close()


def test_an_upload_whose_answer_is_lost_is_one_object(chaos: Client, emulator: Emulator) -> None:
    emulator.troubles.set("drop", vendor="gcs", times=1)
    answer = chaos.text_to_image("a lighthouse")
    assert answer.status_code == 200
    inserts = [call for call in emulator.calls.list() if call.method == "objects.insert"]
    assert [call.status for call in inserts] == [None, 412]
