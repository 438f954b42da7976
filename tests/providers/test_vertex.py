"""The Vertex provider against the emulator, over HTTP."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pybase64
import pytest
from PIL import Image, ImageChops

from app.contract import errors
from app.contract.image import ImageRequest, ImageUpscale, ProductRecontext
from app.contract.models import Model
from app.contract.references import ImageCustomize, ImageEdit
from app.contract.safety import block
from app.emulator.server import Emulator
from app.emulator.travel import Travel
from app.pictures.picture import Picture
from app.pictures.work_folder import WorkFolder
from app.providers.google import host
from app.providers.transport import Answer, Body, Transport
from tests.support import vertex_recordings as wire
from tests.support.vertex_provider import CATALOGUE, GEMINI, IMAGEN, Caller, calling, data, encoded, opened

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize(
    "model", [pytest.param(IMAGEN, id="imagen"), pytest.param(GEMINI, id="gemini")]
)


@pytest.fixture
async def caller(emulator: Emulator) -> AsyncIterator[Caller]:
    async with calling(emulator) as caller:
        yield caller


def answer(emulator: Emulator, body: Any, status: int = 200) -> None:
    emulator.troubles.set("answer", vendor="vertex", arg={"status": status, "body": body})


def error(code: int, status: str, message: str = "secret words of project 42", *more: wire.Json) -> wire.Json:
    return {"error": {"code": code, "status": status, "message": message, "details": [*more]}}


def detail(kind: str, **fields: Any) -> wire.Json:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def sample(part: wire.Json) -> wire.Json:
    """Gemini's answer of this one part."""
    return {"candidates": [{"finishReason": "STOP", "content": {"parts": [part]}}]}


def inline(data: object) -> wire.Json:
    return {"inlineData": {"mimeType": "image/png", "data": data}}


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_imagen_makes_all_samples_in_one_call(caller: Caller, emulator: Emulator) -> None:
    made = await caller.run(caller.text_to_image(sampleCount=4, aspectRatio="16:9"), IMAGEN)
    assert [(one.mime_type, one.size) for one in made.pictures] == [("image/png", (1408, 768))] * 4
    assert made.filtered == ()
    assert [call.method for call in emulator.calls.list()] == ["predict"]


async def test_gemini_makes_each_sample_in_a_call_of_its_own(caller: Caller, emulator: Emulator) -> None:
    made = await caller.run(caller.text_to_image(sampleCount=3, seed=10), GEMINI)
    assert [one.mime_type for one in made.pictures] == ["image/png"] * 3
    calls = emulator.calls.list()
    assert [call.method for call in calls] == ["generateContent"] * 3
    assert sorted(call.body["generationConfig"]["seed"] for call in calls) == [10, 11, 12]
    assert len({data(one) for one in made.pictures}) == 3


async def test_the_picture_that_is_no_thought_is_taken(caller: Caller) -> None:
    made = await caller.run(caller.text_to_image(), CATALOGUE["gemini-3-pro-image"])
    assert made.pictures[0].size == (1024, 1024)


@pytest.mark.parametrize("asked", ["image/png", "image/jpeg"])
@pytest.mark.parametrize("given", ["PNG", "JPEG", "WEBP"])
async def test_gemini_answers_in_the_type_asked_for(
    given: str, asked: str, caller: Caller, emulator: Emulator
) -> None:
    answer(emulator, sample(inline(encoded(Image.new("RGB", (40, 30), "red"), given))))
    made = await caller.run(caller.text_to_image(outputOptions={"mimeType": asked}), GEMINI)
    [picture] = made.pictures
    assert (picture.mime_type, picture.size) == (asked, (40, 30))
    assert Image.MIME[opened(picture).format or ""] == asked


async def test_answers_may_be_large(caller: Caller, emulator: Emulator) -> None:
    noise = Image.effect_noise((2000, 2000), 100).convert("RGB")
    prediction = {"mimeType": "image/png", "bytesBase64Encoded": encoded(noise)}
    answer(emulator, {"predictions": [prediction] * 2})
    made = await caller.run(caller.text_to_image(), IMAGEN)
    assert [data(one) for one in made.pictures] == [pybase64.b64decode(prediction["bytesBase64Encoded"])] * 2


