"""The Vertex provider, with Google's own client over gRPC, against the emulator."""

import asyncio
import inspect
import json
import logging
import socket
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import grpc
import pybase64
import pytest
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.rpc import error_details_pb2 as details
from PIL import Image, ImageChops

from app.contract import errors
from app.contract.image import (
    ImageCustomize,
    ImageEdit,
    ImageRequest,
    ImageUpscale,
    ProductRecontext,
    TextToImage,
)
from app.contract.models import load_catalogue
from app.contract.pictures import Picture
from app.contract.rules import read
from app.contract.safety import block
from app.emulator.server import Emulator
from app.ports import Generation
from app.providers.vertex.client import Vertex, host
from app.providers.vertex.failure import translate
from tests import wire

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
IMAGEN = CATALOGUE["imagen-4.0-generate-001"]
GEMINI = CATALOGUE["gemini-2.5-flash-image"]
BOTH = pytest.mark.parametrize(
    "model", [pytest.param(IMAGEN, id="imagen"), pytest.param(GEMINI, id="gemini")]
)


@pytest.fixture
async def vertex(emulator: Emulator) -> AsyncIterator[Vertex]:
    vertex = Vertex(
        project="demo", endpoint=emulator.vertex_endpoint, timeout_seconds=20, backoff_seconds=0.01
    )
    yield vertex
    await vertex.aclose()


def text_to_image(**fields: Any) -> TextToImage:
    return read(TextToImage, {"prompt": "a cat", **fields}, CATALOGUE)


def answer(emulator: Emulator, body: Any, status: int = 200) -> None:
    emulator.troubles.set("answer", vendor="vertex", arg={"status": status, "body": body})


def error(code: int, status: str, message: str = "secret words of project 42", *more: wire.Json) -> wire.Json:
    return {"error": {"code": code, "status": status, "message": message, "details": [*more]}}


def detail(kind: str, **fields: Any) -> wire.Json:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def opened(picture: Picture) -> Image.Image:
    return Image.open(BytesIO(picture.data))


def encoded(image: Image.Image, format: str = "PNG") -> str:
    file = BytesIO()
    image.save(file, format)
    return pybase64.b64encode_as_string(file.getvalue())


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_imagen_makes_all_samples_in_one_call(vertex: Vertex, emulator: Emulator) -> None:
    made = await vertex.run(text_to_image(sampleCount=4, aspectRatio="16:9"), IMAGEN)
    assert [(one.mime_type, one.size) for one in made.pictures] == [("image/png", (1408, 768))] * 4
    assert made.filtered == ()
    assert [call.method for call in emulator.calls.list()] == ["predict"]


async def test_gemini_makes_each_sample_in_a_call_of_its_own(vertex: Vertex, emulator: Emulator) -> None:
    made = await vertex.run(text_to_image(sampleCount=3, seed=10), GEMINI)
    assert [one.mime_type for one in made.pictures] == ["image/png"] * 3
    calls = emulator.calls.list()
    assert [call.method for call in calls] == ["generateContent"] * 3
    assert sorted(call.body["generationConfig"]["seed"] for call in calls) == [10, 11, 12]
    assert len({one.data for one in made.pictures}) == 3


async def test_the_picture_that_is_no_thought_is_taken(vertex: Vertex) -> None:
    made = await vertex.run(text_to_image(), CATALOGUE["gemini-3-pro-image"])
    assert made.pictures[0].size == (1024, 1024)


@pytest.mark.parametrize("asked", ["image/png", "image/jpeg"])
@pytest.mark.parametrize("given", ["PNG", "JPEG", "WEBP"])
async def test_gemini_answers_in_the_type_asked_for(
    given: str, asked: str, vertex: Vertex, emulator: Emulator
) -> None:
    data = encoded(Image.new("RGB", (40, 30), "red"), given)
    blob = {"inlineData": {"mimeType": "image/webp", "data": data}}
    answer(emulator, {"candidates": [{"finishReason": "STOP", "content": {"parts": [blob]}}]})
    made = await vertex.run(text_to_image(outputOptions={"mimeType": asked}), GEMINI)
    [picture] = made.pictures
    assert (picture.mime_type, picture.size) == (asked, (40, 30))
    assert Image.MIME[opened(picture).format or ""] == asked


