"""The five endpoints that take pictures: both spellings, every kind of answer, successors, objects, sizes."""

import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops

from app.emulator.calls import Call
from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of
from tests.support.vertex_client import upload
from tools.rig.bodies import (
    FIELDS,
    MODELS,
    OPERATIONS,
    SIZE,
    as_form,
    as_json,
    body,
    encoded,
    mask,
    opened,
    path,
    picture,
    replaced,
)

Json = dict[str, Any]
SAMPLES = {"image-edit": 4, "image-customize": 4}
SIZES = {"image-upscale": (192, 128), "image-edit": SIZE, "virtual-try-on": SIZE}
SHORT = {
    "image-upscale": "img4up",
    "image-edit": "img3cap",
    "image-customize": "img3cap",
    "virtual-try-on": "vto",
    "product-recontext": "recontext",
}


def post_json(client: Client, operation: str, wish: Json) -> httpx.Response:
    return client.post(path(operation), as_json(wish))


def post_form(client: Client, operation: str, wish: Json) -> httpx.Response:
    return client.http.post(path(operation), files=list(as_form(wish)))


def asked(emulator: Emulator) -> Call:
    (call,) = (call for call in emulator.calls.list() if call.vendor == "vertex")
    return call


BOTH = pytest.mark.parametrize(
    "post", [pytest.param(post_json, id="JSON"), pytest.param(post_form, id="form")]
)
EACH = pytest.mark.parametrize("operation", OPERATIONS)


@BOTH
@EACH
def test_pictures_are_answered_in_base64(
    client: Client, emulator: Emulator, operation: str, post: Any
) -> None:
    answer = post(client, operation, body(operation))
    told = answer.json()
    assert (answer.status_code, told.keys()) == (200, {"predictions", "model"})
    assert told["model"] == MODELS[operation]
    assert [one.keys() for one in told["predictions"]] == [{"bytesBase64Encoded", "mimeType"}] * SAMPLES.get(
        operation, 1
    )
    for one in told["predictions"]:
        shown = opened(one["bytesBase64Encoded"])
        assert (one["mimeType"], shown.format) == ("image/png", "PNG")
        assert shown.size == SIZES.get(operation, (1024, 1024))
    assert emulator.calls.paid == len(told["predictions"])


@EACH
def test_both_spellings_ask_the_same(client: Client, emulator: Emulator, operation: str) -> None:
    wish: Json = {"storageUri": "gs://image-gateway/out", "responseFormat": "b64_json"}
    wish |= {"addWatermark": False} if operation != "image-customize" else {"seed": 7}
    wish |= {"sampleCount": 2} if operation != "image-upscale" else {"upscaleFactor": "x3"}
    if operation in ("image-upscale", "virtual-try-on"):
        wish["outputOptions"] = {"mimeType": "image/jpeg", "compressionQuality": 30}
    answers = [post(client, operation, body(operation, **wish)) for post in (post_json, post_form)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
    in_json, in_form = (call.body for call in emulator.calls.list() if call.vendor == "vertex")
    assert in_json == in_form


@EACH
def test_storage_uri_is_answered_by_places(client: Client, operation: str) -> None:
    answer = post_json(client, operation, body(operation, storageUri="gs://image-gateway/out"))
    for one in answer.json()["predictions"]:
        name = re.fullmatch(
            r"gs://image-gateway/(out/\d{8}_\d{6}_\w+_[a-z-]+_[0-9a-f]{32}-[0-9]\.png)", one["gcsUri"]
        )
        assert name
        assert one.keys() == {"gcsUri", "url", "mimeType"}
        assert one["url"].endswith(f"/image-gateway/{name[1]}")
        file = httpx.get(one["url"])
        assert file.headers["content-type"] == one["mimeType"] == "image/png"
        assert opened(file.content).size == SIZES.get(operation, (1024, 1024))


@EACH
def test_the_response_format_may_be_spelt_as_in_gen(client: Client, operation: str) -> None:
    for post in (post_json, post_form):
        answer = post(client, operation, body(operation, response_format="url"))
        assert (answer.status_code, answer.json()["success"]) == (200, True)
    twice = body(operation, response_format="url", responseFormat="b64_json")
    answer = post_form(client, operation, twice)
    assert (answer.status_code, answer.json()) == (
        400,
        {
            "statusCode": 400,
            "message": ["response_format must not differ from responseFormat: they are the same field"],
            "error": "Bad Request",
        },
    )


@EACH
def test_urls_on_request(client: Client, operation: str) -> None:
    answer = post_json(client, operation, body(operation, responseFormat="url"))
    told = answer.json()
    assert (told["success"], told["model"], len(told["images"])) == (
        True,
        MODELS[operation],
        SAMPLES.get(operation, 1),
    )
    for one in told["images"]:
        assert one.keys() == {"url", "filename", "mimeType", "generatedAt"}
        folder = f"/image-gateway/images/generated/{operation}/"
        assert one["url"].endswith(folder + one["filename"])
        assert f"_{SHORT[operation]}_{operation}_" in one["filename"]
        assert opened(httpx.get(one["url"]).content).size == SIZES.get(operation, (1024, 1024))


GENTLE = {"safetySetting": "block_medium_and_above", "personGeneration": "allow_adult"}
PNG = {"mimeType": "image/png"}


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        (
            "image-upscale",
            {
                "mode": "upscale",
                "upscaleConfig": {"upscaleFactor": "x2"},
                "sampleCount": 1,
                "outputOptions": PNG,
            },
        ),
        (
            "image-edit",
            {
                "editMode": "EDIT_MODE_INPAINT_INSERTION",
                "editConfig": {"baseSteps": 75},
                "guidanceScale": 75,
                "sampleCount": 4,
            },
        ),
        ("image-customize", {"sampleCount": 4}),
        ("virtual-try-on", {"baseSteps": 32, "sampleCount": 1, "outputOptions": PNG}),
        ("product-recontext", {"enhancePrompt": True, "sampleCount": 1, **GENTLE}),
    ],
)
def test_defaults_are_sent(client: Client, emulator: Emulator, operation: str, parameters: Json) -> None:
    post_json(client, operation, body(operation))
    sent = asked(emulator).body["parameters"]
    assert sent == {"includeRaiReason": True, "addWatermark": True, **parameters}