async def test_upscaled_pictures_may_be_larger_than_callers_pictures(
    caller: Caller, emulator: Emulator
) -> None:
    noise = Image.frombytes("RGB", (2700, 2700), bytes(range(251)) * (2700 * 2700 * 3 // 251 + 1))
    file = BytesIO()
    noise.save(file, "PNG", compress_level=0)
    assert len(file.getvalue()) > 20 * 2**20
    answer(emulator, {"predictions": [{"bytesBase64Encoded": pybase64.b64encode_as_string(file.getvalue())}]})
    request = caller.read(ImageUpscale, {"image": encoded(Image.new("L", (10, 10)))})
    made = await caller.run(request, CATALOGUE["imagen-4.0-upscale-preview"])
    assert data(made.pictures[0]) == file.getvalue()


RECORDED = {
    case["name"]: case for case in json.loads((wire.FOLDER / "responses.json").read_text("utf-8"))["cases"]
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
    "ok-200-not-json": errors.UpstreamFailed,
    "error-400-bad-request-field-violation": errors.InvalidRequest,
    "error-401": errors.UpstreamFailed,
    "error-429": errors.RateLimited,
    "error-500": errors.UpstreamFailed,
    "error-list-wrapped": errors.InvalidRequest,
}


@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_answer_is_read(name: str, caller: Caller, emulator: Emulator) -> None:
    case = RECORDED[name]
    model = GEMINI if case["sdk_call"].endswith("generate_content") else IMAGEN
    for _ in range(3):
        answer(emulator, case["response_body"], case["http_status"])
    if name in MADE:
        made = await caller.run(caller.text_to_image(), model)
        assert (len(made.pictures), made.filtered) == MADE[name]
    elif name in BLOCKED:
        with pytest.raises(errors.SafetyBlocked) as blocked:
            await caller.run(caller.text_to_image(), model)
        assert blocked.value.block == BLOCKED[name]
    else:
        with pytest.raises(FAILED[name]):
            await caller.run(caller.text_to_image(), model)


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
    body: wire.Json, expected: object, caller: Caller, emulator: Emulator
) -> None:
    answer(emulator, body)
    with pytest.raises(errors.SafetyBlocked) as blocked:
        await caller.run(caller.text_to_image(), IMAGEN)
    assert blocked.value.block == expected


async def test_element_that_is_no_picture_and_no_reason_is_skipped(
    caller: Caller, emulator: Emulator
) -> None:
    picture = {"mimeType": "image/png", "bytesBase64Encoded": encoded(Image.new("RGB", (8, 8)))}
    attributes = {"contentType": "Positive Prompt", "safetyAttributes": {"scores": [0.1]}}
    answer(emulator, {"predictions": [attributes, picture]})
    made = await caller.run(caller.text_to_image(), IMAGEN)
    assert (len(made.pictures), made.filtered) == (1, ())


@BOTH
async def test_broken_picture_of_the_vendor_is_its_failure(
    model: Model, caller: Caller, emulator: Emulator
) -> None:
    imagen = {"predictions": [{"bytesBase64Encoded": "AAAA"}]}
    answer(emulator, imagen if model is IMAGEN else sample(inline("AAAA")))
    with pytest.raises(errors.UpstreamFailed):
        await caller.run(caller.text_to_image(), model)


async def test_truncated_picture_of_the_vendor_is_its_failure(caller: Caller, emulator: Emulator) -> None:
    whole = pybase64.b64decode(encoded(Image.effect_noise((64, 64), 99), "JPEG"))
    answer(emulator, sample(inline(pybase64.b64encode_as_string(whole[:-500]))))
    with pytest.raises(errors.UpstreamFailed):
        await caller.run(caller.text_to_image(), GEMINI)


@BOTH
async def test_half_blocked_batch_is_told(model: Model, caller: Caller, emulator: Emulator) -> None:
    made = await caller.run(caller.text_to_image(prompt="#trouble:half-blocked", sampleCount=4), model)
    assert len(made.pictures) == 2
    assert {one.code for one in made.filtered} == {56562880}
    assert emulator.calls.paid == 2


@BOTH
async def test_reference_pictures_travel(model: Model, caller: Caller, emulator: Emulator) -> None:
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
        (caller.read(ImageCustomize, body), custom),
        (caller.read(ProductRecontext, {"productImages": [picture]}), scene),
    ]
    for request, row in requests:
        assert len((await caller.run(request, row)).pictures) == 1
    assert emulator.calls.paid == 2