async def test_answers_may_be_larger_than_grpc_lets_by_default(vertex: Vertex, emulator: Emulator) -> None:
    noise = Image.effect_noise((2000, 2000), 100).convert("RGB")
    prediction = {"mimeType": "image/png", "bytesBase64Encoded": encoded(noise)}
    answer(emulator, {"predictions": [prediction] * 2})
    made = await vertex.run(text_to_image(), IMAGEN)
    assert [one.data for one in made.pictures] == [pybase64.b64decode(prediction["bytesBase64Encoded"])] * 2


async def test_upscaled_pictures_may_be_larger_than_callers_pictures(
    vertex: Vertex, emulator: Emulator
) -> None:
    noise = Image.frombytes("RGB", (2700, 2700), bytes(range(251)) * (2700 * 2700 * 3 // 251 + 1))
    file = BytesIO()
    noise.save(file, "PNG", compress_level=0)
    assert len(file.getvalue()) > 20 * 2**20
    answer(emulator, {"predictions": [{"bytesBase64Encoded": pybase64.b64encode_as_string(file.getvalue())}]})
    request = read(ImageUpscale, {"image": encoded(Image.new("L", (10, 10)))}, CATALOGUE)
    made = await vertex.run(request, CATALOGUE["imagen-4.0-upscale-preview"])
    assert made.pictures[0].data == file.getvalue()


RECORDED = {
    case["name"]: case
    for case in json.loads((wire.FOLDER / "responses.json").read_text("utf-8"))["cases"]
    if case["name"] != "ok-200-not-json"  # gRPC has no such answer
}
MADE = {
    "predict-two-images": (2, ()),
    "predict-partial-filtered-text": (2, (block("Support codes: 56562880, 63429089"),)),
    "upscale-one": (1, ()),
    "gemini-one-image": (1, ()),
    "gemini-two-images-one-candidate": (1, ()),
}
UNEXPLAINED = block()
BLOCKED = {
    "predict-gcs-uri": UNEXPLAINED,
    "predict-filtered-without-code": UNEXPLAINED,
    "predict-empty-list": UNEXPLAINED,
    "edit-filtered": block("29578790"),
    "gemini-image-prohibited": UNEXPLAINED,
    "gemini-prompt-blocked-image-safety": UNEXPLAINED,
    "gemini-image-other": UNEXPLAINED,
    "gemini-max-tokens-empty": UNEXPLAINED,
    "gemini-unknown-finish-reason": UNEXPLAINED,
    "error-400-prompt-filtered-code-in-details": block("42876398"),
}
FAILED = {
    "error-400-bad-request-field-violation": errors.InvalidRequest,
    "error-401": errors.UpstreamFailed,
    "error-429": errors.RateLimited,
    "error-500": errors.UpstreamFailed,
    "error-list-wrapped": errors.InvalidRequest,
}


@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_answer_is_read(name: str, vertex: Vertex, emulator: Emulator) -> None:
    case = RECORDED[name]
    model = GEMINI if case["sdk_call"].endswith("generate_content") else IMAGEN
    for _ in range(3):
        answer(emulator, case["response_body"], case["http_status"])
    if name in MADE:
        made = await vertex.run(text_to_image(), model)
        assert (len(made.pictures), made.filtered) == MADE[name]
    elif name in BLOCKED:
        with pytest.raises(errors.SafetyBlocked) as blocked:
            await vertex.run(text_to_image(), model)
        assert blocked.value.block == BLOCKED[name]
    else:
        with pytest.raises(FAILED[name]):
            await vertex.run(text_to_image(), model)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({}, UNEXPLAINED, id="nothing"),
        pytest.param(
            {"predictions": [{"contentType": "Positive Prompt", "safetyAttributes": {}}]},
            UNEXPLAINED,
            id="attributes of the prompt",
        ),
        pytest.param({"predictions": [{"raiFilteredReason": "58061214"}]}, block("58061214"), id="bare code"),
        pytest.param(
            {
                "predictions": [
                    {"raiFilteredReason": "Removed."},
                    {"raiFilteredReason": "Support codes: 39322892"},
                ]
            },
            block("39322892"),
            id="code in the second reason",
        ),
    ],
)
async def test_answer_without_a_picture_is_a_block(
    body: wire.Json, expected: object, vertex: Vertex, emulator: Emulator
) -> None:
    answer(emulator, body)
    with pytest.raises(errors.SafetyBlocked) as blocked:
        await vertex.run(text_to_image(), IMAGEN)
    assert blocked.value.block == expected


