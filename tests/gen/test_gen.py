"""/gen below HTTP: real SDKs on the emulator, the chain of models, and a rewrite that may fail."""

import asyncio
import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from app.contract.errors import GatewayError, InvalidRequest, SafetyBlocked, UpstreamFailed
from app.contract.gen import GenAnswer, GenRequest, Img2Img, InvalidGen, read_gen
from app.contract.models import Model, load_catalogue
from app.contract.pictures import Picture, picture
from app.emulator.server import Emulator
from app.ports import Generation, Provider
from app.providers.bedrock.client import Bedrock
from app.providers.claude import Claude
from app.services.budget import Budget
from app.services.chain import Chain
from app.services.gallery import Gallery
from app.services.gen import Gen

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
SDXL, CORE, ULTRA = (model.id for model in CATALOGUE.chain(CATALOGUE.defaults["text2img"]))
TITAN, NOVA, SD35 = (model.id for model in CATALOGUE.chain(CATALOGUE.defaults["img2img"]))
SONNET4, SONNET46, HAIKU = (model.id for model in CATALOGUE.chain(CATALOGUE.defaults["rewrite"]))
QUALITY = "highly detailed, professional composition, soft natural light, 8k"
VIETNAMESE = "một cô gái áo dài đang đi trên cầu Nhật Bản, hoàng hôn đẹp"
ENGLISH = f"a young woman in an ao dai walking on the Japanese Bridge, beautiful sunset, {QUALITY}"


@pytest.fixture(scope="module")
def bedrock(cloud: Emulator) -> Iterator[Bedrock]:
    provider = Bedrock(
        regions={model.location for model in CATALOGUE.model if model.vendor == "aws"},
        timeout_seconds=20,
        endpoint_url=cloud.http_url,
        access_key_id="emulated",
        secret_access_key="emulated",
    )
    yield provider
    asyncio.run(provider.aclose())


class Nowhere:
    """A store for tests that store nothing."""

    async def save(
        self, name: str, picture: Picture, /, *, bucket: str | None = None, again: bool = False
    ) -> str:
        raise AssertionError("nothing asked for a URL")

    def url(self, name: str, /, *, bucket: str) -> str:
        raise AssertionError("nothing asked for a URL")

    async def keep(self, name: str, picture: Picture, bucket: str, /) -> None:
        raise AssertionError("nothing asked for a URL")

    async def ready(self) -> None:
        raise AssertionError("nothing asked for a URL")

    async def aclose(self) -> None: ...


def gen_of(bedrock: Provider[GenRequest], claude: Claude, chain: Chain, places: int = 64) -> Gen:
    return Gen(
        provider=bedrock,
        rewriter=claude,
        gallery=Gallery(Nowhere(), Nowhere(), "none"),
        chain=chain,
        rewrite_chain=chain,
        budget=Budget(places, 0),
        rewrites=Budget(places, 0),
        catalogue=CATALOGUE,
        rewrite_seconds=1,
    )


async def generate(
    emulator: Emulator,
    bedrock: Provider[GenRequest],
    *,
    chain: Chain | None = None,
    **fields: Any,
) -> GenAnswer:
    claude = Claude(via="anthropic", api_key="emulated", base_url=emulator.http_url)
    await claude.connected()  # the import of its package is not on the rewrite's time
    gen = gen_of(bedrock, claude, chain or Chain(CATALOGUE))
    values = {"mode": "text2img", "prompt": "a cat"} | fields
    try:
        return await gen.make(read_gen(values, text=False))
    finally:
        await claude.aclose()


def picture_of(answer: GenAnswer) -> Picture:
    assert answer.image_base64 is not None
    return picture(answer.image_base64.data)


def init_image(**options: Any) -> str:
    out = BytesIO()
    Image.effect_noise((512, 512), 50).convert("RGB").save(out, "PNG", **options)
    return base64.b64encode(out.getvalue()).decode()


def models_called(emulator: Emulator) -> list[str]:
    return [call.model for call in emulator.calls.list()]