# ── masked edits by a model that knows no masks ──────────────────────────────────────────────────────────

ORIGINAL = Image.effect_noise((120, 90), 80).convert("RGB")


def masked_edit(caller: Caller, **mask: Any) -> ImageEdit:
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
    return caller.read(ImageEdit, body)


async def test_edit_by_gemini_changes_no_pixel_outside_the_dilated_mask(caller: Caller) -> None:
    made = await caller.run(masked_edit(caller), GEMINI)
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


async def test_edit_that_could_not_be_composed_is_refused_before_it_is_paid(
    caller: Caller, emulator: Emulator
) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        await caller.run(masked_edit(caller, bytesBase64Encoded="gs://bucket/mask.png"), GEMINI)
    assert refused.value.message == (
        "referenceImages.1.bytesBase64Encoded cannot be a gs:// URI with gemini-2.5-flash-image"
    )
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
    body: wire.Json, sentence: str, caller: Caller, emulator: Emulator
) -> None:
    answer(emulator, body, body["error"]["code"])
    with pytest.raises(errors.InvalidRequest) as refused:
        await caller.run(caller.text_to_image(), IMAGEN)
    assert refused.value.message == sentence
    assert refused.value.vendor_code == body["error"]["status"]
    assert len(emulator.calls.list()) == 1


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
    body: wire.Json, caller: Caller, emulator: Emulator
) -> None:
    answer(emulator, body, 400)
    with pytest.raises(errors.SafetyBlocked) as blocked:
        await caller.run(caller.text_to_image(), IMAGEN)
    assert blocked.value.block == block("58061214")


async def test_block_without_a_code_is_a_block(caller: Caller, emulator: Emulator) -> None:
    words = "This prompt contains sensitive words that violate Google's Responsible AI practices."
    answer(emulator, error(400, "INVALID_ARGUMENT", words), 400)
    with pytest.raises(errors.SafetyBlocked) as blocked:
        await caller.run(caller.text_to_image(), IMAGEN)
    assert blocked.value.block == UNEXPLAINED


@BOTH
async def test_model_that_is_gone(model: Model, caller: Caller, emulator: Emulator) -> None:
    with pytest.raises(errors.ModelGone) as gone:
        await caller.run(caller.text_to_image(prompt="#trouble:retired", sampleCount=2), model)
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
    status: str, code: int, expected: type[errors.GatewayError], caller: Caller, emulator: Emulator
) -> None:
    for _ in range(4):
        answer(emulator, error(code, status), code)
    with pytest.raises(expected):
        await caller.run(caller.text_to_image(), IMAGEN)
    assert [call.status for call in emulator.calls.list()] == [code] * 3


async def test_a_retry_may_succeed(caller: Caller, emulator: Emulator) -> None:
    for _ in range(2):
        answer(emulator, error(503, "UNAVAILABLE"), 503)
    await caller.run(caller.text_to_image(), IMAGEN)
    assert [call.status for call in emulator.calls.list()] == [503, 503, 200]
    assert emulator.calls.paid == 1


async def test_retry_waits_as_long_as_it_was_told(caller: Caller, emulator: Emulator) -> None:
    answer(emulator, error(429, "RESOURCE_EXHAUSTED", "x", detail("RetryInfo", retryDelay="0.3s")), 429)
    await caller.run(caller.text_to_image(), IMAGEN)
    first, second = emulator.calls.list()
    assert second.started - first.started >= 0.3


async def test_long_waits_are_left_to_the_caller(caller: Caller, emulator: Emulator) -> None:
    with pytest.raises(errors.RateLimited) as limited:
        await caller.run(caller.text_to_image(prompt="#trouble:429=7"), IMAGEN)
    assert (limited.value.retry_after, limited.value.by_vendor) == (7, True)
    assert len(emulator.calls.list()) == 1


