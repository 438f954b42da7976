"""Bedrock through the real boto3: what is sent, what each answer becomes, and that nothing is paid twice."""

import asyncio
import inspect
import json
import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import botocore.exceptions
import pybase64
import pytest
from PIL import Image

from app.contract.errors import (
    GatewayError,
    ModelGone,
    RateLimited,
    SafetyBlocked,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.contract.gen import GenRequest, Img2Img, InvalidGen, read_gen
from app.contract.models import Model, load_catalogue
from app.contract.pictures import picture
from app.contract.safety import Block
from app.emulator.calls import Calls
from app.emulator.server import Emulator
from app.ports import Generation, Provider
from app.providers.bedrock.client import Bedrock, translate
from tests.two_second_model import two_second_model

pytestmark = pytest.mark.anyio

WIRE = Path(__file__).parents[1] / "bedrock-wire"
CATALOGUE = load_catalogue()
REGIONS = {model.location for model in CATALOGUE.model if model.vendor == "aws"}

SDXL = CATALOGUE["stability.stable-diffusion-xl-v1"]
CORE = CATALOGUE["stability.stable-image-core-v1:1"]
ULTRA = CATALOGUE["stability.stable-image-ultra-v1:1"]
TITAN = CATALOGUE["amazon.titan-image-generator-v2:0"]
NOVA = CATALOGUE["amazon.nova-canvas-v1:0"]
SD35 = CATALOGUE["stability.sd3-5-large-v1:0"]

RATIOS = ("1:1", "16:9", "9:16", "3:2", "3:5")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def _bedrock(cloud: Emulator) -> Iterator[Bedrock]:
    provider = connect(cloud.http_url)
    yield provider
    asyncio.run(provider.aclose())


@pytest.fixture
def bedrock(_bedrock: Bedrock, emulator: Emulator) -> Bedrock:
    """One for all tests, for boto3 takes a second to build its clients; the emulator is tidied for each."""
    return _bedrock


def connect(url: str, timeout_seconds: float = 20, max_calls: int = 64) -> Bedrock:
    return Bedrock(
        regions=REGIONS,
        timeout_seconds=timeout_seconds,
        max_calls=max_calls,
        endpoint_url=url,
        access_key_id="emulated",
        secret_access_key="emulated",
    )


def text2img(prompt: str = "a cat", **fields: Any) -> GenRequest:
    return read_gen({"mode": "text2img", "prompt": prompt} | fields, text=False)


def img2img(prompt: str = "a cat", *, init_image: str | None = None, **fields: Any) -> GenRequest:
    given = {"mode": "img2img", "prompt": prompt, "init_image": init_image or encoded((1024, 1024))}
    return read_gen(given | fields, text=False)


def encoded(size: tuple[int, int], mode: str = "RGB") -> str:
    out = BytesIO()
    Image.new(mode, size, "gray").save(out, "PNG")
    return pybase64.b64encode(out.getvalue()).decode()


def sent(emulator: Emulator) -> Json:
    return emulator.calls.list()[-1].body


# ── What is sent ─────────────────────────────────────────────────────────────────────────────────────


def recorded(name: str) -> Json:
    found: Json = json.loads((WIRE / f"req-{name}.json").read_text())
    return found


def source_of(name: str) -> str:
    image: str = recorded(name)["request_json"]["imageVariationParams"]["images"][0]
    return image


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
WISHES = [
    pytest.param("litellm-sdxl-text-1024", text2img(CAT), id="sdxl"),
    pytest.param(
        "litellm-sdxl-text-1344x768-cfg-steps-seed",
        text2img("A lighthouse in a storm", aspect_ratio="16:9"),
        id="sdxl 16:9",
    ),
    pytest.param(
        "griptape-titan2-text-1024",
        text2img("A watercolor landscape", negative_prompt="blurry, text"),
        id="titan text",
    ),
    pytest.param(
        "aisdk-titan2-variation-1024-0.7",
        img2img(
            "turn this into a watercolor painting",
            negative_prompt="blurry, low quality, distorted, watermark, text, ugly, deformed",
            similarity_strength=0.7,
            init_image=source_of("aisdk-titan2-variation-1024-0.7"),
        ),
        id="titan variation",
    ),
    pytest.param(
        "aisdk-nova-text-neg-cfg-style",
        text2img(
            "A futuristic city, neon lights", negative_prompt="blurry, low quality", aspect_ratio="16:9"
        ),
        id="nova",
    ),
    pytest.param(
        "litellm-core-text-16x9-neg-seed",
        text2img(CAT, negative_prompt="blurry, watermark", aspect_ratio="16:9"),
        id="core",
    ),
    pytest.param(
        "litellm-sd35-text-3x2-neg", text2img(CAT, negative_prompt="lowres", aspect_ratio="3:2"), id="sd35"
    ),
    pytest.param("portkey-sd35-text", text2img("a harbour", aspect_ratio="9:16"), id="sd35 9:16"),
]


@pytest.mark.parametrize(("name", "wish"), WISHES)
async def test_a_wish_is_sent_as_other_clients_send_it(
    bedrock: Bedrock, emulator: Emulator, name: str, wish: GenRequest
) -> None:
    recording = recorded(name)

    await bedrock.run(wish, CATALOGUE[recording["model"]])

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
    bedrock: Bedrock, emulator: Emulator, name: str, ratio: str, negative: str
) -> None:
    recording = recorded(name)
    prompt = recording["request_json"]["imageVariationParams"]["text"]

    await bedrock.run(
        img2img(prompt, init_image=source_of(name), aspect_ratio=ratio, negative_prompt=negative), TITAN
    )

    expected = Calls().record("", "", "", recording["request_json"]).body
    expected["imageVariationParams"]["similarityStrength"] = 0.5
    assert what_matters(sent(emulator)) == what_matters(expected)