async def test_a_prompt_is_drawn_as_it_is(emulator: Emulator, bedrock: Bedrock) -> None:
    answer = await generate(emulator, bedrock, prompt=" a cat ")

    assert (answer.enhanced_prompt, answer.metadata.prompt_enhanced) == ("a cat", False)
    assert (answer.metadata.model, answer.metadata.requested_model) == (SDXL, None)
    assert (answer.metadata.dimensions, picture_of(answer).size) == ("1024x1024", (1024, 1024))
    assert models_called(emulator) == [SDXL]


async def test_a_vietnamese_prompt_is_drawn_in_english(emulator: Emulator, bedrock: Bedrock) -> None:
    answer = await generate(emulator, bedrock, prompt=VIETNAMESE, regen_prompt=True, prompt_language="vi")

    assert (answer.enhanced_prompt, answer.metadata.prompt_enhanced) == (ENGLISH, True)
    claude, sdxl = emulator.calls.list()
    assert claude.body["messages"][0]["content"] == (
        f"<language>vi</language>\n<characters>2000</characters>\n<prompt>{VIETNAMESE}</prompt>"
    )
    assert sdxl.body["text_prompts"][0]["text"] == ENGLISH


async def test_a_vietnamese_prompt_is_not_translated_unasked(emulator: Emulator, bedrock: Bedrock) -> None:
    answer = await generate(emulator, bedrock, prompt=VIETNAMESE, prompt_language="vi")

    assert (answer.enhanced_prompt, answer.metadata.prompt_enhanced) == (VIETNAMESE, False)
    assert models_called(emulator) == [SDXL]


async def test_a_long_prompt_is_cut_to_what_the_model_takes_and_said_so(
    emulator: Emulator, bedrock: Bedrock
) -> None:
    answer = await generate(emulator, bedrock, mode="img2img", prompt="cat " * 200, init_image=init_image())

    assert answer.enhanced_prompt == ("cat " * 128).strip()
    assert emulator.calls.list()[0].body["imageVariationParams"]["text"] == answer.enhanced_prompt


async def test_models_that_are_gone_are_followed_and_remembered(emulator: Emulator, bedrock: Bedrock) -> None:
    for gone in (SDXL, TITAN, NOVA, SONNET4):
        emulator.troubles.set("retired", model=gone)
    chain = Chain(CATALOGUE)

    first = await generate(emulator, bedrock, chain=chain, regen_prompt=True)
    calls_of_the_first = models_called(emulator)
    emulator.calls.clear()
    second = await generate(emulator, bedrock, chain=chain, regen_prompt=True)

    for answer in (first, second):
        assert (answer.metadata.model, answer.metadata.requested_model) == (CORE, SDXL)
    assert calls_of_the_first == [SONNET4, SONNET46, SDXL, CORE]
    assert models_called(emulator) == [SONNET46, CORE]


async def test_the_prompt_grows_with_the_successors_patience(emulator: Emulator, bedrock: Bedrock) -> None:
    for gone in (TITAN, NOVA):
        emulator.troubles.set("retired", model=gone)
    prompt = ("cat " * 1000).strip()

    answer = await generate(emulator, bedrock, mode="img2img", prompt=prompt, init_image=init_image())

    assert (answer.model_used, answer.enhanced_prompt) == (SD35, prompt)
    assert emulator.calls.paid == 1


async def test_a_retired_model_is_refused_where_successors_are_not_followed(
    emulator: Emulator, bedrock: Bedrock
) -> None:
    emulator.troubles.set("retired", model=SDXL)

    with pytest.raises(InvalidRequest, match=CORE):
        await generate(emulator, bedrock, chain=Chain(CATALOGUE, follow=False))


async def test_nobody_is_paid_to_rewrite_for_a_model_that_is_known_to_be_retired(
    emulator: Emulator, bedrock: Bedrock
) -> None:
    emulator.troubles.set("retired", model=SDXL)
    chain = Chain(CATALOGUE, follow=False)
    with pytest.raises(InvalidRequest, match=CORE):
        await generate(emulator, bedrock, chain=chain)
    emulator.calls.clear()

    with pytest.raises(InvalidRequest, match=CORE):
        await generate(emulator, bedrock, chain=chain, regen_prompt=True)

    assert emulator.calls.list() == ()


