"""The emulator refuses what the real service refuses, with the same google.rpc.Status on both transports."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from tests.support.vertex_client import ASK, PARENT, Json, Reply, image, picture

GENERATE = "imagen-4.0-generate-001:predict"
CAPABILITY = "imagen-3.0-capability-001:predict"
UPSCALE = "imagen-4.0-upscale-preview:predict"
TRY_ON = "virtual-try-on-001:predict"
RECONTEXT = "imagen-product-recontext-preview-06-30:predict"
NANO = "gemini-nano-banana-2.1:generateContent"
FLASH = "gemini-2.5-flash-image:generateContent"

PNG, GIF = picture(), picture(format="GIF")
NO_PICTURE = {"bytesBase64Encoded": base64.b64encode(b"<svg/>").decode()}
DATA_URI = {"bytesBase64Encoded": "data:image/png;base64,AAAA"}
TOO_HEAVY = image(picture(format="JPEG") + bytes(10 * 1024 * 1024))


def prompted(**parameters: Any) -> Json:
    return {"instances": [{"prompt": "a pear"}], "parameters": parameters}


def upscaled(source: Json, factor: str = "x2", **parameters: Any) -> Json:
    config = {"upscaleConfig": {"upscaleFactor": factor}, **parameters}
    return {"instances": [{"image": source}], "parameters": config}


def reference(kind: str, picture: bytes | None = PNG, id: int = 1, **config: Any) -> Json:
    more: Json = {} if picture is None else {"referenceImage": image(picture)}
    return {"referenceType": f"REFERENCE_TYPE_{kind}", "referenceId": id, **more, **config}


def mask(picture: bytes | None = PNG, mode: str = "USER_PROVIDED", **config: Any) -> Json:
    return reference("MASK", picture, 2, maskImageConfig={"maskMode": f"MASK_MODE_{mode}", **config})


def edited(*references: Json, prompt: str = "a pear", **parameters: Any) -> Json:
    return {
        "instances": [{"prompt": prompt, "referenceImages": list(references)}],
        "parameters": parameters,
    }


RAW = reference("RAW")
SUBJECT = reference("SUBJECT", subjectImageConfig={"subjectType": "SUBJECT_TYPE_PRODUCT"})
CANNY = {"controlImageConfig": {"controlType": "CONTROL_TYPE_CANNY"}}


def dressed(products: int = 1, **parameters: Any) -> Json:
    shown = {"image": image(PNG)}
    return {
        "instances": [{"personImage": shown, "productImages": [shown] * products}],
        "parameters": parameters,
    }


def content(*parts: Json, **config: Any) -> Json:
    return {
        "contents": [{"role": "user", "parts": list(parts) or [{"text": "a pear"}]}],
        "generationConfig": config,
    }


def inline(data: bytes, mime_type: str = "image/png") -> Json:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}}


SEED = "Seed is not supported when watermark is enabled."
PARAMETERS, INSTANCE = "parameters", "instances[0]"
REFERENCES = f"{INSTANCE}.reference_images"
CONFIG = "generation_config"
ONE_EACH = "Mask-based editing needs exactly one raw and one mask reference image."
SAME_SIZE = "Mask and control images must have the size of the raw reference image."


def at(field: str, what: str) -> tuple[str, str]:
    """A field's value is refused."""
    return field, f"Invalid value at '{field}': {what}"


def unknown(parent: str, name: str) -> tuple[str, str]:
    return parent, f"Invalid JSON payload received. Unknown name \"{name}\" at '{parent}': Cannot find field."


def between(field: str, low: int, high: int, broken: str) -> tuple[str, str]:
    kind = {"low": f"greater than or equal to {low}", "high": f"less than or equal to {high}"}[broken]
    return at(field, f"Input should be {kind}")