async def test_sdxl_takes_a_negative_prompt_as_a_negative_weight(
    bedrock: Bedrock, emulator: Emulator
) -> None:
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
    bedrock: Bedrock, emulator: Emulator, similarity: float, told: float
) -> None:
    await bedrock.run(img2img(similarity_strength=similarity), TITAN)

    assert sent(emulator)["imageVariationParams"]["similarityStrength"] == told


@pytest.mark.parametrize(("similarity", "strength"), [(0, 1), (0.7, 0.3), (1, 0)])
async def test_sd35_is_told_the_opposite_of_similarity(
    bedrock: Bedrock, emulator: Emulator, similarity: float, strength: float
) -> None:
    await bedrock.run(img2img(similarity_strength=similarity), SD35)

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
async def test_each_ratio_has_a_size_that_the_model_takes(bedrock: Bedrock, short: str, mode: str) -> None:
    model = next(model for model in CATALOGUE.model if model.short == short)
    wish = text2img if mode == "text2img" else img2img

    drawn = [await bedrock.run(wish(aspect_ratio=ratio), model) for ratio in RATIOS]

    assert tuple(generation.pictures[0].size for generation in drawn) == SIZES[short, mode]


@pytest.mark.parametrize(
    ("model", "mode", "format"),
    [(TITAN, "RGB", "PNG"), (TITAN, "RGB", "JPEG"), (NOVA, "RGBA", "PNG"), (SD35, "RGBA", "PNG")],
    ids=["titan PNG", "titan JPEG", "nova RGBA", "sd35 RGBA"],
)
async def test_a_large_noisy_init_image_is_made_to_fit(
    bedrock: Bedrock, model: Model, mode: str, format: str
) -> None:
    size = (2048, 1472)
    out = BytesIO()
    noise = random.Random(1).randbytes(size[0] * size[1] * len(mode))
    Image.frombytes(mode, size, noise).save(out, format, compress_level=1)
    data = out.getvalue()
    request = text2img().model_dump() | {"mode": "img2img", "init_image": picture(data)}

    generation = await bedrock.run(Img2Img.model_construct(**request, similarity_strength=0.5), model)

    assert generation.pictures[0].size == (1024, 1024)