async def test_no_model_left_is_a_failure(emulator: Emulator, bedrock: Bedrock) -> None:
    emulator.troubles.set("retired", vendor="bedrock")

    with pytest.raises(UpstreamFailed):
        await generate(emulator, bedrock)

    assert models_called(emulator) == [SDXL, CORE, ULTRA]
    assert emulator.calls.paid == 0


CLAUDE_FAILS = ["429", "500", "503", "hang", "drop", "empty", "text-only", "retired"]


@pytest.mark.parametrize("kind", CLAUDE_FAILS)
@pytest.mark.parametrize("language", [{}, {"prompt_language": "en"}], ids=["unsaid", "en"])
async def test_a_failed_rewrite_does_not_cost_an_english_prompt_its_picture(
    emulator: Emulator, bedrock: Bedrock, kind: Any, language: dict[str, Any]
) -> None:
    emulator.troubles.set(kind, vendor="claude")

    answer = await generate(emulator, bedrock, regen_prompt=True, **language)

    assert (answer.enhanced_prompt, answer.metadata.prompt_enhanced) == ("a cat", False)
    assert emulator.calls.paid == 1


@pytest.mark.parametrize(
    "body",
    [
        "<html>a proxy's page</html>",
        {},
        {"type": "message", "role": "assistant", "content": None, "stop_reason": "end_turn"},
        {"type": "message", "role": "assistant", "content": ["a cat"], "stop_reason": "end_turn"},
        {"type": "message", "content": [{"type": "text", "text": None}], "stop_reason": "end_turn"},
        {"type": "message", "content": {"type": "text"}, "stop_reason": 7},
        [1, 2],
        None,
    ],
    ids=repr,
)
async def test_a_200_that_is_no_message_does_not_cost_the_picture(
    emulator: Emulator, bedrock: Bedrock, body: Any
) -> None:
    emulator.troubles.set("answer", vendor="claude", arg={"status": 200, "body": body}, times=2)

    answer = await generate(emulator, bedrock, regen_prompt=True)
    assert (answer.enhanced_prompt, answer.metadata.prompt_enhanced) == ("a cat", False)

    with pytest.raises(UpstreamFailed):
        await generate(emulator, bedrock, prompt=VIETNAMESE, regen_prompt=True, prompt_language="vi")


LONG = "x" * 600


async def test_who_takes_the_negative_prompt_draws(emulator: Emulator, bedrock: Bedrock) -> None:
    """Titan accepts 512 characters of it. It makes no difference whether Titan is still served."""
    wish: dict[str, Any] = {"mode": "img2img", "init_image": init_image(), "negative_prompt": LONG}

    answers = [await generate(emulator, bedrock, **wish)]
    emulator.troubles.set("retired", vendor="bedrock", model=TITAN)
    answers.append(await generate(emulator, bedrock, **wish))

    assert [(one.metadata.model, one.metadata.requested_model) for one in answers] == [(NOVA, TITAN)] * 2
    assert TITAN not in models_called(emulator)


async def test_nobody_is_paid_for_a_negative_prompt_that_nobody_takes(
    emulator: Emulator, bedrock: Bedrock
) -> None:
    wish: dict[str, Any] = {"mode": "img2img", "init_image": init_image(), "negative_prompt": LONG}

    with pytest.raises(InvalidGen, match="Invalid negative_prompt"):
        await generate(emulator, bedrock, chain=Chain(CATALOGUE, follow=False), regen_prompt=True, **wish)

    assert emulator.calls.list() == ()