@pytest.mark.parametrize("operation", OPERATIONS[1:])
def test_a_half_blocked_batch_is_told(client: Client, emulator: Emulator, operation: str) -> None:
    emulator.troubles.set("half-blocked", vendor="vertex")
    told = post_json(client, operation, body(operation, sampleCount=4)).json()
    block = {
        "raiFilteredReason": "Support codes: 56562880",
        "errorCode": 56562880,
        "category": "Violence",
        "filteredOn": "output",
        "hint": "Avoid violent or graphic content in prompts",
    }
    assert (len(told["predictions"]), told["filtered"], emulator.calls.paid) == (2, [block] * 2, 2)


def test_more_than_seventeen_megapixels_are_refused_unpaid(client: Client, emulator: Emulator) -> None:
    wish = {"image": picture((2062, 2062)), "upscaleFactor": "x2"}
    answer = post_json(client, "image-upscale", wish)
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        ["image must not exceed 17 megapixels after upscaling"],
    )
    assert emulator.calls.list() == ()


@BOTH
@pytest.mark.parametrize(
    ("operation", "field", "value", "sentence"),
    [
        pytest.param(
            "image-edit",
            "referenceImages.1.bytesBase64Encoded",
            mask((64, 64)),
            "the mask must have the size of the image it masks",
            id="size of the mask",
        ),
        pytest.param(
            "image-edit",
            "referenceImages.1.referenceType",
            "REFERENCE_TYPE_RAW",
            "referenceImages must contain exactly one REFERENCE_TYPE_RAW",
            id="two originals",
        ),
        pytest.param(
            "image-customize",
            "prompt",
            "[1] beside [3]",
            "prompt cites [3], but no reference image has referenceId 3",
            id="unknown citation",
        ),
        pytest.param("image-edit", "baseSteps", 76, "baseSteps must not be greater than 75", id="range"),
        pytest.param(
            "virtual-try-on", "sampleCount", 5, "sampleCount must not be greater than 4", id="too many"
        ),
    ],
)
def test_what_does_not_fit_is_refused_unpaid(
    client: Client, emulator: Emulator, post: Any, operation: str, field: str, value: Any, sentence: str
) -> None:
    answer = post(client, operation, replaced(body(operation), field, value))
    assert (answer.status_code, answer.json()["message"]) == (400, [sentence])
    assert emulator.calls.list() == ()