@pytest.mark.parametrize(
    "status", ["INTERNAL", "UNKNOWN", "CANCELLED", "DATA_LOSS", "UNAUTHENTICATED", "PERMISSION_DENIED"]
)
async def test_other_failures_are_not_repeated(status: str, caller: Caller, emulator: Emulator) -> None:
    answer(emulator, error(500, status), 500)
    with pytest.raises(errors.UpstreamFailed) as failed:
        await caller.run(caller.text_to_image(), IMAGEN)
    assert "secret" not in failed.value.message
    assert len(emulator.calls.list()) == 1


@BOTH
async def test_dropped_call_may_be_paid_and_is_not_repeated(
    model: Model, caller: Caller, emulator: Emulator
) -> None:
    with pytest.raises(errors.UpstreamFailed):
        await caller.run(caller.text_to_image(prompt="#trouble:drop"), model)
    assert (len(emulator.calls.list()), emulator.calls.paid) == (1, 1)


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with calling(endpoint=f"127.0.0.1:{port}") as caller:
        with pytest.raises(errors.UpstreamUnavailable) as unavailable:
            await caller.run(caller.text_to_image(), IMAGEN)
        with pytest.raises(OSError, match="Connect"):
            await caller.vertex.ready()
    assert unavailable.value.retry_after == 10


async def test_ready(caller: Caller, emulator: Emulator) -> None:
    await caller.vertex.ready()
    assert emulator.calls.list() == ()


@BOTH
async def test_deadline_ends_the_call_at_the_vendor(model: Model, caller: Caller, emulator: Emulator) -> None:
    with pytest.raises(errors.UpstreamTimeout):
        await caller.run(caller.text_to_image(prompt="#trouble:hang"), model, seconds=0.3)
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.cancelled for call in calls))
    assert len(emulator.calls.list()) == 1


@BOTH
async def test_cancelling_ends_every_call_at_the_vendor(
    model: Model, caller: Caller, emulator: Emulator
) -> None:
    running = asyncio.create_task(
        caller.run(caller.text_to_image(prompt="#trouble:hang", sampleCount=3), model)
    )
    wanted = 1 if model is IMAGEN else 3
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: len(calls) == wanted)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.cancelled for call in calls))
    assert emulator.calls.paid == 0


async def test_samples_that_were_made_survive_those_that_failed(caller: Caller, emulator: Emulator) -> None:
    answer(emulator, error(500, "INTERNAL"), 500)
    answer(emulator, {"promptFeedback": {"blockReason": "SAFETY"}})
    made = await caller.run(caller.text_to_image(sampleCount=4), GEMINI)
    assert (len(made.pictures), made.filtered) == (2, (UNEXPLAINED,))
    assert len(emulator.calls.list()) == 4


async def test_samples_that_were_made_survive_the_deadline(caller: Caller, emulator: Emulator) -> None:
    emulator.troubles.set("hang", vendor="vertex", times=1)
    made = await caller.run(caller.text_to_image(sampleCount=2), GEMINI, seconds=2)
    assert len(made.pictures) == 1


async def test_sample_that_cannot_be_kept_does_not_cost_the_others(
    caller: Caller, emulator: Emulator, tmp_path: Path
) -> None:
    large = Image.effect_noise((400, 400), 99)
    answer(emulator, sample(inline(encoded(large))))
    answer(emulator, sample(inline(encoded(large.resize((8, 8))))))
    with WorkFolder(tmp_path, max_bytes=0, blob_memory_bytes=50_000) as work, work.blobs() as blobs:
        cramped = replace(caller, blobs=blobs)
        made = await cramped.run(caller.text_to_image(sampleCount=2), GEMINI)
        assert [one.size for one in made.pictures] == [(8, 8)]
        answer(emulator, sample(inline(encoded(large))))
        with pytest.raises(errors.UpstreamFailed):
            await cramped.run(caller.text_to_image(), GEMINI)
    assert len(emulator.calls.list()) == 3


async def test_most_telling_failure_is_told_when_nothing_was_made(caller: Caller, emulator: Emulator) -> None:
    answer(emulator, error(500, "INTERNAL"), 500)
    answer(emulator, {"promptFeedback": {"blockReason": "SAFETY"}})
    with pytest.raises(errors.SafetyBlocked):
        await caller.run(caller.text_to_image(sampleCount=2), GEMINI)


# ── how an answer travels ────────────────────────────────────────────────────────────────────────────────