@BOTH
async def test_broken_picture_of_the_vendor_is_its_failure(
    model: Any, vertex: Vertex, emulator: Emulator
) -> None:
    blob = {"mimeType": "image/png", "data": "AAAA"}
    candidates = [{"finishReason": "STOP", "content": {"parts": [{"inlineData": blob}]}}]
    imagen = {"predictions": [{"bytesBase64Encoded": "AAAA"}]}
    answer(emulator, imagen if model is IMAGEN else {"candidates": candidates})
    with pytest.raises(errors.UpstreamFailed):
        await vertex.run(text_to_image(), model)


async def test_truncated_picture_of_the_vendor_is_its_failure(vertex: Vertex, emulator: Emulator) -> None:
    whole = pybase64.b64decode(encoded(Image.effect_noise((64, 64), 99), "JPEG"))
    blob = {"inlineData": {"mimeType": "image/jpeg", "data": pybase64.b64encode_as_string(whole[:-500])}}
    answer(emulator, {"candidates": [{"finishReason": "STOP", "content": {"parts": [blob]}}]})
    with pytest.raises(errors.UpstreamFailed):
        await vertex.run(text_to_image(), GEMINI)


@BOTH
async def test_half_blocked_batch_is_told(model: Any, vertex: Vertex, emulator: Emulator) -> None:
    made = await vertex.run(text_to_image(prompt="#trouble:half-blocked", sampleCount=4), model)
    assert len(made.pictures) == 2
    assert {one.code for one in made.filtered} == {56562880}
    assert emulator.calls.paid == 2


@BOTH
async def test_reference_pictures_travel(model: Any, vertex: Vertex, emulator: Emulator) -> None:
    picture = encoded(Image.new("RGB", (64, 64), "blue"))
    subject = {"subjectType": "SUBJECT_TYPE_PRODUCT", "subjectDescription": "a shoe"}
    reference = {
        "referenceType": "REFERENCE_TYPE_SUBJECT",
        "referenceId": 1,
        "bytesBase64Encoded": picture,
        "subjectImageConfig": subject,
    }
    body = {"prompt": "[1] on the moon", "referenceImages": [reference], "sampleCount": 1}
    custom = CATALOGUE["imagen-3.0-capability-001"] if model is IMAGEN else GEMINI
    scene = CATALOGUE["imagen-product-recontext-preview-06-30"] if model is IMAGEN else GEMINI
    requests: list[tuple[ImageRequest, Any]] = [
        (read(ImageCustomize, body, CATALOGUE), custom),
        (read(ProductRecontext, {"productImages": [picture]}, CATALOGUE), scene),
    ]
    for request, row in requests:
        assert len((await vertex.run(request, row)).pictures) == 1
    assert emulator.calls.paid == 2


# ── masked edits by a model that knows no masks ──────────────────────────────────────────────────────────

ORIGINAL = Image.effect_noise((120, 90), 80).convert("RGB")


def masked_edit(**mask: Any) -> ImageEdit:
    area = Image.new("L", ORIGINAL.size)
    area.paste(255, (40, 30, 80, 60))
    config = {"maskMode": "MASK_MODE_USER_PROVIDED", "dilation": 0.1, **mask.pop("config", {})}
    raw = {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "bytesBase64Encoded": encoded(ORIGINAL)}
    marks = {
        "referenceType": "REFERENCE_TYPE_MASK",
        "referenceId": 2,
        "bytesBase64Encoded": encoded(area),
        "maskImageConfig": config,
        **mask,
    }
    body = {
        "prompt": "a red car",
        "referenceImages": [raw, marks],
        "editMode": "EDIT_MODE_INPAINT_INSERTION",
        "sampleCount": 2,
    }
    return read(ImageEdit, body, CATALOGUE)


