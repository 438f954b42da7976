"""Bedrock over HTTP: what is sent, what each answer becomes, and that nothing is paid twice."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import boto3
import pybase64
import pytest
from PIL import Image

from app.contract.errors import (
    BrokenPicture,
    Busy,
    GatewayError,
    ModelGone,
    RateLimited,
    SafetyBlocked,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.contract.gen import GEN_REQUEST, INIT_IMAGE_SIZES, AspectRatio, GenRequest, InvalidGen
from app.contract.models import Model, load_catalogue
from app.contract.safety import Block
from app.emulator.calls import Calls
from app.emulator.server import Emulator
from app.emulator.travel import Travel
from app.pictures.blob import Blobs
from app.pictures.picture import picture
from app.pictures.pixels import fit
from app.ports import Generation
from app.providers.bedrock.client import Bedrock
from app.providers.bedrock.failures import FAILURES, said
from app.providers.failures import CallFailed, ErrorAnswer, translated
from app.providers.transport import Answer, Transport
from app.services.admission import Admission
from tests.support.provider_call import call, encoded, grey, scope

pytestmark = pytest.mark.anyio

WIRE = Path(__file__).parents[1] / "recordings/bedrock"
CATALOGUE = load_catalogue()
REGIONS = {model.location for model in CATALOGUE.model if model.vendor == "aws"}

SDXL = CATALOGUE["stability.stable-diffusion-xl-v1"]
CORE = CATALOGUE["stability.stable-image-core-v1:1"]
ULTRA = CATALOGUE["stability.stable-image-ultra-v1:1"]
TITAN = CATALOGUE["amazon.titan-image-generator-v2:0"]
NOVA = CATALOGUE["amazon.nova-canvas-v1:0"]
SD35 = CATALOGUE["stability.sd3-5-large-v1:0"]

RATIOS: tuple[AspectRatio, ...] = get_args(AspectRatio)

Json = dict[str, Any]


@dataclass(frozen=True)
class Caller:
    """Someone with a request. The pictures live as long as `blobs`."""

    bedrock: Bedrock
    blobs: Blobs

    def img2img(self, prompt: str = "a cat", *, init_image: bytes | None = None, **fields: Any) -> GenRequest:
        source = picture(self.blobs.of(init_image)) if init_image else grey(self.blobs, (1024, 1024))
        given = {"mode": "img2img", "prompt": prompt, "init_image": source}
        return GEN_REQUEST.validate_python(given | fields)

    async def run(
        self, request: GenRequest, model: Model, *, seconds: float = 20, trouble: str | None = None
    ) -> Generation:
        return await self.bedrock.run(request, model, call(self.blobs, seconds=seconds, trouble=trouble))


@asynccontextmanager
async def calling(url: str, **settings: Any) -> AsyncIterator[Caller]:
    keys = {"keys": ("emulated", "emulated")}
    transport = settings.pop("transport", None) or Transport()
    ours = {"admission": Admission(1000, 1000), "pause_seconds": 0.01}
    settings = {"endpoint_url": url, "regions": REGIONS, **ours, **keys, **settings}
    with scope() as blobs:
        yield Caller(Bedrock(transport=transport, **settings), blobs)
        await transport.aclose()


@pytest.fixture
async def bedrock(emulator: Emulator) -> AsyncIterator[Caller]:
    async with calling(emulator.http_url) as caller:
        yield caller


def text2img(prompt: str = "a cat", **fields: Any) -> GenRequest:
    return GEN_REQUEST.validate_python({"mode": "text2img", "prompt": prompt} | fields)


def sent(emulator: Emulator) -> Json:
    return emulator.calls.list()[-1].body


# ── What is sent ─────────────────────────────────────────────────────────────────────────────────────


def recorded(name: str) -> Json:
    found: Json = json.loads((WIRE / f"req-{name}.json").read_text())
    return found


def source_of(name: str) -> bytes:
    return pybase64.b64decode(recorded(name)["request_json"]["imageVariationParams"]["images"][0])


POLICY = {
    "seed",
    "samples",
    "cfg_scale",
    "steps",
    "style_preset",
    "style",
    "quality",
    "cfgScale",
    "output_format",
}
"""Fields in which two right clients may differ, with `mode` where it says what is the default."""


def what_matters(value: Any) -> Any:
    if isinstance(value, list):
        return [what_matters(item) for item in value]
    if isinstance(value, dict):
        return {
            key: what_matters(item)
            for key, item in value.items()
            if key not in POLICY and (key, item) != ("mode", "text-to-image")
        }
    return value


CAT = "A cat sitting on a wooden table, soft window light"


def wish(prompt: str, **fields: Any) -> Json:
    return {"prompt": prompt, **fields}


WISHES = [
    pytest.param("litellm-sdxl-text-1024", wish(CAT), id="sdxl"),
    pytest.param(
        "litellm-sdxl-text-1344x768-cfg-steps-seed",
        wish("A lighthouse in a storm", aspect_ratio="16:9"),
        id="sdxl 16:9",
    ),
    pytest.param(
        "griptape-titan2-text-1024",
        wish("A watercolor landscape", negative_prompt="blurry, text"),
        id="titan text",
    ),
    pytest.param(
        "aisdk-titan2-variation-1024-0.7",
        wish(
            "turn this into a watercolor painting",
            negative_prompt="blurry, low quality, distorted, watermark, text, ugly, deformed",
            similarity_strength=0.7,
            init_image=source_of("aisdk-titan2-variation-1024-0.7"),
        ),
        id="titan variation",
    ),
    pytest.param(
        "aisdk-nova-text-neg-cfg-style",
        wish("A futuristic city, neon lights", negative_prompt="blurry, low quality", aspect_ratio="16:9"),
        id="nova",
    ),
    pytest.param(
        "litellm-core-text-16x9-neg-seed",
        wish(CAT, negative_prompt="blurry, watermark", aspect_ratio="16:9"),
        id="core",
    ),
    pytest.param(
        "litellm-sd35-text-3x2-neg", wish(CAT, negative_prompt="lowres", aspect_ratio="3:2"), id="sd35"
    ),
    pytest.param("portkey-sd35-text", wish("a harbour", aspect_ratio="9:16"), id="sd35 9:16"),
]


@pytest.mark.parametrize(("name", "wish"), WISHES)
async def test_a_wish_is_sent_as_other_clients_send_it(
    bedrock: Caller, emulator: Emulator, name: str, wish: Json
) -> None:
    recording = recorded(name)
    request = bedrock.img2img(**wish) if "init_image" in wish else text2img(**wish)

    await bedrock.run(request, CATALOGUE[recording["model"]])

    expected = Calls().record("", "", "", recording["request_json"]).body  # pictures by their hash
    assert what_matters(sent(emulator)) == what_matters(expected)


@pytest.mark.parametrize(
    ("name", "ratio", "negative"),
    [
        ("griptape-titan2-variation-1152x768", "3:2", ""),
        ("griptape-titan2-variation-768x1280-neg", "3:5", "bad anatomy"),
    ],
)
async def test_a_variation_always_says_how_similar(
    bedrock: Caller, emulator: Emulator, name: str, ratio: str, negative: str
) -> None:
    recording = recorded(name)
    prompt = recording["request_json"]["imageVariationParams"]["text"]

    await bedrock.run(
        bedrock.img2img(prompt, init_image=source_of(name), aspect_ratio=ratio, negative_prompt=negative),
        TITAN,
    )

    expected = Calls().record("", "", "", recording["request_json"]).body
    expected["imageVariationParams"]["similarityStrength"] = 0.5
    assert what_matters(sent(emulator)) == what_matters(expected)


async def test_sdxl_takes_a_negative_prompt_as_a_negative_weight(bedrock: Caller, emulator: Emulator) -> None:
    await bedrock.run(text2img("comic book", negative_prompt="blurry"), SDXL)

    assert sent(emulator) == {
        "text_prompts": [{"text": "comic book", "weight": 1.0}, {"text": "blurry", "weight": -1.0}],
        "width": 1024,
        "height": 1024,
        "cfg_scale": 7,
        "steps": 30,
        "samples": 1,
    }


@pytest.mark.parametrize(("similarity", "told"), [(0, 0.2), (0.1, 0.2), (0.2, 0.2), (0.7, 0.7), (1, 1.0)])
async def test_titan_is_told_a_similarity_of_at_least_a_fifth(
    bedrock: Caller, emulator: Emulator, similarity: float, told: float
) -> None:
    await bedrock.run(bedrock.img2img(similarity_strength=similarity), TITAN)

    assert sent(emulator)["imageVariationParams"]["similarityStrength"] == told


@pytest.mark.parametrize(("similarity", "strength"), [(0, 1), (0.7, 0.3), (1, 0)])
async def test_sd35_is_told_the_opposite_of_similarity(
    bedrock: Caller, emulator: Emulator, similarity: float, strength: float
) -> None:
    await bedrock.run(bedrock.img2img(similarity_strength=similarity), SD35)

    body = sent(emulator)
    body.pop("image")
    assert body == {
        "prompt": "a cat",
        "output_format": "png",
        "strength": strength,
        "mode": "image-to-image",
    }


SIZES = {
    (SDXL.short, "text2img"): ((1024, 1024), (1344, 768), (768, 1344), (1216, 832), (768, 1344)),
    (CORE.short, "text2img"): ((1024, 1024), (1344, 768), (768, 1344), (1216, 832), (768, 1344)),
    (ULTRA.short, "text2img"): ((1024, 1024), (1344, 768), (768, 1344), (1216, 832), (768, 1344)),
    (SD35.short, "text2img"): ((1024, 1024), (1344, 768), (768, 1344), (1216, 832), (768, 1344)),
    (TITAN.short, "text2img"): ((1024, 1024), (1173, 640), (768, 1408), (1152, 768), (768, 1280)),
    (NOVA.short, "text2img"): ((1024, 1024), (1280, 720), (720, 1280), (1152, 768), (768, 1280)),
    (TITAN.short, "img2img"): ((1024, 1024), (1173, 640), (768, 1408), (1152, 768), (768, 1280)),
    (NOVA.short, "img2img"): ((1024, 1024), (1280, 720), (720, 1280), (1152, 768), (768, 1280)),
    (SD35.short, "img2img"): ((1024, 1024), (1344, 768), (768, 1344), (1152, 768), (768, 1280)),
    (ULTRA.short, "img2img"): ((1024, 1024), (1344, 768), (768, 1344), (1152, 768), (768, 1280)),
}


def test_every_model_and_mode_has_its_sizes_above() -> None:
    assert SIZES.keys() == {
        (model.short, mode) for model in CATALOGUE.model for mode in model.operations if model.vendor == "aws"
    }


@pytest.mark.parametrize(("short", "mode"), SIZES)
async def test_each_ratio_has_a_size_that_the_model_takes(bedrock: Caller, short: str, mode: str) -> None:
    model = next(model for model in CATALOGUE.model if model.short == short)
    wish = text2img if mode == "text2img" else bedrock.img2img

    drawn = [await bedrock.run(wish(aspect_ratio=ratio), model) for ratio in RATIOS]

    assert tuple(generation.pictures[0].size for generation in drawn) == SIZES[short, mode]


@pytest.mark.parametrize(
    ("model", "mode", "format"),
    [(TITAN, "RGB", "PNG"), (TITAN, "RGB", "JPEG"), (NOVA, "RGBA", "PNG"), (SD35, "RGBA", "PNG")],
    ids=["titan PNG", "titan JPEG", "nova RGBA", "sd35 RGBA"],
)
async def test_a_large_noisy_init_image_is_made_to_fit(
    bedrock: Caller, model: Model, mode: str, format: str
) -> None:
    size = (2048, 1472)
    noise = Image.frombytes(mode, size, random.Random(1).randbytes(size[0] * size[1] * len(mode)))
    source = encoded(noise, format, compress_level=1)

    generation = await bedrock.run(bedrock.img2img(init_image=source), model)

    assert generation.pictures[0].size == (1024, 1024)


async def test_a_heavy_jpeg_is_made_lighter_for_titan(bedrock: Caller, emulator: Emulator) -> None:
    """Its sides are within the limit, its 6 MB are not."""
    noise = Image.frombytes("RGB", (1408, 1408), random.Random(1).randbytes(1408 * 1408 * 3))
    heavy = encoded(noise, "JPEG", quality=100, subsampling=0)

    await bedrock.run(bedrock.img2img(init_image=heavy), TITAN)

    (source,) = sent(emulator)["imageVariationParams"]["images"]
    assert len(heavy) > 5_500_000 > 5_000_000 >= source["bytes"]


async def test_a_model_is_not_asked_for_what_it_cannot(bedrock: Caller, emulator: Emulator) -> None:
    with pytest.raises(InvalidGen) as img2img_by_core:
        await bedrock.run(bedrock.img2img(), CORE)
    with pytest.raises(InvalidGen) as long_negative:
        await bedrock.run(bedrock.img2img(negative_prompt="x" * 513), TITAN)

    assert img2img_by_core.value.details == f"The model {CORE.id} does not do img2img"
    assert long_negative.value.error == "Invalid negative_prompt"
    assert not emulator.calls.list()


# ── What each answer becomes ─────────────────────────────────────────────────────────────────────────

FILTERED_OUTPUT = Block(
    "The content filter refused the picture", side="output", hint="Rephrase the prompt and try again"
)
FILTERED_PROMPT = Block(
    "The content filter refused the prompt", side="prompt", hint="Rephrase the prompt and try again"
)
NOTHING = Block("The model returned no picture")

OUTCOMES: dict[str, tuple[int, int] | Block | type[GatewayError]] = {
    "any-400-quota": UpstreamFailed,
    "any-403-expired-token": UpstreamFailed,
    "any-403-model-access": UpstreamFailed,
    "any-403-signature": UpstreamFailed,
    "any-408-model-timeout": UpstreamTimeout,
    "any-429-not-ready": RateLimited,
    "any-429-throttled": RateLimited,
    "core-success-16x9": (1536, 864),
    "sd35-filtered-output": FILTERED_OUTPUT,
    "sd35-success-string-seed": (1024, 1024),
    "sdxl-400-size": UpstreamFailed,
    "sdxl-404-eol": ModelGone,
    "sdxl-filtered": FILTERED_OUTPUT,
    "sdxl-success-1024": (1024, 1024),
    "titan-400-malformed": UpstreamFailed,
    "titan-400-schema-violations": UpstreamFailed,
    "titan-empty": NOTHING,
    "titan-filtered-error-only": FILTERED_OUTPUT,
    "titan-success-1024": (1024, 1024),
    "ultra-filtered-prompt": FILTERED_PROMPT,
}


def test_every_recorded_answer_has_its_outcome_above() -> None:
    names = {path.stem.removeprefix("resp-") for path in WIRE.glob("resp-*.json")}

    assert OUTCOMES.keys() == {name for name in names if not name.startswith("anthropic")}


async def outcome(bedrock: Caller, model: Model) -> object:
    try:
        generation = await bedrock.run(text2img(), model)
    except SafetyBlocked as exc:
        return exc.block
    except GatewayError as exc:
        return type(exc)
    return generation.pictures[0].size


@pytest.mark.parametrize("name", OUTCOMES)
async def test_a_recorded_answer_becomes_what_is_settled(
    bedrock: Caller, emulator: Emulator, name: str
) -> None:
    canned = json.loads((WIRE / f"resp-{name}.json").read_text())
    answer = {key: canned[key] for key in ("status", "headers")} | {"body": canned["response_json"]}
    times = 3 if canned["status"] == 429 else 1
    emulator.troubles.set("answer", vendor="bedrock", arg=answer, times=times)

    assert await outcome(bedrock, CATALOGUE[canned["model"]]) == OUTCOMES[name]
    assert len(emulator.calls.list()) == times


MORE_ANSWERS = [
    pytest.param(SDXL, 200, {"artifacts": []}, NOTHING, id="sdxl nothing"),
    pytest.param(SDXL, 200, {"artifacts": [{"finishReason": "ERROR"}]}, UpstreamFailed, id="sdxl error"),
    pytest.param(SDXL, 200, {"artifacts": [{}]}, UpstreamFailed, id="sdxl another shape"),
    pytest.param(
        SDXL,
        200,
        {"artifacts": [{"finishReason": "SUCCESS", "base64": "AAAA"}]},
        BrokenPicture,
        id="sdxl no picture",
    ),
    pytest.param(TITAN, 200, {}, NOTHING, id="titan nothing"),
    pytest.param(TITAN, 200, {"images": None, "error": "blocked"}, FILTERED_OUTPUT, id="titan null"),
    pytest.param(TITAN, 200, {"images": ["!"], "error": None}, BrokenPicture, id="titan no base64"),
    pytest.param(TITAN, 200, [], UpstreamFailed, id="titan a list"),
    pytest.param(TITAN, 200, "<html>", UpstreamFailed, id="titan no JSON"),
    pytest.param(TITAN, 502, "<html>Bad gateway</html>", UpstreamFailed, id="a proxy's page"),
    pytest.param(TITAN, 404, "<html>Not found</html>", UpstreamFailed, id="a proxy's 404"),
    pytest.param(SD35, 200, {"finish_reasons": ["Inference error"]}, UpstreamFailed, id="sd35 error"),
    pytest.param(SD35, 200, {"finish_reasons": [None], "images": []}, NOTHING, id="sd35 nothing"),
    pytest.param(
        SD35,
        200,
        {"finish_reasons": ["Filter reason: input image"]},
        Block(
            "The content filter refused the init_image",
            side="prompt",
            hint="Rephrase the prompt and try again",
        ),
        id="sd35 filtered source",
    ),
]


@pytest.mark.parametrize(("model", "status", "body", "becomes"), MORE_ANSWERS)
async def test_any_other_answer_is_a_refusal_or_a_failure(
    bedrock: Caller, emulator: Emulator, model: Model, status: int, body: object, becomes: object
) -> None:
    emulator.troubles.set("answer", vendor="bedrock", arg={"status": status, "body": body})

    assert await outcome(bedrock, model) == becomes


HALF_A_PICTURE = pybase64.b64encode(
    encoded(Image.frombytes("RGB", (90, 90), random.Random(1).randbytes(24300)))[:-5000]
).decode()
NO_PICTURES: list[object] = [
    None,
    5,
    True,
    "",
    "!",
    "AAAA",
    [],
    {},
    HALF_A_PICTURE,
    HALF_A_PICTURE[:-1] + "!",
]


def _shapes() -> Iterator[tuple[Model, object]]:
    each: object
    for model in (SDXL, TITAN, SD35):
        for each in (None, 5, [], [{}], '"images"', "{", ""):
            yield model, each
    for each in NO_PICTURES:
        yield TITAN, {"images": [each]}
        yield SD35, {"images": [each], "finish_reasons": [None]}
        yield SDXL, {"artifacts": [{"finishReason": "SUCCESS", "base64": each}]}
    for each in (5, "AAAA", {"0": "AAAA"}, HALF_A_PICTURE):
        yield TITAN, {"images": each}
    for each in (5, [], {}):
        yield TITAN, {"error": each}
    for each in (None, 5, {}, [None], [[]], [{"finishReason": None}]):
        yield SDXL, {"artifacts": each}
    for each in (None, 5, {}, "AAAA"):
        yield SD35, {"images": each}
    for each in (None, 5, {}, [5], [[]], ["Whatever"]):
        yield SD35, {"finish_reasons": each}


SHAPES = list(_shapes())


@pytest.mark.parametrize(
    ("model", "body"), SHAPES, ids=lambda value: str(getattr(value, "short", value))[:50]
)
async def test_an_answer_of_an_unknown_shape_is_a_failure(
    bedrock: Caller, emulator: Emulator, model: Model, body: object
) -> None:
    emulator.troubles.set("answer", vendor="bedrock", arg={"status": 200, "body": body})

    assert await outcome(bedrock, model) in (UpstreamFailed, BrokenPicture)
    assert len(emulator.calls.list()) == 1


@pytest.mark.parametrize(
    ("model", "kind", "side"),
    [
        (SDXL, "blocked-prompt", "output"),  # SDXL does not tell which it was
        (SDXL, "blocked-output", "output"),
        (TITAN, "blocked-prompt", "prompt"),
        (TITAN, "blocked-output", "output"),
        (SD35, "blocked-prompt", "prompt"),
        (SD35, "blocked-output", "output"),
        (SDXL, "empty", None),
        (TITAN, "empty", None),
        (SD35, "empty", None),
    ],
    ids=lambda value: value.short if isinstance(value, Model) else value,
)
async def test_a_blocked_request_is_told_on_which_side(
    bedrock: Caller, emulator: Emulator, model: Model, kind: str, side: str | None
) -> None:
    with pytest.raises(SafetyBlocked) as blocked:
        await bedrock.run(text2img(f"a cat #trouble:{kind}"), model)

    assert blocked.value.block.side == side
    assert emulator.calls.paid == 0


# The errors of botocore's service model, and those that every AWS service can return:
# docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
ERRORS: dict[str, tuple[int, type[GatewayError]]] = {
    "ValidationException": (400, UpstreamFailed),
    "ServiceQuotaExceededException": (400, UpstreamFailed),
    "AccessDeniedException": (403, UpstreamFailed),
    "UnrecognizedClientException": (403, UpstreamFailed),
    "ExpiredTokenException": (403, UpstreamFailed),
    "InvalidSignatureException": (403, UpstreamFailed),
    "ResourceNotFoundException": (404, ModelGone),
    "ModelTimeoutException": (408, UpstreamTimeout),
    "ModelErrorException": (424, UpstreamFailed),
    "ThrottlingException": (429, RateLimited),
    "ModelNotReadyException": (429, RateLimited),
    "InternalServerException": (500, UpstreamFailed),
    "ServiceUnavailableException": (503, UpstreamFailed),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_a_named_error_becomes_ours_without_the_vendors_words(
    bedrock: Caller, emulator: Emulator, name: str
) -> None:
    status, ours = ERRORS[name]
    headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    answer = {"status": status, "headers": headers, "body": {"message": "arn:aws:iam::123456789012:user/x"}}
    emulator.troubles.set("answer", vendor="bedrock", arg=answer, times=3)

    with pytest.raises(ours) as raised:
        await bedrock.run(text2img(), TITAN)

    assert "arn:" not in raised.value.message
    assert raised.value.vendor_code == name
    assert len(emulator.calls.list()) == (3 if status in (429, 503) else 1)


def test_every_error_of_the_service_model_is_in_the_table() -> None:
    client = boto3.client("bedrock-runtime", "us-west-2", aws_access_key_id="x", aws_secret_access_key="x")
    operation = client.meta.service_model.operation_model("InvokeModel")
    modelled = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in operation.error_shapes}
    client.close()

    assert modelled.items() <= {name: status for name, (status, _) in ERRORS.items()}.items()


FORGED = [
    ({}, None, "403"),
    ({"x-amzn-errortype": "AccessDeniedException"}, None, "403"),
    ({"x-amzn-errortype": "AccessDeniedException"}, {"message": "no"}, "AccessDeniedException"),
    ({"x-amzn-errortype": "AccessDeniedException:http://x/"}, {"Message": "no"}, "AccessDeniedException"),
    ({"x-amzn-errortype": "arn:aws:iam::123456789012:user/x"}, {"message": "no"}, "arn"),
    ({"x-amzn-errortype": "see 123456789012"}, {"message": "no"}, "403"),
    ({"x-amzn-errortype": "x" * 65}, {"message": "no"}, "403"),
    ({}, {"message": "no"}, "403"),
]


@pytest.mark.parametrize(("headers", "value", "code"), FORGED)
def test_the_logged_code_is_a_name_or_a_status(headers: dict[str, str], value: object, code: str) -> None:
    with pytest.raises(CallFailed) as raised, translated(FAILURES, TITAN, said):
        raise ErrorAnswer(Answer(403, headers, value))
    failed = raised.value

    assert failed.error.vendor_code == code
    assert failed.served == ("unknown" if code == "403" else "refused")


# ── Nothing is paid twice ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["429", "503"])
async def test_a_busy_model_is_asked_again_twice(bedrock: Caller, emulator: Emulator, kind: Any) -> None:
    emulator.troubles.set(kind, vendor="bedrock", times=2)

    await bedrock.run(text2img(), TITAN)

    assert [call.status for call in emulator.calls.list()] == [int(kind), int(kind), 200]
    assert emulator.calls.paid == 1


async def test_a_long_wait_is_left_to_the_caller(bedrock: Caller, emulator: Emulator) -> None:
    with pytest.raises(RateLimited) as limited:
        await bedrock.run(text2img("a cat #trouble:429=7"), TITAN)

    assert (limited.value.retry_after, limited.value.by_vendor) == (7, True)
    assert len(emulator.calls.list()) == 1


@pytest.mark.parametrize(
    ("kind", "ours", "paid"),
    [("500", UpstreamFailed, 0), ("drop", UpstreamFailed, 1), ("hang", UpstreamTimeout, 0)],
)
async def test_a_call_whose_outcome_is_unknown_is_not_repeated(
    bedrock: Caller, emulator: Emulator, kind: str, ours: type[GatewayError], paid: int
) -> None:
    with pytest.raises(ours):
        await bedrock.run(text2img(f"a cat #trouble:{kind}"), TITAN, seconds=1)

    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.finished for call in calls))
    assert (len(emulator.calls.list()), emulator.calls.paid) == (1, paid)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (429, {}, "<html>Too many requests</html>"),
        (503, {}, "<html>Service unavailable</html>"),
        (503, {"x-amzn-errortype": "ServiceUnavailableException"}, "<html>"),
        (503, {}, {"message": "from a proxy"}),
    ],
)
async def test_a_busy_proxy_is_not_a_busy_model(
    bedrock: Caller, emulator: Emulator, status: int, headers: dict[str, str], body: object
) -> None:
    """Who knows what stands behind it, and what that has done."""
    answer = {"status": status, "headers": headers, "body": body}
    emulator.troubles.set("answer", vendor="bedrock", arg=answer, times=3)

    with pytest.raises(RateLimited if status == 429 else UpstreamFailed):
        await bedrock.run(text2img(), TITAN)

    assert len(emulator.calls.list()) == 1


async def test_no_connection_is_a_failure() -> None:
    async with calling("http://127.0.0.1:1") as bedrock:
        with pytest.raises(UpstreamFailed):
            await bedrock.run(text2img(), TITAN)
        with pytest.raises(OSError, match="Connect call failed"):
            await bedrock.bedrock.ready()


async def test_64_calls_are_under_way_at_once_and_closed_when_cancelled(
    bedrock: Caller, emulator: Emulator
) -> None:
    emulator.troubles.set("hang", vendor="bedrock")
    waiting = [asyncio.create_task(bedrock.run(text2img(), TITAN)) for _ in range(64)]
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: len(calls) == 64)

    for task in waiting:
        task.cancel()

    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.cancelled for call in calls))


async def test_nothing_is_sent_when_the_time_is_up(bedrock: Caller, emulator: Emulator) -> None:
    for request in (text2img(), bedrock.img2img()):
        with pytest.raises(Busy):
            await bedrock.run(request, TITAN, seconds=0)

    assert not emulator.calls.list()


async def test_a_rehearsed_trouble_travels_in_the_header(bedrock: Caller, emulator: Emulator) -> None:
    with pytest.raises(RateLimited):
        await bedrock.run(text2img(), TITAN, trouble="429=7")

    assert len(emulator.calls.list()) == 1


async def test_ready_connects(bedrock: Caller, emulator: Emulator) -> None:
    await bedrock.bedrock.ready()

    assert not emulator.calls.list()


# ── How answers travel ───────────────────────────────────────────────────────────────────────────────

SAME: list[Json] = [
    {"chunked": True},
    {"chunked": True, "piece": 1000},
    {"gzip": True},
    {"gzip": True, "chunked": True, "piece": 777},
    {"reordered": True},
    {"indented": True},
    {"escaped": True},
    {"escaped": True, "reordered": True, "piece": 4099},
    {"cut": "after"},
    {"cut": "after", "reset": True},
]


@pytest.mark.parametrize("travel", SAME, ids=str)
@pytest.mark.parametrize("model", [SDXL, TITAN, SD35], ids=lambda model: model.short)
async def test_an_answer_is_the_same_however_it_travels(
    bedrock: Caller, emulator: Emulator, model: Model, travel: Json
) -> None:
    canned = {SDXL: "sdxl-success-1024", TITAN: "titan-success-1024", SD35: "sd35-success-string-seed"}[model]
    body = json.loads((WIRE / f"resp-{canned}.json").read_text())["response_json"]
    emulator.troubles.set("answer", vendor="bedrock", arg={"status": 200, "body": body}, times=1)
    emulator.troubles.set(vendor="bedrock", travel=Travel(**travel), times=1)

    generation = await bedrock.run(text2img(), model)

    (image,) = body["images"] if "images" in body else (one["base64"] for one in body["artifacts"])
    (drawn,) = generation.pictures
    assert b"".join(drawn.blob.pieces()) == pybase64.b64decode(image)


BROKEN: list[tuple[Json, type[GatewayError]]] = [
    ({"cut": "before"}, UpstreamFailed),
    ({"cut": "before", "reset": True}, UpstreamFailed),
    ({"cut": 0}, UpstreamFailed),
    ({"cut": 5000}, UpstreamFailed),
    ({"cut": 5000, "reset": True}, UpstreamFailed),
    ({"cut": 5000, "chunked": True}, UpstreamFailed),
    ({"cut": 500, "gzip": True}, UpstreamFailed),
    ({"length": 5}, UpstreamFailed),
    ({"length": -5}, UpstreamFailed),
    ({"timed_out": True}, UpstreamTimeout),
    ({"delay": 600}, UpstreamTimeout),
    ({"drip": 10}, UpstreamTimeout),
]


@pytest.mark.parametrize(("travel", "ours"), BROKEN, ids=str)
async def test_an_answer_that_is_lost_is_paid_once(
    bedrock: Caller, emulator: Emulator, travel: Json, ours: type[GatewayError]
) -> None:
    emulator.troubles.set(vendor="bedrock", travel=Travel(**travel))

    with pytest.raises(ours):
        await bedrock.run(text2img(), TITAN, seconds=3)

    assert (len(emulator.calls.list()), emulator.calls.paid) == (1, 1)


# ── Pictures are fitted once ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("model", [TITAN, NOVA, SD35, ULTRA], ids=lambda model: model.short)
async def test_auto_resize_fits_the_picture_to_the_model_that_serves(
    bedrock: Caller, emulator: Emulator, model: Model, ratio: AspectRatio
) -> None:
    source = encoded(Image.new("RGB", (700, 300), "gray"))

    await bedrock.run(bedrock.img2img(init_image=source, auto_resize=True, aspect_ratio=ratio), model)

    wanted = (
        INIT_IMAGE_SIZES[ratio]
        if model in (TITAN, NOVA)
        else SIZES[model.short, "img2img"][RATIOS.index(ratio)]
    )
    expected = fit(picture(bedrock.blobs.of(source)), wanted)
    body = sent(emulator)
    (image,) = body["imageVariationParams"]["images"] if model in (TITAN, NOVA) else (body["image"],)
    assert image["sha256"] == expected.blob.sha256().hex()


@pytest.mark.parametrize("model", [TITAN, SD35], ids=lambda model: model.short)
async def test_a_picture_that_fits_is_sent_as_it_is(
    bedrock: Caller, emulator: Emulator, model: Model
) -> None:
    source = encoded(Image.new("RGB", (1024, 1024), "gray"))

    await bedrock.run(bedrock.img2img(init_image=source, auto_resize=True), model)

    body = sent(emulator)
    (image,) = body["imageVariationParams"]["images"] if model is TITAN else (body["image"],)
    assert image == {"sha256": hashlib.sha256(source).hexdigest(), "bytes": len(source)}