@BOTH
@pytest.mark.parametrize(
    "travel",
    [
        pytest.param(Travel(chunked=True), id="chunked"),
        pytest.param(Travel(chunked=True, piece=997), id="small chunks"),
        pytest.param(Travel(gzip=True), id="gzip"),
        pytest.param(Travel(reordered=True), id="reordered"),
        pytest.param(Travel(indented=True), id="indented"),
        pytest.param(Travel(escaped=True), id="escaped"),
        pytest.param(
            Travel(chunked=True, gzip=True, reordered=True, indented=True, escaped=True, piece=1000), id="all"
        ),
        pytest.param(Travel(cut="after"), id="closed behind it"),
    ],
)
async def test_answer_in_another_form_has_the_same_pictures(
    travel: Travel, model: Model, caller: Caller, emulator: Emulator
) -> None:
    request = caller.text_to_image(seed=7, sampleCount=2)
    plain = await caller.run(request, model)
    emulator.troubles.set(travel=travel, vendor="vertex")
    made = await caller.run(request, model)
    assert [data(one) for one in made.pictures] == [data(one) for one in plain.pictures]


LOST = [
    pytest.param(Travel(cut="before"), errors.UpstreamFailed, id="before the head"),
    pytest.param(Travel(cut="before", reset=True), errors.UpstreamFailed, id="reset before the head"),
    pytest.param(Travel(cut=0), errors.UpstreamFailed, id="behind the head"),
    pytest.param(Travel(cut=5000), errors.UpstreamFailed, id="in the picture"),
    pytest.param(Travel(cut=5000, reset=True), errors.UpstreamFailed, id="reset in the picture"),
    pytest.param(Travel(cut=5000, chunked=True), errors.UpstreamFailed, id="between chunks"),
    pytest.param(Travel(cut=5000, gzip=True), errors.UpstreamFailed, id="in gzip"),
    pytest.param(Travel(length=-5), errors.UpstreamFailed, id="length too small"),
    pytest.param(Travel(length=5), errors.UpstreamFailed, id="length too large"),
    pytest.param(Travel(timed_out=True), errors.UpstreamTimeout, id="408 in HTML"),
]


@BOTH
@pytest.mark.parametrize(("travel", "expected"), LOST)
async def test_answer_that_is_lost_may_be_paid_and_is_not_asked_for_again(
    travel: Travel, expected: type[Exception], model: Model, caller: Caller, emulator: Emulator
) -> None:
    emulator.troubles.set(travel=travel, vendor="vertex")
    with pytest.raises(expected):
        await caller.run(caller.text_to_image(), model)
    assert (len(emulator.calls.list()), emulator.calls.paid) == (1, 1)


async def test_drip_ends_at_the_deadline(caller: Caller, emulator: Emulator) -> None:
    emulator.troubles.set(travel=Travel(drip=100), vendor="vertex")
    with pytest.raises(errors.UpstreamTimeout):
        await caller.run(caller.text_to_image(), IMAGEN, seconds=1)
    assert (len(emulator.calls.list()), emulator.calls.paid) == (1, 1)


UNKNOWN = [
    pytest.param(500, error(500, "INTERNAL"), errors.UpstreamFailed, id="500"),
    pytest.param(499, error(499, "CANCELLED"), errors.UpstreamFailed, id="499"),
    pytest.param(504, error(504, "DEADLINE_EXCEEDED"), errors.UpstreamTimeout, id="504"),
    pytest.param(408, error(408, "DEADLINE_EXCEEDED"), errors.UpstreamTimeout, id="408"),
    pytest.param(504, "<html>Gateway Timeout</html>", errors.UpstreamTimeout, id="504 in HTML"),
    *(
        pytest.param(status, body, errors.UpstreamFailed, id=f"{status} {kind}")
        for status in (400, 401, 403, 404, 429, 502, 503)
        for kind, body in {
            "HTML": "<html>Error</html>",
            "other JSON": {"message": "no"},
            "text": {"error": "no"},
            "another code": error(500, "UNAVAILABLE"),
            "no status": {"error": {"code": status, "message": "no"}},
        }.items()
    ),
]
REFUSED = [
    pytest.param(400, "INVALID_ARGUMENT", errors.InvalidRequest, 1, id="400"),
    pytest.param(401, "UNAUTHENTICATED", errors.UpstreamFailed, 1, id="401"),
    pytest.param(403, "PERMISSION_DENIED", errors.UpstreamFailed, 1, id="403"),
    pytest.param(404, "NOT_FOUND", errors.ModelGone, 1, id="404"),
    pytest.param(429, "RESOURCE_EXHAUSTED", errors.RateLimited, 3, id="429"),
    pytest.param(503, "UNAVAILABLE", errors.UpstreamUnavailable, 3, id="503"),
]