async def test_edit_by_gemini_changes_no_pixel_outside_the_dilated_mask(vertex: Vertex) -> None:
    made = await vertex.run(masked_edit(), GEMINI)
    assert len(made.pictures) == 2
    for picture in made.pictures:
        assert (picture.mime_type, picture.size) == ("image/png", ORIGINAL.size)
        changed = ImageChops.difference(opened(picture).convert("RGB"), ORIGINAL).convert("L").getbbox()
        assert changed is not None
        left, top, right, bottom = changed
        assert (left, top) >= (28, 18)
        assert right <= 92
        assert bottom <= 72
        assert changed != (40, 30, 80, 60), "the mask was to be dilated"


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        pytest.param(
            masked_edit(bytesBase64Encoded="gs://bucket/mask.png"),
            "referenceImages.1.bytesBase64Encoded cannot be a gs:// URI with gemini-2.5-flash-image",
            id="mask we cannot see",
        ),
    ],
)
async def test_edit_that_could_not_be_composed_is_refused_before_it_is_paid(
    request_: ImageEdit, sentence: str, vertex: Vertex, emulator: Emulator
) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        await vertex.run(request_, GEMINI)
    assert refused.value.message == sentence
    assert emulator.calls.list() == ()


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────

GONE = "Publisher Model `projects/demo/locations/x/publishers/google/models/y` was not found."
REFUSALS = [
    pytest.param(
        error(400, "INVALID_ARGUMENT"), "imagen-4.0-generate-001 does not take this request", id="400"
    ),
    pytest.param(
        error(400, "FAILED_PRECONDITION"),
        "imagen-4.0-generate-001 does not take this request",
        id="precondition",
    ),
    pytest.param(
        error(
            400,
            "INVALID_ARGUMENT",
            "x",
            detail(
                "BadRequest",
                fieldViolations=[
                    {"field": "generation_config.image_config.image_size", "description": "secret"},
                    {"field": "internal.field", "description": "secret"},
                ],
            ),
        ),
        "sampleImageSize has a value that imagen-4.0-generate-001 does not take",
        id="field named",
    ),
    pytest.param(
        error(404, "NOT_FOUND", "Object gs://bucket/a.png does not exist"),
        "a gs:// picture could not be read",
        id="object",
    ),
]


@pytest.mark.parametrize(("body", "sentence"), REFUSALS)
async def test_refused_value_is_the_callers(
    body: wire.Json, sentence: str, vertex: Vertex, emulator: Emulator
) -> None:
    answer(emulator, body, body["error"]["code"])
    with pytest.raises(errors.InvalidRequest) as refused:
        await vertex.run(text_to_image(), IMAGEN)
    assert refused.value.message == sentence
    assert isinstance(refused.value.__cause__, google_errors.GoogleAPICallError)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(error(400, "INVALID_ARGUMENT", "Blocked. Support codes: 58061214"), id="message"),
        pytest.param(
            error(400, "INVALID_ARGUMENT", "no", detail("DebugInfo", detail="58061214")), id="detail"
        ),
    ],
)
async def test_support_code_anywhere_in_an_error_is_a_block(
    body: wire.Json, vertex: Vertex, emulator: Emulator
) -> None:
    answer(emulator, body, 400)
    with pytest.raises(errors.SafetyBlocked) as blocked:
        await vertex.run(text_to_image(), IMAGEN)
    assert blocked.value.block == block("58061214")


async def test_block_without_a_code_is_a_block(vertex: Vertex, emulator: Emulator) -> None:
    words = "This prompt contains sensitive words that violate Google's Responsible AI practices."
    answer(emulator, error(400, "INVALID_ARGUMENT", words), 400)
    with pytest.raises(errors.SafetyBlocked) as blocked:
        await vertex.run(text_to_image(), IMAGEN)
    assert blocked.value.block == UNEXPLAINED


@BOTH
async def test_model_that_is_gone(model: Any, vertex: Vertex, emulator: Emulator) -> None:
    with pytest.raises(errors.ModelGone) as gone:
        await vertex.run(text_to_image(prompt="#trouble:retired", sampleCount=2), model)
    assert gone.value.model == model.id
    assert emulator.calls.paid == 0


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        pytest.param("RESOURCE_EXHAUSTED", 429, errors.RateLimited, id="429"),
        pytest.param("UNAVAILABLE", 503, errors.UpstreamUnavailable, id="503"),
    ],
)
async def test_quota_and_overload_are_tried_three_times(
    status: str, code: int, expected: type[errors.GatewayError], vertex: Vertex, emulator: Emulator
) -> None:
    for _ in range(4):
        answer(emulator, error(code, status), code)
    with pytest.raises(expected):
        await vertex.run(text_to_image(), IMAGEN)
    assert [call.status for call in emulator.calls.list()] == [code] * 3