async def test_a_heavy_jpeg_is_made_lighter_for_titan(bedrock: Bedrock, emulator: Emulator) -> None:
    """Its sides are within the limit, its 6 MB are not."""
    out = BytesIO()
    noise = Image.frombytes("RGB", (1408, 1408), random.Random(1).randbytes(1408 * 1408 * 3))
    noise.save(out, "JPEG", quality=100, subsampling=0)
    heavy = picture(out.getvalue())

    await bedrock.run(
        Img2Img.model_construct(
            **text2img().model_dump() | {"mode": "img2img", "init_image": heavy}, similarity_strength=0.5
        ),
        TITAN,
    )

    (source,) = emulator.calls.list()[0].body["imageVariationParams"]["images"]
    assert len(heavy.data) > 5_500_000 > 5_000_000 >= source["bytes"]


async def test_a_model_is_not_asked_for_what_it_cannot(bedrock: Bedrock, emulator: Emulator) -> None:
    with pytest.raises(InvalidGen) as img2img_by_core:
        await bedrock.run(img2img(), CORE)
    with pytest.raises(InvalidGen) as long_negative:
        await bedrock.run(img2img(negative_prompt="x" * 513), TITAN)

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


async def outcome(bedrock: Bedrock, model: Model) -> object:
    try:
        generation = await bedrock.run(text2img(), model)
    except SafetyBlocked as exc:
        return exc.block
    except GatewayError as exc:
        return type(exc)
    return generation.pictures[0].size


@pytest.mark.parametrize("name", OUTCOMES)
async def test_a_recorded_answer_becomes_what_is_settled(
    bedrock: Bedrock, emulator: Emulator, name: str
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
        UpstreamFailed,
        id="sdxl no picture",
    ),
    pytest.param(TITAN, 200, {}, NOTHING, id="titan nothing"),
    pytest.param(TITAN, 200, {"images": None, "error": "blocked"}, FILTERED_OUTPUT, id="titan null"),
    pytest.param(TITAN, 200, {"images": ["!"], "error": None}, UpstreamFailed, id="titan no base64"),
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
    bedrock: Bedrock, emulator: Emulator, model: Model, status: int, body: object, becomes: object
) -> None:
    emulator.troubles.set("answer", vendor="bedrock", arg={"status": status, "body": body})

    assert await outcome(bedrock, model) == becomes


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
    bedrock: Bedrock, emulator: Emulator, model: Model, kind: str, side: str | None
) -> None:
    with pytest.raises(SafetyBlocked) as blocked:
        await bedrock.run(text2img(f"a cat #trouble:{kind}"), model)

    assert blocked.value.block.side == side
    assert emulator.calls.paid == 0


# bedrock.md §6, with what is said there to be no part of the service model.
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
    bedrock: Bedrock, emulator: Emulator, name: str
) -> None:
    status, ours = ERRORS[name]
    headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    answer = {"status": status, "headers": headers, "body": {"message": "arn:aws:iam::123456789012:user/x"}}
    emulator.troubles.set("answer", vendor="bedrock", arg=answer, times=3)

    with pytest.raises(ours) as raised:
        await bedrock.run(text2img(), TITAN)

    assert "arn:" not in raised.value.message
    assert isinstance(raised.value.__cause__, botocore.exceptions.ClientError)
    assert len(emulator.calls.list()) == (3 if status in (429, 503) else 1)


async def test_every_error_of_the_service_model_is_in_the_table(bedrock: Bedrock) -> None:
    operation = bedrock._clients["us-west-2"].meta.service_model.operation_model("InvokeModel")
    modelled = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in operation.error_shapes}

    assert modelled.items() <= {name: status for name, (status, _) in ERRORS.items()}.items()