@pytest.mark.parametrize("kind", CLAUDE_FAILS)
async def test_a_failed_translation_stops_before_anything_is_paid(
    emulator: Emulator, bedrock: Bedrock, kind: Any
) -> None:
    emulator.troubles.set(kind, vendor="claude")

    with pytest.raises(UpstreamFailed):
        await generate(emulator, bedrock, prompt=VIETNAMESE, regen_prompt=True, prompt_language="vi")

    assert {call.vendor for call in emulator.calls.list()} == {"claude"}
    assert emulator.calls.paid == 0


async def test_a_damaged_picture_is_refused_before_anything_is_asked(
    emulator: Emulator, bedrock: Bedrock
) -> None:
    damaged = init_image()[:4000]

    with pytest.raises(InvalidGen, match="Invalid init_image"):
        await generate(emulator, bedrock, mode="img2img", init_image=damaged, regen_prompt=True)

    assert not emulator.calls.list()


class Echo:
    """A provider whose picture is the init_image that it was given."""

    async def run(self, request: GenRequest, model: Model, /) -> Generation:
        assert isinstance(request, Img2Img)
        return Generation((request.init_image,))

    async def aclose(self) -> None: ...


async def given_to_the_provider(emulator: Emulator, data: bytes, **fields: Any) -> Picture:
    image = base64.b64encode(data).decode()
    return picture_of(await generate(emulator, Echo(), mode="img2img", init_image=image, **fields))


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ("1:1", (1024, 1024)),
        ("16:9", (1216, 640)),
        ("9:16", (640, 1216)),
        ("3:2", (1152, 768)),
        ("3:5", (768, 1280)),
    ],
)
async def test_auto_resize_fits_the_documents_table(
    emulator: Emulator, ratio: str, size: tuple[int, int]
) -> None:
    photo = encode(Image.new("RGB", (4032, 3024), "red"), "JPEG")

    picture = await given_to_the_provider(emulator, photo, auto_resize=True, aspect_ratio=ratio)

    assert picture.size == size


async def test_a_phones_orientation_is_applied_and_its_metadata_is_not_passed_on(emulator: Emulator) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "at home"

    picture = await given_to_the_provider(emulator, encode(Image.new("RGB", (640, 512)), "JPEG", exif=exif))

    assert picture.size == (512, 640)
    assert b"at home" not in picture.data


async def test_a_plain_picture_is_given_as_it_is(emulator: Emulator) -> None:
    data = encode(Image.new("RGB", (640, 512)), "PNG")

    assert (await given_to_the_provider(emulator, data)).data == data


async def test_a_hanging_claude_holds_up_nobody_else(emulator: Emulator, bedrock: Bedrock) -> None:
    emulator.troubles.set("hang", vendor="claude")
    claude = Claude(via="anthropic", api_key="emulated", base_url=emulator.http_url)
    await claude.connected()
    gen = gen_of(bedrock, claude, Chain(CATALOGUE), places=1)
    wish = {"mode": "text2img", "prompt": "a cat"}
    rewriting = read_gen({**wish, "regen_prompt": True}, text=False)
    hanging = asyncio.create_task(gen.make(rewriting))
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: len(calls) > 0)

    plain = await gen.make(read_gen(wish, text=False))
    unimproved = await gen.make(rewriting)  # all places for rewrites are taken

    assert not hanging.done()
    assert [one.enhanced_prompt for one in (plain, unimproved, await hanging)] == ["a cat"] * 3
    await claude.aclose()


async def test_a_cancelled_request_stops_its_rewrite(emulator: Emulator, bedrock: Bedrock) -> None:
    emulator.troubles.set("hang", vendor="claude")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await generate(emulator, bedrock, regen_prompt=True)
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.cancelled for call in calls))

    assert models_called(emulator) == [SONNET4]


async def test_a_blurred_picture_is_never_delivered(emulator: Emulator, bedrock: Bedrock) -> None:
    with pytest.raises(SafetyBlocked) as blocked:
        await generate(emulator, bedrock, prompt="a cat #trouble:blocked-output", regen_prompt=True)

    assert isinstance(blocked.value, GatewayError)
    assert blocked.value.block.hint == "Rephrase the prompt and try again"