async def test_a_retry_may_succeed(vertex: Vertex, emulator: Emulator) -> None:
    for _ in range(2):
        answer(emulator, error(503, "UNAVAILABLE"), 503)
    await vertex.run(text_to_image(), IMAGEN)
    assert [call.status for call in emulator.calls.list()] == [503, 503, 200]


async def test_retry_waits_as_long_as_it_was_told(vertex: Vertex, emulator: Emulator) -> None:
    answer(emulator, error(429, "RESOURCE_EXHAUSTED", "x", detail("RetryInfo", retryDelay="0.3s")), 429)
    await vertex.run(text_to_image(), IMAGEN)
    first, second = emulator.calls.list()
    assert second.started - first.started >= 0.3


async def test_long_waits_are_left_to_the_caller(vertex: Vertex, emulator: Emulator) -> None:
    with pytest.raises(errors.RateLimited) as limited:
        await vertex.run(text_to_image(prompt="#trouble:429=7"), IMAGEN)
    assert (limited.value.retry_after, limited.value.by_vendor) == (7, True)
    assert len(emulator.calls.list()) == 1


@pytest.mark.parametrize(
    "status", ["INTERNAL", "UNKNOWN", "CANCELLED", "DATA_LOSS", "UNAUTHENTICATED", "PERMISSION_DENIED"]
)
async def test_other_failures_are_not_repeated(status: str, vertex: Vertex, emulator: Emulator) -> None:
    answer(emulator, error(500, status), 500)
    with pytest.raises(errors.UpstreamFailed) as failed:
        await vertex.run(text_to_image(), IMAGEN)
    assert "secret" not in failed.value.message
    assert len(emulator.calls.list()) == 1


@BOTH
async def test_dropped_call_may_be_paid_and_is_not_repeated(
    model: Any, vertex: Vertex, emulator: Emulator
) -> None:
    with pytest.raises(errors.UpstreamFailed):
        await vertex.run(text_to_image(prompt="#trouble:drop"), model)
    assert (len(emulator.calls.list()), emulator.calls.paid) == (1, 1)


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    vertex = Vertex(project="demo", endpoint=f"127.0.0.1:{port}", backoff_seconds=0.01)
    with pytest.raises(errors.UpstreamUnavailable):
        await vertex.run(text_to_image(), IMAGEN)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await vertex.ready()
    await vertex.aclose()


async def test_ready(vertex: Vertex, emulator: Emulator) -> None:
    async with asyncio.timeout(5):
        await vertex.ready()
    assert emulator.calls.list() == ()


@BOTH
async def test_deadline_ends_the_call_at_the_vendor(model: Any, emulator: Emulator) -> None:
    vertex = Vertex(project="demo", endpoint=emulator.vertex_endpoint, timeout_seconds=0.3)
    with pytest.raises(errors.UpstreamTimeout):
        await vertex.run(text_to_image(prompt="#trouble:hang"), model)
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.cancelled for call in calls))
    assert len(emulator.calls.list()) == 1
    await vertex.aclose()


@BOTH
async def test_cancelling_ends_every_call_at_the_vendor(
    model: Any, vertex: Vertex, emulator: Emulator
) -> None:
    running = asyncio.create_task(vertex.run(text_to_image(prompt="#trouble:hang", sampleCount=3), model))
    wanted = 1 if model is IMAGEN else 3
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: len(calls) == wanted)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.cancelled for call in calls))
    assert emulator.calls.paid == 0


async def test_samples_that_were_made_survive_those_that_failed(vertex: Vertex, emulator: Emulator) -> None:
    answer(emulator, error(500, "INTERNAL"), 500)
    answer(emulator, {"promptFeedback": {"blockReason": "SAFETY"}})
    made = await vertex.run(text_to_image(sampleCount=4), GEMINI)
    assert (len(made.pictures), made.filtered) == (2, (UNEXPLAINED,))
    assert len(emulator.calls.list()) == 4


