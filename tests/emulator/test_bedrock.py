"""The emulated Bedrock accepts the recorded requests of other clients, and refuses what AWS refuses."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pybase64
import pytest
from PIL import Image

from app.emulator.server import Emulator

WIRE = Path(__file__).parents[1] / "recordings/bedrock"
RECORDED = [json.loads(path.read_text()) for path in sorted(WIRE.glob("req-*.json"))]
IMAGES = [recording for recording in RECORDED if recording["family"] != "anthropic"]

SDXL = "stability.stable-diffusion-xl-v1"
TITAN = "amazon.titan-image-generator-v2:0"
NOVA = "amazon.nova-canvas-v1:0"
CORE = "stability.stable-image-core-v1:1"
ULTRA = "stability.stable-image-ultra-v1:1"
SD35 = "stability.sd3-5-large-v1:0"

Json = dict[str, Any]


@pytest.fixture
def bedrock(emulator: Emulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emulator.http_url, headers={"authorization": "Bearer key"}) as client:
        yield client


def invoke(bedrock: httpx.Client, model: str, body: Json) -> httpx.Response:
    return bedrock.post(f"/model/{model}/invoke", json=body)


def pictures(answer: Json) -> list[Image.Image]:
    texts = answer.get("images") or [artifact["base64"] for artifact in answer["artifacts"]]
    return [Image.open(BytesIO(pybase64.b64decode(text, validate=True))) for text in texts]


def png(size: tuple[int, int], colour: str = "gray", mode: str = "RGB") -> str:
    out = BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return pybase64.b64encode(out.getvalue()).decode()


def titan_text(text: str = "a cat", **config: Any) -> Json:
    size = {"width": 1024, "height": 1024}
    return {
        "taskType": "TEXT_IMAGE",
        "textToImageParams": {"text": text},
        "imageGenerationConfig": size | config,
    }


def titan_variation(image: str, **params: Any) -> Json:
    return {"taskType": "IMAGE_VARIATION", "imageVariationParams": {"images": [image], "text": "x"} | params}


def sdxl(**fields: Any) -> Json:
    return {"text_prompts": [{"text": "a cat"}]} | fields


@pytest.mark.parametrize("recording", IMAGES, ids=lambda recording: recording["name"])
def test_a_recorded_request_is_accepted(bedrock: httpx.Client, emulator: Emulator, recording: Json) -> None:
    answer = bedrock.post(recording["path"], json=recording["request_json"])

    config = recording["request_json"].get("imageGenerationConfig", recording["request_json"])
    assert answer.status_code == 200, answer.text
    drawn = pictures(answer.json())
    assert len(drawn) == config.get("numberOfImages", 1) == emulator.calls.paid
    if "width" in config:
        assert {picture.size for picture in drawn} == {(config["width"], config["height"])}


REFUSED = [
    pytest.param(SDXL, sdxl(width=1024, height=576), "but we received 1024x576", id="sdxl illegal size"),
    pytest.param(SDXL, sdxl(width=1024), "width and height go together", id="sdxl one side"),
    pytest.param(SDXL, sdxl(samples=2), "#/samples", id="sdxl two samples"),
    pytest.param(SDXL, sdxl(steps=51), "#/steps", id="sdxl steps"),
    pytest.param(SDXL, sdxl(cfg_scale=36), "#/cfg_scale", id="sdxl cfg"),
    pytest.param(SDXL, sdxl(sampler="EULER"), "#/sampler", id="sdxl sampler"),
    pytest.param(SDXL, sdxl(aspect_ratio="1:1"), "extraneous key [aspect_ratio]", id="sdxl unknown key"),
    pytest.param(SDXL, {"text_prompts": [{"text": "x" * 2001}]}, "/text:", id="sdxl long prompt"),
    pytest.param(SDXL, {}, "#: required key [text_prompts] not found", id="sdxl no prompt"),
    pytest.param(
        SDXL, sdxl(mask_source="MASK_IMAGE_WHITE"), "a mask needs an init_image", id="sdxl bare mask"
    ),
    pytest.param(TITAN, titan_text(width=1216, height=640), "1216x640 is not supported", id="titan size"),
    pytest.param(TITAN, titan_text("x" * 513), "maxLength: 512, actual: 513", id="titan long prompt"),
    pytest.param(TITAN, titan_text(numberOfImages=6), "numberOfImages", id="titan six images"),
    pytest.param(TITAN, titan_text(seed=2_147_483_647), "seed", id="titan seed"),
    pytest.param(TITAN, titan_text(cfgScale=1.0), "cfgScale", id="titan cfg"),
    pytest.param(TITAN, titan_text(steps=3), "extraneous key [steps]", id="titan unknown key"),
    pytest.param(TITAN, {"taskType": "TEXT"}, "unknown task", id="titan unknown task"),
    pytest.param(
        TITAN, {"taskType": "TEXT_IMAGE", "x": 1}, "2 schema violations found", id="titan two errors"
    ),
    pytest.param(
        TITAN,
        titan_variation(png((64, 64)), similarityStrength=0.1),
        "similarityStrength",
        id="titan similarity",
    ),
    pytest.param(TITAN, titan_variation(png((1472, 512))), "Image sides", id="titan large source"),
    pytest.param(
        TITAN,
        titan_variation("data:image/png;base64," + png((64, 64))),
        "not valid base64",
        id="titan data URI",
    ),
    pytest.param(
        TITAN,
        {
            "taskType": "INPAINTING",
            "inPaintingParams": {"image": png((64, 64)), "maskPrompt": "x", "maskImage": png((64, 64))},
        },
        "exactly one of maskPrompt and maskImage",
        id="titan two masks",
    ),
    pytest.param(
        TITAN,
        {"taskType": "OUTPAINTING", "outPaintingParams": {"image": png((64, 64)), "maskPrompt": "x"}},
        "required key [text]",
        id="titan outpainting without text",
    ),
    pytest.param(
        TITAN,
        {
            "taskType": "INPAINTING",
            "inPaintingParams": {"image": png((64, 64)), "maskImage": png((32, 32))},
        },
        "the same size",
        id="titan mask of another size",
    ),
    pytest.param(
        TITAN,
        {
            "taskType": "BACKGROUND_REMOVAL",
            "backgroundRemovalParams": {"image": png((64, 64))},
            "imageGenerationConfig": {},
        },
        "extraneous key [imageGenerationConfig]",
        id="titan background removal with config",
    ),
    pytest.param(
        NOVA, titan_text(width=1000, height=1000), "1000x1000 is not supported", id="nova not by 16"
    ),
    pytest.param(NOVA, titan_text(width=2048, height=320), "2048x320 is not supported", id="nova too wide"),
    pytest.param(NOVA, titan_text("x" * 1025), "maxLength: 1024", id="nova long prompt"),
    pytest.param(CORE, {"prompt": "x", "mode": "text-to-image"}, "extraneous key [mode]", id="core mode"),
    pytest.param(CORE, {"prompt": "x", "aspect_ratio": "3:5"}, "#/aspect_ratio", id="core ratio"),
    pytest.param(CORE, {"prompt": "x", "output_format": "webp"}, "#/output_format", id="core format"),
    pytest.param(CORE, {"prompt": "x" * 10_001}, "#/prompt", id="core long prompt"),
    pytest.param(
        ULTRA,
        {"prompt": "x", "image": png((64, 64)), "aspect_ratio": "1:1"},
        "aspect_ratio is for text-to-image only",
        id="ultra ratio with image",
    ),
    pytest.param(SD35, {"prompt": "x", "mode": "image-to-image"}, "image and strength", id="sd35 no image"),
    pytest.param(
        SD35, {"prompt": "x", "image": png((64, 64)), "strength": 1}, "image-to-image", id="sd35 mode"
    ),
    pytest.param(SD35, {"prompt": "x", "seed": 4_294_967_295}, "#/seed", id="sd35 seed"),
    pytest.param("amazon.nothing-v1", {}, "The provided model identifier is invalid.", id="unknown model"),
]


@pytest.mark.parametrize(("model", "body", "message"), REFUSED)
def test_what_aws_refuses_is_refused(
    bedrock: httpx.Client, emulator: Emulator, model: str, body: Json, message: str
) -> None:
    answer = invoke(bedrock, model, body)

    assert answer.status_code == 400
    assert answer.headers["x-amzn-errortype"].partition(":")[0] == "ValidationException"
    assert message in answer.json()["message"]
    assert emulator.calls.paid == 0


@pytest.mark.parametrize("authorization", ["", "Basic x"])
def test_a_call_without_signature_or_key_is_forbidden(bedrock: httpx.Client, authorization: str) -> None:
    answer = bedrock.post(f"/model/{SDXL}/invoke", json=sdxl(), headers={"authorization": authorization})

    assert answer.status_code == 403


def test_a_signature_for_a_region_without_the_model_is_refused(bedrock: httpx.Client) -> None:
    def signed_for(region: str) -> Json:
        credential = f"AKID/20261120/{region}/bedrock/aws4_request"
        return {"authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"}

    statuses = [
        bedrock.post(f"/model/{SDXL}/invoke", json=sdxl(), headers=signed_for(region)).status_code
        for region in ("us-east-1", "us-west-2")
    ]

    assert statuses == [200, 400]


def test_the_same_prompt_and_seed_draw_the_same_picture(bedrock: httpx.Client) -> None:
    one, same, other = (invoke(bedrock, TITAN, titan_text(seed=seed)).json()["images"] for seed in (7, 7, 8))

    assert one == same != other


def test_similarity_keeps_the_source(bedrock: httpx.Client) -> None:
    def distance(similarity: float) -> float:
        body = titan_variation(png((512, 512), "red"), similarityStrength=similarity)
        [picture] = pictures(invoke(bedrock, TITAN, body).json())
        histogram = picture.resize((8, 4)).crop((0, 0, 8, 2)).tobytes()
        red = bytes((255, 0, 0)) * 16
        return sum(abs(a - b) for a, b in zip(histogram, red, strict=True))

    assert distance(1.0) < distance(0.7) < distance(0.2)


def test_inpainting_changes_what_is_black_and_outpainting_what_is_white(bedrock: httpx.Client) -> None:
    mask = Image.new("L", (64, 64), "white")
    mask.paste(0, (0, 0, 32, 64))
    out = BytesIO()
    mask.save(out, "PNG")
    params = {
        "image": png((64, 64), "red"),
        "maskImage": pybase64.b64encode(out.getvalue()).decode(),
        "text": "a door",
    }

    [inpainted] = pictures(
        invoke(bedrock, TITAN, {"taskType": "INPAINTING", "inPaintingParams": params}).json()
    )
    [outpainted] = pictures(
        invoke(bedrock, TITAN, {"taskType": "OUTPAINTING", "outPaintingParams": params}).json()
    )

    red = Image.new("RGB", (32, 64), "red").tobytes()
    halves = [
        picture.crop(box).tobytes() == red
        for picture in (inpainted, outpainted)
        for box in ((0, 0, 32, 64), (32, 0, 64, 64))
    ]
    assert halves == [False, True, True, False]


BLOCKED_PICTURE = {
    "images": [],
    "error": "All of the generated images have been blocked by our content filters.",
}

TROUBLES = [
    pytest.param(TITAN, "blocked-output", 200, BLOCKED_PICTURE, id="titan blocked-output"),
    pytest.param(TITAN, "empty", 200, {"images": [], "error": None}, id="titan empty"),
    pytest.param(
        CORE, "blocked-prompt", 200, {"finish_reasons": ["Filter reason: prompt"]}, id="core prompt"
    ),
    pytest.param(SDXL, "empty", 200, {"result": "success", "artifacts": []}, id="sdxl empty"),
]


@pytest.mark.parametrize(("model", "kind", "status", "body"), TROUBLES)
def test_a_trouble_in_the_prompt_has_the_familys_shape(
    bedrock: httpx.Client, emulator: Emulator, model: str, kind: str, status: int, body: Json
) -> None:
    prompt = f"a cat #trouble:{kind}"
    requests = {
        TITAN: titan_text(prompt),
        CORE: {"prompt": prompt},
        SDXL: {"text_prompts": [{"text": prompt}]},
    }

    answer = invoke(bedrock, model, requests[model])

    assert (answer.status_code, answer.json(), emulator.calls.paid) == (status, body, 0)


def test_a_filtered_sdxl_artifact_holds_a_blurred_picture(bedrock: httpx.Client) -> None:
    body = {"text_prompts": [{"text": "a cat #trouble:blocked-output"}]}

    answer = invoke(bedrock, SDXL, body).json()

    assert answer["artifacts"][0]["finishReason"] == "CONTENT_FILTERED"
    assert pictures(answer)[0].size == (1024, 1024)


@pytest.mark.parametrize(
    ("kind", "status", "name", "retry_after"),
    [
        ("429=7", 429, "ThrottlingException", "7"),
        ("500", 500, "InternalServerException", None),
        ("503=3", 503, "ServiceUnavailableException", "3"),
        ("retired", 404, "ResourceNotFoundException", None),
    ],
)
def test_an_ordered_failure_has_awss_body(
    bedrock: httpx.Client, kind: str, status: int, name: str, retry_after: str | None
) -> None:
    answer = invoke(bedrock, TITAN, titan_text(f"a cat #trouble:{kind}"))

    told = answer.headers["x-amzn-errortype"].partition(":")[0], answer.headers.get("retry-after")
    assert (answer.status_code, *told) == (status, name, retry_after)
    assert list(answer.json()) == ["message"]


def test_a_header_names_the_trouble_of_its_call(bedrock: httpx.Client) -> None:
    """With the header, the words of the prompt are ignored."""
    url, headers = f"/model/{TITAN}/invoke", {"X-Trouble": "503=3"}
    answer = bedrock.post(url, json=titan_text("a cat #trouble:500"), headers=headers)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


def test_a_dropped_call_is_paid(bedrock: httpx.Client, emulator: Emulator) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        invoke(bedrock, TITAN, titan_text("a cat #trouble:drop"))

    assert emulator.calls.paid == 1