# ── objects of the store ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def stored(cloud: Emulator) -> str:
    return upload(cloud, "image-gateway", "in/photo.png", picture())


@pytest.mark.parametrize(("operation", "field"), FIELDS)
def test_an_object_is_read_by_the_vendor(
    client: Client, emulator: Emulator, stored: str, operation: str, field: str
) -> None:
    answer = post_json(client, operation, replaced(body(operation), field, stored))
    assert answer.status_code == 200, answer.text
    assert f"'gcsUri': '{stored}'" in str(asked(emulator).body)


def test_an_object_that_is_not_there_is_the_caller_s(client: Client, emulator: Emulator) -> None:
    answer = post_json(client, "image-upscale", {"image": "gs://image-gateway/none.png"})
    assert (answer.status_code, answer.json()) == (
        400,
        {"statusCode": 400, "message": "a gs:// picture could not be read", "error": "Bad Request"},
    )
    assert emulator.calls.paid == 0


# ── successors ───────────────────────────────────────────────────────────────────────────────────────────

SUCCESSORS = {
    "image-edit": "gemini-nano-banana-2.1",
    "image-customize": "gemini-nano-banana-2.1",
    "virtual-try-on": "virtual-try-on-001",
    "product-recontext": "gemini-nano-banana-2.1",
}


@pytest.fixture(scope="module")
def late(start: Start) -> Iterator[str]:
    """A gateway that will learn that every model with a successor is gone."""
    with start() as url:
        yield url


@pytest.fixture
def successors(late: str, emulator: Emulator) -> Iterator[Client]:
    for operation in SUCCESSORS:
        emulator.troubles.set("retired", model=MODELS[operation])
    client = client_of(late)
    yield client
    client.http.close()


@BOTH
@pytest.mark.parametrize("operation", SUCCESSORS)
def test_the_successor_serves(successors: Client, emulator: Emulator, post: Any, operation: str) -> None:
    answer = post(successors, operation, body(operation, sampleCount=2))
    told = answer.json()
    assert answer.status_code == 200, answer.text
    assert (told["model"], told["requestedModel"]) == (SUCCESSORS[operation], MODELS[operation])
    assert answer.headers["x-model-requested"] == MODELS[operation]
    assert len({one["bytesBase64Encoded"] for one in told["predictions"]}) == 2
    assert {one["mimeType"] for one in told["predictions"]} == {"image/png"}
    if operation in SIZES:
        sizes = {opened(one["bytesBase64Encoded"]).size for one in told["predictions"]}
        assert sizes == {SIZES[operation]}
    assert emulator.calls.paid == 2