async def test_samples_that_were_made_survive_the_deadline(emulator: Emulator) -> None:
    vertex = Vertex(project="demo", endpoint=emulator.vertex_endpoint, timeout_seconds=2)
    emulator.troubles.set("hang", vendor="vertex", times=1)
    made: Generation = await vertex.run(text_to_image(sampleCount=2), GEMINI)
    assert len(made.pictures) == 1
    await vertex.aclose()


async def test_most_telling_failure_is_told_when_nothing_was_made(vertex: Vertex, emulator: Emulator) -> None:
    answer(emulator, error(500, "INTERNAL"), 500)
    answer(emulator, {"promptFeedback": {"blockReason": "SAFETY"}})
    with pytest.raises(errors.SafetyBlocked):
        await vertex.run(text_to_image(sampleCount=2), GEMINI)


# ── the table of errors ──────────────────────────────────────────────────────────────────────────────────

STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: errors.InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequest,
    grpc.StatusCode.NOT_FOUND: errors.ModelGone,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.RateLimited,
    grpc.StatusCode.UNAVAILABLE: errors.UpstreamUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.UpstreamTimeout,
}


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
def test_every_status_has_a_meaning(status: grpc.StatusCode) -> None:
    exc = google_errors.from_grpc_status(status, "secret")  # type: ignore[no-untyped-call]
    meaning = translate(exc, IMAGEN)
    assert type(meaning) is STATUSES.get(status, errors.UpstreamFailed)
    assert "secret" not in meaning.message


@pytest.mark.parametrize(
    "exc",
    [
        *(
            kind("secret")
            for _, kind in inspect.getmembers(google_errors, inspect.isclass)
            if issubclass(kind, google_errors.GoogleAPICallError)
        ),
        google_errors.RetryError("secret", None),  # type: ignore[no-untyped-call]
        *(
            kind("secret")
            for _, kind in inspect.getmembers(auth_errors, inspect.isclass)
            if issubclass(kind, auth_errors.GoogleAuthError)
        ),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_every_error_of_googles_clients_becomes_ours(exc: Exception) -> None:
    meaning = translate(exc, IMAGEN)
    assert type(meaning) is not errors.GatewayError
    assert "secret" not in meaning.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("The service is overloaded.", errors.UpstreamUnavailable, id="answered"),
        pytest.param(
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:10.0.0.1:443: Socket closed",
            errors.UpstreamUnavailable,
            id="never connected",
        ),
        pytest.param("DNS resolution failed for x: timeout", errors.UpstreamUnavailable, id="no name"),
        pytest.param("Socket closed", errors.UpstreamFailed, id="closed"),
        pytest.param("Stream removed (Socket closed)", errors.UpstreamFailed, id="stream removed"),
        pytest.param("recvmsg:Connection reset by peer", errors.UpstreamFailed, id="reset"),
        pytest.param("GOAWAY received", errors.UpstreamFailed, id="goaway"),
        pytest.param("keepalive watchdog timeout", errors.UpstreamFailed, id="keepalive"),
        pytest.param("Getting metadata from plugin failed", errors.UpstreamFailed, id="our credentials"),
    ],
)
def test_unavailable_is_told_by_its_text(text: str, expected: type[errors.GatewayError]) -> None:
    assert type(translate(google_errors.ServiceUnavailable(text), IMAGEN)) is expected  # type: ignore[no-untyped-call]


def test_retry_info_is_passed_on() -> None:
    told = details.RetryInfo()
    told.retry_delay.FromMilliseconds(6500)
    limited = translate(google_errors.ResourceExhausted("x", details=[told]), IMAGEN)  # type: ignore[no-untyped-call]
    assert isinstance(limited, errors.RateLimited)
    assert limited.retry_after == 7


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com:443"),
        ("global", "aiplatform.googleapis.com:443"),
        ("us", "aiplatform.us.rep.googleapis.com:443"),
        ("eu", "aiplatform.eu.rep.googleapis.com:443"),
    ],
)
def test_host_of_a_location(location: str, expected: str) -> None:
    assert host(location) == expected


async def test_googles_client_never_logs_messages(vertex: Vertex, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await vertex.run(text_to_image(), IMAGEN)
    assert [record for record in caplog.records if record.name.startswith("google")] == []