@pytest.mark.parametrize(("status", "body", "expected"), UNKNOWN)
async def test_error_that_does_not_say_no_is_not_repeated(
    status: int, body: object, expected: type[Exception], caller: Caller, emulator: Emulator
) -> None:
    answer(emulator, body, status)
    with pytest.raises(expected) as failed:
        await caller.run(caller.text_to_image(), IMAGEN)
    assert type(failed.value) is expected
    assert len(emulator.calls.list()) == 1


@pytest.mark.parametrize(("status", "name", "expected", "calls"), REFUSED)
@pytest.mark.parametrize("wrapped", [False, True])
async def test_googles_own_no_is_believed(
    wrapped: bool,
    status: int,
    name: str,
    expected: type[errors.GatewayError],
    calls: int,
    caller: Caller,
    emulator: Emulator,
) -> None:
    for _ in range(4):
        answer(emulator, [error(status, name)] if wrapped else error(status, name), status)
    with pytest.raises(expected) as failed:
        await caller.run(caller.text_to_image(), IMAGEN)
    assert (type(failed.value), failed.value.vendor_code) == (expected, name)
    assert "secret" not in failed.value.message
    assert len(emulator.calls.list()) == calls


ODD: list[object] = [None, "no", 5, True, [], [5], {"a": {}}, [[]]]


@pytest.mark.parametrize("odd", ODD, ids=json.dumps)
@pytest.mark.parametrize(
    ("model", "path"),
    [
        *(
            (IMAGEN, path)
            for path in ("", "predictions", "predictions.0", "predictions.0.bytesBase64Encoded")
        ),
        (IMAGEN, "predictions.0.raiFilteredReason"),
        (GEMINI, ""),
        (GEMINI, "candidates"),
        *(
            (GEMINI, f"candidates.0{path}")
            for path in (
                "",
                ".content",
                ".content.parts",
                ".content.parts.0",
                ".content.parts.0.inlineData",
                ".content.parts.0.inlineData.data",
                ".finishReason",
                ".finishMessage",
            )
        ),
        *((GEMINI, f"promptFeedback{path}") for path in ("", ".blockReason", ".blockReasonMessage")),
    ],
)
async def test_answer_of_another_shape_is_a_failure_and_no_crash(
    model: Model, path: str, odd: object, caller: Caller, emulator: Emulator
) -> None:
    body = odd
    for name in reversed(path.split(".") if path else []):
        body = [body] if name == "0" else {name: body}
    answer(emulator, body)
    with pytest.raises((errors.UpstreamFailed, errors.SafetyBlocked)):
        await caller.run(caller.text_to_image(), model)
    assert len(emulator.calls.list()) == 1


async def test_thoughts_are_no_pictures(caller: Caller, emulator: Emulator) -> None:
    draft, final = (encoded(Image.new("RGB", (size, size))) for size in (10, 20))
    parts = [{**inline(draft), "thought": True}, {"text": "Here it is"}, inline(final), inline(draft)]
    answer(emulator, {"candidates": [{"content": {"parts": parts}}]})
    made = await caller.run(caller.text_to_image(), GEMINI)
    assert [one.size for one in made.pictures] == [(20, 20)]


async def test_only_thoughts_are_a_block(caller: Caller, emulator: Emulator) -> None:
    answer(emulator, sample({**inline(encoded(Image.new("RGB", (8, 8)))), "thought": True}))
    with pytest.raises(errors.SafetyBlocked):
        await caller.run(caller.text_to_image(), GEMINI)


# ── how a request travels ────────────────────────────────────────────────────────────────────────────────


