"""/gen below HTTP: real SDKs on the emulator, the chain of models, and a rewrite that may fail."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import anthropic
import pytest
from PIL import Image

from app.contract.errors import GatewayError, InvalidRequest, SafetyBlocked, UpstreamFailed
from app.contract.gen import GenRequest, Img2Img, InvalidGen, read_gen
from app.contract.models import Model, load_catalogue
from app.emulator.server import Emulator
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import Picture
from app.ports import Call, Generation
from app.providers.bedrock.client import Bedrock
from app.providers.claude import Claude, Platform
from app.providers.transport import Transport
from app.services.admission import Admission
from app.services.chain import Chain
from app.services.gallery import Gallery
from app.services.gen import Gen
from app.services.made import Made
from tests.support.fake_wish import no_finder
from tests.support.provider_call import call

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
SDXL, CORE, ULTRA = (model.id for model in CATALOGUE.chain(CATALOGUE.defaults["text2img"]))
TITAN, NOVA, SD35 = (model.id for model in CATALOGUE.chain(CATALOGUE.defaults["img2img"]))
SONNET4, SONNET46, HAIKU = (model.id for model in CATALOGUE.chain(CATALOGUE.defaults["rewrite"]))
QUALITY = "highly detailed, professional composition, soft natural light, 8k"
VIETNAMESE = "một cô gái áo dài đang đi trên cầu Nhật Bản, hoàng hôn đẹp"
ENGLISH = f"a young woman in an ao dai walking on the Japanese Bridge, beautiful sunset, {QUALITY}"


class Nowhere:
    """A store for tests that store nothing."""

    async def save(
        self,
        name: str,
        picture: Picture,
        /,
        *,
        bucket: str | None = None,
        again: bool = False,
        trouble: str | None = None,
    ) -> str:
        raise AssertionError("nothing asked for a URL")

    def url(self, name: str, /, *, bucket: str) -> str:
        raise AssertionError("nothing asked for a URL")

    def blobs(self, spare: Blobs, /) -> Blobs:
        raise AssertionError("nothing asked for a URL")

    async def land(self, blob: Blob, bucket: str, name: str, /) -> Path:
        raise AssertionError("nothing asked for a URL")

    async def find(self, bucket: str, stem: str, /) -> list[str]:
        raise AssertionError("nothing asked for a URL")

    def remove(self, path: Path, /) -> None:
        raise AssertionError("nothing asked for a URL")

    def release(self, path: Path, /) -> None:
        raise AssertionError("nothing asked for a URL")

    async def ready(self) -> None:
        raise AssertionError("nothing asked for a URL")


assert anthropic  # imported here, so that it is not on the time of the first rewrite


@dataclass(frozen=True)
class Caller:
    """Someone with requests to /gen, below HTTP. What they get lives as long as `blobs`."""

    gen: Gen
    blobs: Blobs

    async def make(self, **fields: Any) -> Made:
        request = read_gen({"mode": "text2img", "prompt": "a cat"} | fields, self.blobs, text=False)
        return await self.gen.make(request, call(self.blobs))

    def having(self, **parts: Any) -> "Caller":
        """The same with other parts of Gen."""
        return Caller(replace(self.gen, **parts), self.blobs)


@pytest.fixture
async def caller(emulator: Emulator, blobs: Blobs) -> AsyncIterator[Caller]:
    """A caller whose prompts and pictures the emulator makes."""
    transport, admission = Transport(), Admission(64, 64)
    bedrock = Bedrock(
        transport=transport,
        admission=admission,
        regions={model.location for model in CATALOGUE.model if model.vendor == "aws"},
        endpoint_url=emulator.http_url,
        keys=("emulated", "emulated"),
        pause_seconds=0.01,
    )
    claude = Claude(
        Platform("anthropic", "emulated", emulator.http_url),
        admission=admission,
        pause_seconds=0.01,
    )
    gen = Gen(
        providers={"aws": bedrock},
        rewriter=claude,
        gallery=Gallery(Nowhere(), Nowhere(), "none"),
        chain=Chain(CATALOGUE),
        rewrite_chain=Chain(CATALOGUE),
        catalogue=CATALOGUE,
        finder=no_finder(blobs),
    )
    yield Caller(gen, blobs)
    await claude.aclose()
    await transport.aclose()


def init_image(**options: Any) -> str:
    out = BytesIO()
    Image.effect_noise((512, 512), 50).convert("RGB").save(out, "PNG", **options)
    return base64.b64encode(out.getvalue()).decode()


def models_called(emulator: Emulator) -> list[str]:
    return [call.model for call in emulator.calls.list()]


async def test_a_prompt_is_drawn_as_it_is(emulator: Emulator, caller: Caller) -> None:
    made = await caller.make(prompt=" a cat ")

    assert (made.prompt, made.prompt_enhanced) == ("a cat", False)
    assert (made.model.id, made.substituted) == (SDXL, None)
    assert [picture.size for picture in made.pictures] == [(1024, 1024)]
    assert models_called(emulator) == [SDXL]


async def test_a_vietnamese_prompt_is_drawn_in_english(emulator: Emulator, caller: Caller) -> None:
    made = await caller.make(prompt=VIETNAMESE, regen_prompt=True, prompt_language="vi")

    assert (made.prompt, made.prompt_enhanced) == (ENGLISH, True)
    claude, sdxl = emulator.calls.list()
    assert claude.body["messages"][0]["content"] == (
        f"<language>vi</language>\n<characters>2000</characters>\n<prompt>{VIETNAMESE}</prompt>"
    )
    assert sdxl.body["text_prompts"][0]["text"] == ENGLISH


async def test_a_vietnamese_prompt_is_not_translated_unasked(emulator: Emulator, caller: Caller) -> None:
    made = await caller.make(prompt=VIETNAMESE, prompt_language="vi")

    assert (made.prompt, made.prompt_enhanced) == (VIETNAMESE, False)
    assert models_called(emulator) == [SDXL]


async def test_a_long_prompt_is_cut_to_what_the_model_takes_and_said_so(
    emulator: Emulator, caller: Caller
) -> None:
    made = await caller.make(mode="img2img", prompt="cat " * 200, init_image=init_image())

    assert made.prompt == ("cat " * 128).strip()
    assert emulator.calls.list()[0].body["imageVariationParams"]["text"] == made.prompt


async def test_models_that_are_gone_are_followed_and_remembered(emulator: Emulator, caller: Caller) -> None:
    for gone in (SDXL, TITAN, NOVA, SONNET4):
        emulator.troubles.set("retired", model=gone)

    first = await caller.make(regen_prompt=True)
    calls_of_the_first = models_called(emulator)
    emulator.calls.clear()
    second = await caller.make(regen_prompt=True)

    for made in (first, second):
        assert (made.model.id, made.substituted) == (CORE, SDXL)
    assert calls_of_the_first == [SONNET4, SONNET46, SDXL, CORE]
    assert models_called(emulator) == [SONNET46, CORE]


async def test_the_prompt_grows_with_the_successors_patience(emulator: Emulator, caller: Caller) -> None:
    for gone in (TITAN, NOVA):
        emulator.troubles.set("retired", model=gone)
    prompt = ("cat " * 1000).strip()

    made = await caller.make(mode="img2img", prompt=prompt, init_image=init_image())

    assert (made.model.id, made.prompt) == (SD35, prompt)
    assert emulator.calls.paid == 1


async def test_a_retired_model_is_refused_where_successors_are_not_followed(
    emulator: Emulator, caller: Caller
) -> None:
    emulator.troubles.set("retired", model=SDXL)

    with pytest.raises(InvalidRequest, match=CORE):
        await caller.having(chain=Chain(CATALOGUE, follow=False)).make()


async def test_nobody_is_paid_to_rewrite_for_a_model_that_is_known_to_be_retired(
    emulator: Emulator, caller: Caller
) -> None:
    emulator.troubles.set("retired", model=SDXL)
    caller = caller.having(chain=Chain(CATALOGUE, follow=False))
    with pytest.raises(InvalidRequest, match=CORE):
        await caller.make()
    emulator.calls.clear()

    with pytest.raises(InvalidRequest, match=CORE):
        await caller.make(regen_prompt=True)

    assert emulator.calls.list() == ()


async def test_no_model_left_is_a_failure(emulator: Emulator, caller: Caller) -> None:
    emulator.troubles.set("retired", vendor="bedrock")

    with pytest.raises(UpstreamFailed):
        await caller.make()

    assert models_called(emulator) == [SDXL, CORE, ULTRA]
    assert emulator.calls.paid == 0


CLAUDE_FAILS = ["429", "500", "503", "hang", "drop", "empty", "text-only", "retired"]


@pytest.mark.parametrize("kind", CLAUDE_FAILS)
@pytest.mark.parametrize("language", [{}, {"prompt_language": "en"}], ids=["unsaid", "en"])
async def test_a_failed_rewrite_does_not_cost_an_english_prompt_its_picture(
    emulator: Emulator, caller: Caller, kind: Any, language: dict[str, Any]
) -> None:
    emulator.troubles.set(kind, vendor="claude")
    if kind == "hang":
        caller = caller.having(rewrite_seconds=1)

    made = await caller.make(regen_prompt=True, **language)

    assert (made.prompt, made.prompt_enhanced) == ("a cat", False)
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
    emulator: Emulator, caller: Caller, body: Any
) -> None:
    emulator.troubles.set("answer", vendor="claude", arg={"status": 200, "body": body}, times=2)

    made = await caller.make(regen_prompt=True)
    assert (made.prompt, made.prompt_enhanced) == ("a cat", False)

    with pytest.raises(UpstreamFailed):
        await caller.make(prompt=VIETNAMESE, regen_prompt=True, prompt_language="vi")


LONG = "x" * 600


async def test_who_takes_the_negative_prompt_draws(emulator: Emulator, caller: Caller) -> None:
    """Titan accepts 512 characters of it. It makes no difference whether Titan is still served."""
    wish: dict[str, Any] = {"mode": "img2img", "init_image": init_image(), "negative_prompt": LONG}

    made = [await caller.make(**wish)]
    emulator.troubles.set("retired", vendor="bedrock", model=TITAN)
    made.append(await caller.make(**wish))

    assert [(one.model.id, one.substituted) for one in made] == [(NOVA, TITAN)] * 2
    assert TITAN not in models_called(emulator)


async def test_nobody_is_paid_for_a_negative_prompt_that_nobody_takes(
    emulator: Emulator, caller: Caller
) -> None:
    wish: dict[str, Any] = {"mode": "img2img", "init_image": init_image(), "negative_prompt": LONG}

    with pytest.raises(InvalidGen, match="Invalid negative_prompt"):
        await caller.having(chain=Chain(CATALOGUE, follow=False)).make(regen_prompt=True, **wish)

    assert emulator.calls.list() == ()


@pytest.mark.parametrize("kind", CLAUDE_FAILS)
async def test_a_failed_translation_stops_before_anything_is_paid(
    emulator: Emulator, caller: Caller, kind: Any
) -> None:
    emulator.troubles.set(kind, vendor="claude")
    if kind == "hang":
        caller = caller.having(rewrite_seconds=1)

    with pytest.raises(UpstreamFailed):
        await caller.make(prompt=VIETNAMESE, regen_prompt=True, prompt_language="vi")

    assert {call.vendor for call in emulator.calls.list()} == {"claude"}
    assert emulator.calls.paid == 0


async def test_a_damaged_picture_is_refused_before_anything_is_asked(
    emulator: Emulator, caller: Caller
) -> None:
    damaged = init_image()[:4000]

    with pytest.raises(InvalidGen, match="Invalid init_image"):
        await caller.make(mode="img2img", init_image=damaged, regen_prompt=True)

    assert not emulator.calls.list()


class Echo:
    """A provider whose picture is the init_image that it was given."""

    async def run(self, request: GenRequest, model: Model, call: Call, /) -> Generation:
        assert isinstance(request, Img2Img)
        return Generation((request.init_image,))


async def given_to_the_provider(caller: Caller, data: bytes, **fields: Any) -> Picture:
    image = base64.b64encode(data).decode()
    made = await caller.having(providers={"aws": Echo()}).make(mode="img2img", init_image=image, **fields)
    (picture,) = made.pictures
    return picture


def data(picture: Picture) -> bytes:
    return b"".join(picture.blob.pieces())


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


async def test_a_phones_orientation_is_applied_and_its_metadata_is_not_passed_on(caller: Caller) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "at home"

    picture = await given_to_the_provider(caller, encode(Image.new("RGB", (640, 512)), "JPEG", exif=exif))

    assert picture.size == (512, 640)
    assert b"at home" not in data(picture)


async def test_a_plain_picture_is_given_as_it_is(caller: Caller) -> None:
    plain = encode(Image.new("RGB", (640, 512)), "PNG")

    assert data(await given_to_the_provider(caller, plain)) == plain


async def test_a_hanging_claude_holds_up_nobody_else(emulator: Emulator, caller: Caller) -> None:
    emulator.troubles.set("hang", vendor="claude")
    caller = caller.having(rewrite_seconds=1)
    hanging = asyncio.create_task(caller.make(regen_prompt=True))
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: len(calls) > 0)

    plain = await caller.make()

    assert not hanging.done()
    assert [one.prompt for one in (plain, await hanging)] == ["a cat"] * 2


async def test_a_cancelled_request_stops_its_rewrite(emulator: Emulator, caller: Caller) -> None:
    emulator.troubles.set("hang", vendor="claude")

    making = asyncio.create_task(caller.make(regen_prompt=True))
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: len(calls) > 0)
    making.cancel()
    await asyncio.wait((making,))
    await asyncio.to_thread(emulator.calls.wait_for, lambda calls: all(call.cancelled for call in calls))

    assert models_called(emulator) == [SONNET4]


async def test_a_blurred_picture_is_never_delivered(emulator: Emulator, caller: Caller) -> None:
    with pytest.raises(SafetyBlocked) as blocked:
        await caller.make(prompt="a cat #trouble:blocked-output", regen_prompt=True)

    assert isinstance(blocked.value, GatewayError)
    assert blocked.value.block.hint == "Rephrase the prompt and try again"