def test_a_model_without_successor_is_our_failure(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("retired", model="imagen-4.0-upscale-preview")
    with start() as url:
        client = client_of(url)
        answer = post_json(client, "image-upscale", body("image-upscale"))
        client.http.close()
    assert (answer.status_code, answer.json()) == (
        500,
        {"statusCode": 500, "message": "Terjadi kesalahan internal"},
    )


def test_no_pixel_outside_the_dilated_mask_changes(successors: Client) -> None:
    original = Image.effect_noise(SIZE, 90).convert("RGB")
    wish = body("image-edit", sampleCount=2)
    replaced(wish, "referenceImages.0.bytesBase64Encoded", encoded(original))
    replaced(wish, "referenceImages.1.maskImageConfig.dilation", 0.1)
    left, top, right, bottom = 32 - 10, 21 - 10, 48 + 10, 32 + 10  # the mask, ten pixels wider
    made = post_json(successors, "image-edit", wish).json()["predictions"]
    assert len(made) == 2
    for one in made:
        changed = ImageChops.difference(original, opened(one["bytesBase64Encoded"])).getbbox()
        assert changed
        assert left <= changed[0] < changed[2] - 1 <= right
        assert top <= changed[1] < changed[3] - 1 <= bottom


AUTOMATIC: tuple[Json, ...] = (
    {"maskMode": "MASK_MODE_FOREGROUND"},
    {"maskMode": "MASK_MODE_BACKGROUND", "dilation": 0.01},
    {"maskMode": "MASK_MODE_SEMANTIC", "maskClasses": [125, 142]},
)
TOLD = {
    "MASK_MODE_FOREGROUND": "The white area is the main subject in the foreground.",
    "MASK_MODE_BACKGROUND": "The white area is the background behind the main subject.",
    "MASK_MODE_SEMANTIC": "The white area is what is one of these: person, sky.",
}


def automatic_edit(config: Json, **mask: Any) -> Json:
    """An edit whose mask the model makes itself."""
    wish = body("image-edit", sampleCount=1)
    marks = {"referenceType": "REFERENCE_TYPE_MASK", "referenceId": 2, "maskImageConfig": config}
    return {**wish, "referenceImages": [wish["referenceImages"][0], {**marks, **mask}]}


@pytest.mark.parametrize("config", AUTOMATIC, ids=lambda config: config["maskMode"])
@pytest.mark.parametrize(
    "mask",
    [
        pytest.param({}, id="no picture"),
        pytest.param({"bytesBase64Encoded": None}, id="null"),
        pytest.param({"bytesBase64Encoded": ""}, id="empty"),
        pytest.param({"bytesBase64Encoded": "a picture of something else is ignored"}, id="ignored"),
    ],
)
def test_a_mask_that_the_model_makes_needs_no_picture(
    client: Client, emulator: Emulator, config: Json, mask: Json
) -> None:
    answer = post_json(client, "image-edit", automatic_edit(config, **mask))
    assert (answer.status_code, set(answer.json())) == (200, {"predictions", "model"})
    marks = emulator.calls.list()[0].body["instances"][0]["referenceImages"][1]
    assert marks == {
        "referenceType": "REFERENCE_TYPE_MASK",
        "referenceId": 2,
        "maskImageConfig": config,
    }


@pytest.mark.parametrize("config", AUTOMATIC, ids=lambda config: config["maskMode"])
def test_a_model_that_knows_no_masks_is_told_in_words(
    successors: Client, emulator: Emulator, config: Json
) -> None:
    answer = post_json(successors, "image-edit", automatic_edit(config))
    assert (answer.status_code, answer.json()["maskApplied"]) == (200, "instruction")
    parts = emulator.calls.list()[-1].body["contents"][0]["parts"]
    assert [part.get("text") for part in parts[:2]] == ["The original:", None]
    assert TOLD[config["maskMode"]] in parts[2]["text"]
    assert len(parts) == 3


def test_a_mask_that_is_a_picture_is_exact_whoever_serves(successors: Client) -> None:
    wish = body("image-edit", sampleCount=1)
    assert post_json(successors, "image-edit", wish).json()["maskApplied"] == "exact"


@pytest.mark.parametrize("name", ["productImages", "productImages[]", "productImages[0]"])
def test_an_empty_text_does_not_hide_the_files_beside_it(client: Client, name: str) -> None:
    files = [("productImages", picture()), ("productImages", picture())]
    answer = client.http.post(path("product-recontext"), files=files, data={name: "", "prompt": "a beach"})
    assert answer.status_code == 200


def test_an_automatic_mask_in_a_form_needs_no_file(client: Client) -> None:
    answer = client.http.post(
        path("image-edit"),
        files={"referenceImages[0][image]": picture()},
        data={
            "prompt": "a beach",
            "editMode": "EDIT_MODE_BGSWAP",
            "referenceImages[0][referenceType]": "REFERENCE_TYPE_RAW",
            "referenceImages[0][referenceId]": "1",
            "referenceImages[1][referenceType]": "REFERENCE_TYPE_MASK",
            "referenceImages[1][referenceId]": "2",
            "referenceImages[1][maskImageConfig][maskMode]": "MASK_MODE_BACKGROUND",
        },
    )
    assert answer.status_code == 200


def test_classes_that_have_no_name_are_refused_before_anything_is_paid(
    successors: Client, emulator: Emulator
) -> None:
    wish = automatic_edit({"maskMode": "MASK_MODE_SEMANTIC", "maskClasses": [194]})
    assert post_json(successors, "image-edit", wish).json()["message"] == [
        "referenceImages.1.maskImageConfig.maskClasses must be between 0 and 193"
    ]
    assert emulator.calls.paid == 0


@pytest.mark.parametrize(
    ("operation", "field", "value", "sentence"),
    [
        pytest.param(
            "image-edit",
            "referenceImages.0.bytesBase64Encoded",
            "gs://image-gateway/a.png",
            "referenceImages.0.bytesBase64Encoded cannot be a gs:// URI with {}",
            id="object to edit",
        ),
        pytest.param(
            "image-edit", "addWatermark", False, "addWatermark false is not available with {}", id="watermark"
        ),
        pytest.param(
            "product-recontext",
            "addWatermark",
            False,
            "addWatermark false is not available with {}",
            id="watermark of a product",
        ),
        pytest.param(
            "virtual-try-on",
            "productImages",
            [picture(), picture()],
            "productImages must hold one picture with {}",
            id="two products",
        ),
    ],
)
def test_what_the_successor_cannot_do_is_told_unpaid(
    successors: Client, emulator: Emulator, operation: str, field: str, value: Any, sentence: str
) -> None:
    answer = post_json(successors, operation, replaced(body(operation), field, value))
    assert (answer.status_code, answer.json()) == (
        400,
        {"statusCode": 400, "message": sentence.format(SUCCESSORS[operation]), "error": "Bad Request"},
    )
    assert emulator.calls.paid == 0


def test_references_are_introduced_by_their_numbers(successors: Client, emulator: Emulator) -> None:
    wish = body("image-customize", prompt="[1] in the pose of [2]", sampleCount=1)
    control = {"controlType": "CONTROL_TYPE_SCRIBBLE"}
    wish["referenceImages"].insert(
        0,
        {
            "referenceType": "REFERENCE_TYPE_CONTROL",
            "referenceId": 2,
            "bytesBase64Encoded": picture(),
            "controlImageConfig": control,
        },
    )
    post_form(successors, "image-customize", wish)
    (call,) = (call for call in emulator.calls.list() if call.method == "generateContent")
    texts = [part.get("text", "a picture") for part in call.body["contents"][0]["parts"]]
    assert texts == [
        "[2] is a control picture: follow the lines of the sketch in it, not its colours or its content.",
        "a picture",
        "[1] is the person in this picture: a tall man",
        "a picture",
        "[1] in the pose of [2]",
    ]


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────


def _noise(size: tuple[int, int], mode: str) -> bytes:
    pixels = random.Random(1).randbytes(size[0] * size[1] * len(mode))
    return encoded(Image.frombytes(mode, size, pixels), compress_level=0)


LARGE = {
    "image-upscale": _noise((2060, 2060), "RGBA"),  # all that 17 megapixels leave room for
    "others": _noise((2640, 2640), "RGB"),
}


@pytest.mark.parametrize(
    ("operation", "field", "post", "successor"),
    [
        pytest.param(*place, post, successor, id=f"{place[1]} {post.__name__} {successor}")
        for place in FIELDS
        for post, successor in ((post_json, False), (post_form, False), (post_form, True))
        if "Images.1" not in place[1] and not (successor and place[0] == "image-upscale")
    ],
)
def test_a_picture_of_20_megabytes_works(
    client: Client,
    successors: Client,
    emulator: Emulator,
    operation: str,
    field: str,
    post: Any,
    successor: bool,
) -> None:
    """Google's models take less (7 MB); they are sent a lighter copy."""
    if not successor:
        emulator.troubles.clear()
    wish = replaced(body(operation), field, LARGE.get(operation, LARGE["others"]))
    if operation == "image-edit":
        replaced(wish, "referenceImages.1.bytesBase64Encoded", mask((2640, 2640)))
    if operation != "image-upscale":
        wish["sampleCount"] = 1
    answer = post(successors if successor else client, operation, wish)
    assert answer.status_code == 200, answer.text
    assert emulator.calls.paid == 1


@pytest.mark.parametrize("number", [2**63, 2**64, 10**31, -(10**31)])
@pytest.mark.parametrize(
    ("operation", "field"),
    [
        ("image-edit", "referenceImages.0.referenceId"),
        ("image-edit", "referenceImages.1.referenceId"),
        ("image-customize", "referenceImages.0.referenceId"),
        ("image-edit", "referenceImages.1.maskImageConfig.maskClasses"),
    ],
)
def test_any_integer_reaches_the_vendor(client: Client, operation: str, field: str, number: int) -> None:
    """Whatever the vendor then says of it."""
    value = [number] if field.endswith("maskClasses") else number
    answer = client.post(path(operation), as_json(replaced(body(operation), field, value)))
    assert answer.status_code in (200, 400), answer.text