class Detour(Transport):
    """Sends what is for Google to the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self._emulator = emulator

    async def post(self, url: str, body: Body, headers: Mapping[str, str], **how: Any) -> Answer:
        self.asked.append((url, headers))
        place = url.removeprefix("https://").partition("/")[2]
        return await super().post(f"{self._emulator.http_url}/{place}", body, headers, **how)


async def token() -> dict[str, str]:
    return {"authorization": "Bearer made-up", "x-goog-user-project": "payer"}


@BOTH
async def test_google_is_asked_at_the_locations_host_with_a_token(model: Model, emulator: Emulator) -> None:
    detour = Detour(emulator)
    async with calling(transport=detour, credentials=token, location="europe-west4") as caller:
        await caller.run(caller.text_to_image(), model)
    place, method = {
        IMAGEN.id: (
            "europe-west4-aiplatform.googleapis.com/v1/projects/demo/locations/europe-west4",
            "predict",
        ),
        GEMINI.id: ("aiplatform.googleapis.com/v1/projects/demo/locations/global", "generateContent"),
    }[model.id]
    [(url, headers)] = detour.asked
    assert url == f"https://{place}/publishers/google/models/{model.id}:{method}"
    assert headers == {
        "content-type": "application/json",
        "user-agent": "image-gateway",
        "authorization": "Bearer made-up",
        "x-goog-user-project": "payer",
    }


async def test_trouble_to_rehearse_goes_with_each_call(caller: Caller, emulator: Emulator) -> None:
    with pytest.raises(errors.UpstreamUnavailable):
        await caller.run(caller.text_to_image(sampleCount=2), GEMINI, trouble="503")
    assert [call.status for call in emulator.calls.list()] == [503] * 6


async def test_endpoint_is_asked_without_a_token(emulator: Emulator) -> None:
    async def unwanted() -> dict[str, str]:
        pytest.fail("a token for an endpoint that is not Google's")

    async with calling(emulator, credentials=unwanted) as caller:
        await caller.run(caller.text_to_image(), IMAGEN)


@pytest.mark.parametrize("form", ["{}", "http://{}", "http://{}/"])
async def test_endpoint_may_be_written_without_a_scheme(form: str, emulator: Emulator) -> None:
    address = emulator.http_url.removeprefix("http://")
    async with calling(endpoint=form.format(address)) as caller:
        await caller.run(caller.text_to_image(), IMAGEN)


@pytest.mark.parametrize(
    ("failure", "tries"),
    [(errors.UpstreamUnavailable(retry_after=10), 3), (errors.UpstreamFailed("no token"), 1)],
)
async def test_without_a_token_nothing_is_sent(
    failure: errors.GatewayError, tries: int, emulator: Emulator
) -> None:
    asked = 0

    async def no_token() -> dict[str, str]:
        nonlocal asked
        asked += 1
        raise failure

    async with calling(transport=Detour(emulator), credentials=no_token) as caller:
        with pytest.raises(type(failure)):
            await caller.run(caller.text_to_image(), IMAGEN)
    assert (asked, emulator.calls.list()) == (tries, ())


async def test_a_token_that_does_not_come_is_waited_for_until_the_deadline(emulator: Emulator) -> None:
    async def never() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    async with calling(transport=Detour(emulator), credentials=never) as caller:
        with pytest.raises(errors.UpstreamUnavailable):
            await caller.run(caller.text_to_image(), IMAGEN, seconds=0.1)
    assert emulator.calls.list() == ()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_host_of_a_location(location: str, expected: str) -> None:
    assert host(location) == expected


async def test_too_large_pictures_are_made_lighter(caller: Caller, emulator: Emulator) -> None:
    large = Image.effect_noise((1700, 1700), 100).convert("RGB")
    request = caller.read(ImageUpscale, {"image": encoded(large, compress_level=0), "upscaleFactor": "x2"})
    assert isinstance(request.image, Picture)
    assert request.image.length > 7_000_000
    await caller.run(request, CATALOGUE["imagen-4.0-upscale-preview"])
    [call] = emulator.calls.list()
    assert call.body["instances"][0]["image"]["bytesBase64Encoded"]["bytes"] <= 7_000_000


def test_a_live_gateway_needs_no_client_of_googles() -> None:
    script = (
        "import sys, app.providers.vertex.client\n"
        "print([name for name in sys.modules if name.startswith(('grpc', 'google.cloud.', 'google.auth'))])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