REFUSED = [
    # Imagen: generation
    (GENERATE, prompted(sampleCount=0), *between("parameters.sample_count", 1, 4, "low")),
    (GENERATE, prompted(sampleCount=5), *between("parameters.sample_count", 1, 4, "high")),
    (GENERATE, prompted(sampleCount=1.5), *at("parameters.sample_count", "Input should be a valid integer")),
    (GENERATE, prompted(sampleCount="2"), *at("parameters.sample_count", "Input should be a valid integer")),
    (GENERATE, prompted(seed=7), "parameters.seed", SEED),
    (GENERATE, prompted(seed=7, addWatermark=True), "parameters.seed", SEED),
    (GENERATE, prompted(seed=0, addWatermark=False), *between("parameters.seed", 1, 0, "low")),
    (GENERATE, prompted(numberOfImages=2), *unknown(PARAMETERS, "numberOfImages")),
    (GENERATE, prompted(editMode="EDIT_MODE_OUTPAINT"), *unknown(PARAMETERS, "editMode")),
    (
        GENERATE,
        prompted(aspectRatio="2:1"),
        *at("parameters.aspect_ratio", "Input should be '1:1', '3:4', '4:3', '9:16' or '16:9'"),
    ),
    (
        GENERATE,
        prompted(personGeneration="everybody"),
        *at("parameters.person_generation", "Input should be 'DONT_ALLOW', 'ALLOW_ADULT' or 'ALLOW_ALL'"),
    ),
    (
        GENERATE,
        prompted(outputOptions={"mimeType": "image/webp"}),
        *at("parameters.output_options.mime_type", "Input should be 'image/png' or 'image/jpeg'"),
    ),
    (
        GENERATE,
        prompted(outputOptions={"compressionQuality": 101}),
        *between("parameters.output_options.compression_quality", 0, 100, "high"),
    ),
    (
        "imagen-4.0-fast-generate-001:predict",
        prompted(sampleImageSize="2K"),
        "parameters.sample_image_size",
        "sampleImageSize is not supported by this model.",
    ),
    (GENERATE, {"instances": [{}]}, *at("instances[0].prompt", "Field required")),
    (
        GENERATE,
        {"instances": [{"prompt": "a"}, {"prompt": "b"}]},
        *at("instances", "List should have at most 1 item after validation, not 2"),
    ),
    # upscaling
    (UPSCALE, upscaled(image(PNG), "x5"), *at(
        "parameters.upscale_config.upscale_factor", "Input should be 'x2', 'x3' or 'x4'")),
    (UPSCALE, upscaled(image(PNG), sampleCount=2), *between("parameters.sample_count", 1, 1, "high")),
    (
        UPSCALE,
        upscaled(image(picture((2100, 2100))), "x2"),
        f"{INSTANCE}.image",
        "The upscaled image would exceed 17 megapixels.",
    ),
    (UPSCALE, upscaled(NO_PICTURE), f"{INSTANCE}.image", "Provided image is not valid."),
    (UPSCALE, upscaled(image(PNG[:60])), f"{INSTANCE}.image", "Provided image is not valid."),
    (UPSCALE, upscaled(DATA_URI), f"{INSTANCE}.image", "Base64 decoding failed."),
    (UPSCALE, upscaled(TOO_HEAVY), f"{INSTANCE}.image", "Image size exceeds the limit of 10 MB."),
    (UPSCALE, upscaled({**image(PNG), "gcsUri": "gs://a/b"}), *at(
        f"{INSTANCE}.image", "Value error, exactly one of bytesBase64Encoded and gcsUri is needed")),
    (UPSCALE, upscaled({}), *at(
        f"{INSTANCE}.image", "Value error, exactly one of bytesBase64Encoded and gcsUri is needed")),
    # editing
    (CAPABILITY, edited(RAW, RAW), REFERENCES, "Only one raw reference image is supported."),
    (CAPABILITY, edited(RAW, editMode="EDIT_MODE_OUTPAINT"), REFERENCES, ONE_EACH),
    (CAPABILITY, edited(mask()), REFERENCES, ONE_EACH),
    (CAPABILITY, edited(RAW, mask(), mask()), REFERENCES, ONE_EACH),
    (CAPABILITY, edited(RAW, mask(picture((8, 8)))), REFERENCES, SAME_SIZE),
    (CAPABILITY, edited(RAW, reference("CONTROL", picture((8, 8)), 2, **CANNY)), REFERENCES, SAME_SIZE),
    (CAPABILITY, edited(RAW, mask(None)), *at(f"{REFERENCES}[1]", "Value error, referenceImage is needed")),
    (CAPABILITY, edited(RAW, mask(None, "SEMANTIC")), *at(
        f"{REFERENCES}[1]", "Value error, maskClasses is needed for MASK_MODE_SEMANTIC")),
    (CAPABILITY, edited(RAW, mask(None, "SEMANTIC", maskClasses=[1, 2, 3, 4, 5, 6])), *at(
        f"{REFERENCES}[1].mask_image_config.mask_classes",
        "List should have at most 5 items after validation, not 6")),
    (CAPABILITY, edited(RAW, mask(dilation=1.1)), *between(
        f"{REFERENCES}[1].mask_image_config.dilation", 0, 1, "high")),
    (CAPABILITY, edited(RAW, mask(), baseSteps=0), *between("parameters.base_steps", 1, 75, "low")),
    (CAPABILITY, edited(RAW, mask(), editConfig={"baseSteps": 76}), *between(
        "parameters.edit_config.base_steps", 1, 75, "high")),
    (CAPABILITY, edited(RAW, guidanceScale=501), *between("parameters.guidance_scale", 0, 500, "high")),
    (CAPABILITY, edited(RAW, seed=7, addWatermark=True), "parameters.seed", SEED),
    (CAPABILITY, edited(RAW, mask(), aspectRatio="1:1"), "parameters.aspect_ratio",
     "aspectRatio is not supported for mask-based editing."),
    (CAPABILITY, edited(reference("RAW", GIF)), f"{REFERENCES}[0]", "Provided image is not valid."),
    # customization
    (CAPABILITY, edited(*[SUBJECT] * 5), *at(
        REFERENCES, "List should have at most 4 items after validation, not 5")),
    (CAPABILITY, edited(SUBJECT, prompt="[1] beside [3]"), f"{INSTANCE}.prompt",
     "The prompt cites the unknown reference [3]."),
    (CAPABILITY, edited(SUBJECT, editMode="EDIT_MODE_DEFAULT"), "parameters.edit_mode",
     "editMode needs a raw reference image."),
    (CAPABILITY, edited({**SUBJECT, **CANNY}), *at(
        f"{REFERENCES}[0]", "Value error, controlImageConfig does not belong to REFERENCE_TYPE_SUBJECT")),
    (CAPABILITY, edited({**SUBJECT, "bytesBase64Encoded": "AAAA"}), *unknown(
        f"{REFERENCES}[0]", "bytesBase64Encoded")),
    # try-on and recontext
    (TRY_ON, dressed(products=2), f"{INSTANCE}.product_images", "Only one product image is supported."),
    (TRY_ON, dressed(baseSteps=0), *between("parameters.base_steps", 1, 0, "low")),
    (TRY_ON, dressed(prompt="x"), *unknown(PARAMETERS, "prompt")),
    ("virtual-try-on-preview-08-04:predict", dressed(products=4), *at(
        f"{INSTANCE}.product_images", "List should have at most 3 items after validation, not 4")),
    (RECONTEXT, {"instances": [{"productImages": [{"image": image(PNG)}] * 4}]}, *at(
        f"{INSTANCE}.product_images", "List should have at most 3 items after validation, not 4")),
    (RECONTEXT, {"instances": [{"productImages": [{}]}]}, *at(
        f"{INSTANCE}.product_images[0].image", "Field required")),
    # Gemini
    (FLASH, content(candidateCount=2), f"{CONFIG}.candidate_count",
     "Multiple candidates is not enabled for this model"),
    (FLASH, content(imageConfig={"imageSize": "1K"}), f"{CONFIG}.image_config.image_size",
     "image_size is not supported by this model."),
    (NANO, content(imageConfig={"imageSize": "512"}), f"{CONFIG}.image_config.image_size",
     "image_size 512 is not supported by this model."),
    ("gemini-3.1-flash-lite-image:generateContent", content(imageConfig={"imageSize": "4K"}),
     f"{CONFIG}.image_config.image_size", "image_size 4K is not supported by this model."),
    (NANO, content(imageConfig={"imageSize": "2k"}), *at(
        f"{CONFIG}.image_config.image_size", "Input should be '512', '1K', '2K' or '4K'")),
    (FLASH, content(imageConfig={"aspectRatio": "1:8"}), f"{CONFIG}.image_config.aspect_ratio",
     "aspect_ratio is not supported."),
    (FLASH, content(inline(bytes(7 * 1024 * 1024 + 1))), "contents.parts[0]",
     "Image size exceeds the limit of 7 MB."),
    (FLASH, content(*[inline(PNG)] * 15), "contents", "At most 14 images are supported."),
    (FLASH, content(inline(b"<svg/>")), "contents.parts[0]", "Provided image is not valid."),
    (FLASH, {"contents": []}, "contents", "at least one contents field is required"),
]  # fmt: skip


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("model", "body", "field", "message"),
    [pytest.param(*row, id=f"{row[0].partition(':')[0]}, {row[3][:60]}") for row in REFUSED],
)
def test_bad_argument_is_refused(
    ask: Callable[..., Reply], model: str, body: Json, field: str, message: str, emulator: Emulator
) -> None:
    reply = ask(emulator, model, body)
    violation = {"field": field, "description": message}
    details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}]
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}
    assert reply == Reply(400, {"error": error})
    assert [(call.status, call.paid, call.finished) for call in emulator.calls.list()] == [(400, 0, True)]