EXCEPTIONS = [
    kind
    for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass)
    if issubclass(kind, botocore.exceptions.BotoCoreError)
]


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_every_exception_of_botocore_becomes_ours(kind: type[botocore.exceptions.BotoCoreError]) -> None:
    ours = type(translate(kind.__new__(kind), TITAN))

    assert ours is (UpstreamTimeout if kind.__name__.endswith("TimeoutError") else UpstreamFailed)


# ── Nothing is paid twice ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["429", "503"])
async def test_a_busy_model_is_asked_again_twice(bedrock: Bedrock, emulator: Emulator, kind: Any) -> None:
    emulator.troubles.set(kind, vendor="bedrock", times=2)

    await bedrock.run(text2img(), TITAN)

    assert [call.status for call in emulator.calls.list()] == [int(kind), int(kind), 200]
    assert emulator.calls.paid == 1


async def test_a_long_wait_is_left_to_the_caller(bedrock: Bedrock, emulator: Emulator) -> None:
    with pytest.raises(RateLimited) as limited:
        await bedrock.run(text2img("a cat #trouble:429=7"), TITAN)

    assert (limited.value.retry_after, limited.value.by_vendor) == (7, True)
    assert len(emulator.calls.list()) == 1


@pytest.mark.parametrize(
    ("kind", "ours", "paid"),
    [("500", UpstreamFailed, 0), ("drop", UpstreamFailed, 1), ("hang", UpstreamTimeout, 0)],
)
async def test_a_call_whose_outcome_is_unknown_is_not_repeated(
    emulator: Emulator, kind: str, ours: type[GatewayError], paid: int
) -> None:
    bedrock = connect(emulator.http_url, timeout_seconds=1)

    with pytest.raises(ours):
        await bedrock.run(text2img(f"a cat #trouble:{kind}"), TITAN)
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.finished for call in calls))
    await bedrock.aclose()

    assert (len(emulator.calls.list()), emulator.calls.paid) == (1, paid)


async def test_no_connection_is_a_failure() -> None:
    bedrock = connect("http://127.0.0.1:1")

    with pytest.raises(UpstreamFailed):
        await bedrock.run(text2img(), TITAN)
    with pytest.raises(OSError, match="Connect call failed"):
        await bedrock.ready()
    await bedrock.aclose()


async def test_calls_cancelled_in_the_queue_are_never_sent(emulator: Emulator) -> None:
    bedrock = connect(emulator.http_url, timeout_seconds=2, max_calls=2)
    emulator.troubles.set("hang", vendor="bedrock")
    waves = [asyncio.create_task(bedrock.run(text2img(), TITAN)) for _ in range(8)]
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: len(calls) == 2)

    for task in waves:
        task.cancel()
    results = await asyncio.gather(*waves, return_exceptions=True)
    emulator.troubles.clear()
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.finished for call in calls))
    await bedrock.run(text2img(), TITAN)
    await bedrock.aclose()

    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert [call.status for call in emulator.calls.list()] == [None, None, 200]


async def test_ready_connects(bedrock: Bedrock, emulator: Emulator) -> None:
    await bedrock.ready()

    assert not emulator.calls.list()


async def test_64_callers_do_not_wait_for_each_other() -> None:
    loop = asyncio.get_running_loop()
    with two_second_model() as url:
        bedrock: Provider[GenRequest] = connect(url)
        begin = loop.time()

        async def wait() -> tuple[float, Generation]:
            generation = await bedrock.run(text2img(), SDXL)
            return loop.time() - begin, generation

        done = await asyncio.gather(*(wait() for _ in range(64)))
        await bedrock.aclose()

    assert {generation.pictures[0].size for _, generation in done} == {(1024, 1024)}
    assert max(seconds for seconds, _ in done) < 2.6