def not_found(model: str, location: str = "us-central1") -> Json:
    return {
        "code": 404,
        "status": "NOT_FOUND",
        "message": (
            f"Publisher Model `projects/demo-project/locations/{location}/publishers/google/models/{model}` "
            "was not found or your project does not have access to it. Please ensure you are using a valid "
            "model version. For more information, see: "
            "https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions"
        ),
    }


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("model", ["imagen-9:predict", "claude-haiku-4-5:predict"])
def test_unknown_model_is_not_found(ask: Callable[..., Reply], model: str, emulator: Emulator) -> None:
    reply = ask(emulator, model, prompted())
    assert reply == Reply(404, {"error": not_found(model.removesuffix(":predict"))})


def test_imagen_is_not_served_on_global(emulator: Emulator) -> None:
    path = f"/v1/{PARENT}/{GENERATE}".replace("us-central1", "global")
    response = httpx.post(emulator.http_url + path, json=prompted())
    assert response.json() == {"error": not_found("imagen-4.0-generate-001", "global")}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("model", "body"),
    [
        pytest.param("gemini-2.5-flash-image:predict", prompted(), id="gemini by predict"),
        pytest.param("imagen-4.0-generate-001:generateContent", content(), id="imagen by generateContent"),
    ],
)
def test_wrong_method_is_refused(
    ask: Callable[..., Reply], model: str, body: Json, emulator: Emulator
) -> None:
    id, _, method = model.partition(":")
    message = f"{id} cannot be accessed through the {method} API."
    error = {"code": 400, "message": message, "status": "FAILED_PRECONDITION"}
    assert ask(emulator, model, body) == Reply(400, {"error": error})


@pytest.mark.parametrize("ask", ASK)
def test_missing_object_is_not_found(ask: Callable[..., Reply], emulator: Emulator) -> None:
    reply = ask(emulator, UPSCALE, upscaled({"gcsUri": "gs://my-bucket/nothing.png"}))
    message = "The Cloud Storage object was not found: gs://my-bucket/nothing.png"
    assert reply == Reply(404, {"error": {"code": 404, "message": message, "status": "NOT_FOUND"}})


@pytest.mark.parametrize("body", ["{", "[]", '"text"', "\xff"])
def test_a_body_that_is_not_a_json_object_is_refused(body: str, emulator: Emulator) -> None:
    response = httpx.post(f"{emulator.http_url}/v1/{PARENT}/{GENERATE}", content=body.encode("latin-1"))
    assert (response.status_code, response.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert emulator.calls.list() == ()
