"""A part of a batch fails: what was made is kept, and the rest is told."""

import zlib
from collections.abc import AsyncIterator
from typing import Any

import pybase64
import pytest
from PIL import Image

from app.contract import errors
from app.contract.image import ProductRecontext, VirtualTryOn
from app.contract.references import ImageEdit
from app.contract.safety import block
from app.emulator.server import Emulator
from app.emulator.trouble import Kind
from app.pictures.blob import Blobs
from app.pictures.picture import Picture
from app.providers.vertex.samples import gathered
from tests.support.vertex_provider import CATALOGUE, GEMINI, IMAGEN, Caller, calling, data, encoded

pytestmark = pytest.mark.anyio

BLOCKED = block("Support codes: 56562880")
WHOLE = encoded(Image.new("RGB", (40, 30), "red"))
BROKEN = "the picture in the answer was broken"
NOT_MADE = "the picture could not be made"


@pytest.fixture
async def caller(emulator: Emulator) -> AsyncIterator[Caller]:
    async with calling(emulator) as caller:
        yield caller


@pytest.fixture
def picture(blobs: Blobs) -> Picture:
    return Picture(blobs.of(b"any"), "image/png", (1, 1))


def cut(png: str) -> str:
    return pybase64.b64encode_as_string(pybase64.b64decode(png)[:-20])


def scrambled(png: str) -> str:
    """The PNG with pixels that cannot be unpacked, in chunks that are whole."""
    file = pybase64.b64decode(png)
    at = file.index(b"IDAT")
    length = int.from_bytes(file[at - 4 : at])
    chunk = b"IDAT" + bytes(length)
    rest = file[at + 4 + length + 4 :]
    return pybase64.b64encode_as_string(file[:at] + chunk + zlib.crc32(chunk).to_bytes(4) + rest)


def predictions(emulator: Emulator, *samples: Any) -> None:
    emulator.troubles.set("answer", vendor="vertex", arg={"status": 200, "body": {"predictions": [*samples]}})


def sample(emulator: Emulator, data: str) -> None:
    """Gemini's next answer has this picture."""
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    body = {"candidates": [{"finishReason": "STOP", "content": {"parts": [part]}}]}
    emulator.troubles.set("answer", vendor="vertex", arg={"status": 200, "body": body})


# ── What is told ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (errors.RateLimited(7, by_vendor=True), "the vendor's quota is used up"),
        (errors.RateLimited(7), "too many of your calls are under way"),
        (errors.UpstreamUnavailable(retry_after=7), "the vendor was unavailable"),
        (errors.Busy(retry_after=7), "the gateway was overloaded"),
        (errors.UpstreamTimeout("secret"), "no answer in time"),
        (errors.BrokenPicture("secret"), BROKEN),
        (errors.UpstreamFailed("secret"), NOT_MADE),
        (errors.ModelGone("secret"), NOT_MADE),
        (errors.InvalidRequest("secret"), NOT_MADE),
    ],
)
def test_a_lost_sample_has_a_sentence(failure: errors.GatewayError, sentence: str, picture: Picture) -> None:
    made = gathered([failure, picture, failure])
    assert (made.pictures, made.filtered, made.failed) == ((picture,), (), (sentence, sentence))


def test_a_blocked_sample_is_filtered_and_not_failed(picture: Picture) -> None:
    made = gathered([errors.SafetyBlocked(BLOCKED), picture])
    assert (made.filtered, made.failed) == ((BLOCKED,), ())


ORDER: list[errors.GatewayError] = [
    errors.ModelGone("a model"),
    errors.InvalidRequest("no"),
    errors.SafetyBlocked(BLOCKED),
    errors.RateLimited(7, by_vendor=True),
    errors.UpstreamUnavailable(retry_after=7),
    errors.UpstreamTimeout(),
    errors.BrokenPicture(),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_if_all_are_lost_the_most_telling_failure_is_raised(first: int) -> None:
    with pytest.raises(type(ORDER[first])) as raised:
        gathered([*reversed(ORDER[first:]), *ORDER[first:]])
    assert type(raised.value) is type(ORDER[first])


@pytest.mark.parametrize("kind", [errors.RateLimited, errors.UpstreamUnavailable])
def test_of_several_pauses_the_longest_is_told(
    kind: type[errors.RateLimited] | type[errors.UpstreamUnavailable],
) -> None:
    with pytest.raises(kind) as raised:
        gathered([kind(retry_after=seconds) for seconds in (7, 60, 30)])
    assert vars(raised.value)["retry_after"] == 60


def test_several_blocks_are_told_as_one() -> None:
    unexplained = errors.SafetyBlocked(block())
    unexplained.vendor_code = "INVALID_ARGUMENT"
    with pytest.raises(errors.SafetyBlocked) as raised:
        gathered([unexplained, *(errors.SafetyBlocked(block(code)) for code in ("12345678", "56562880"))])
    assert raised.value.block == block("12345678, 56562880")
    assert raised.value.block.category == "Violence"
    assert raised.value.vendor_code == "INVALID_ARGUMENT"


def test_no_outcome_is_a_block() -> None:
    with pytest.raises(errors.SafetyBlocked):
        gathered([])


def test_a_mistake_of_the_program_is_raised_whatever_was_made(picture: Picture) -> None:
    with pytest.raises(ZeroDivisionError):
        gathered([picture, ZeroDivisionError()])


# ── One call, several samples ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        pytest.param({"bytesBase64Encoded": cut(WHOLE)}, BROKEN, id="cut off"),
        pytest.param({"bytesBase64Encoded": "AAAA"}, BROKEN, id="no picture"),
        pytest.param({"bytesBase64Encoded": "%" * 9000}, BROKEN, id="no base64"),
        pytest.param({"bytesBase64Encoded": ""}, BROKEN, id="empty"),
        pytest.param({"bytesBase64Encoded": None}, BROKEN, id="null"),
        pytest.param({"raiFilteredReason": 5}, NOT_MADE, id="another reason"),
        pytest.param("no", NOT_MADE, id="another shape"),
    ],
)
async def test_three_of_four_are_answered(
    bad: Any, sentence: str, place: int, caller: Caller, emulator: Emulator
) -> None:
    samples = [{"bytesBase64Encoded": WHOLE, "mimeType": "image/png"} for _ in range(3)]
    predictions(emulator, *samples[:place], bad, *samples[place:])
    made = await caller.run(caller.text_to_image(sampleCount=4), IMAGEN)
    assert [data(one) for one in made.pictures] == [pybase64.b64decode(WHOLE)] * 3
    assert (made.filtered, made.failed) == ((), (sentence,))


@pytest.mark.parametrize("operation", ["virtual-try-on", "product-recontext"])
async def test_try_on_and_recontext_do_the_same(operation: str, caller: Caller, emulator: Emulator) -> None:
    reason = {"raiFilteredReason": "Support codes: 56562880"}
    predictions(emulator, {"bytesBase64Encoded": cut(WHOLE)}, {"bytesBase64Encoded": WHOLE}, reason)
    request: VirtualTryOn | ProductRecontext
    if operation == "virtual-try-on":
        request = caller.read(
            VirtualTryOn, {"personImage": WHOLE, "productImages": [WHOLE], "sampleCount": 3}
        )
    else:
        request = caller.read(ProductRecontext, {"productImages": [WHOLE], "sampleCount": 3})
    made = await caller.run(request, CATALOGUE[CATALOGUE.defaults[request.operation]])
    assert (len(made.pictures), made.filtered, made.failed) == (1, (BLOCKED,), (BROKEN,))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param([], errors.BrokenPicture, id="all broken"),
        pytest.param([{"raiFilteredReason": "Removed."}], errors.SafetyBlocked, id="one blocked"),
    ],
)
async def test_without_a_picture_it_is_no_success(
    more: list[Any], expected: type[errors.GatewayError], caller: Caller, emulator: Emulator
) -> None:
    predictions(emulator, {"bytesBase64Encoded": cut(WHOLE)}, {"bytesBase64Encoded": "AAAA"}, *more)
    with pytest.raises(expected):
        await caller.run(caller.text_to_image(sampleCount=4), IMAGEN)


# ── One call a sample ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "arg", "sentence"),
    [
        ("429", 60, "the vendor's quota is used up"),
        ("503", 60, "the vendor was unavailable"),
        ("500", None, NOT_MADE),
        ("drop", None, NOT_MADE),
        ("retired", None, NOT_MADE),
    ],
)
async def test_the_other_samples_are_answered(
    kind: Kind, arg: int | None, sentence: str, caller: Caller, emulator: Emulator
) -> None:
    emulator.troubles.set(kind, vendor="vertex", times=1, arg=arg)
    made = await caller.run(caller.text_to_image(sampleCount=4), GEMINI)
    assert (len(made.pictures), made.filtered, made.failed) == (3, (), (sentence,))
    assert len(emulator.calls.list()) == 4


async def test_a_sample_that_is_late_does_not_cost_the_others(caller: Caller, emulator: Emulator) -> None:
    emulator.troubles.set("hang", vendor="vertex", times=1)
    made = await caller.run(caller.text_to_image(sampleCount=3), GEMINI, seconds=3)
    assert (len(made.pictures), made.failed) == (2, ("no answer in time",))


@pytest.mark.parametrize("spoil", [cut, scrambled])
@pytest.mark.parametrize("wanted", ["image/png", "image/jpeg"])
async def test_a_broken_sample_does_not_cost_the_others(
    spoil: Any, wanted: str, caller: Caller, emulator: Emulator
) -> None:
    """Scrambled pixels are only found by converting them."""
    sample(emulator, spoil(WHOLE))
    request = caller.text_to_image(sampleCount=3, outputOptions={"mimeType": wanted})
    made = await caller.run(request, GEMINI)
    lost = 0 if spoil is scrambled and wanted == "image/png" else 1
    assert ({one.mime_type for one in made.pictures}, len(made.pictures)) == ({wanted}, 3 - lost)
    assert made.failed == (BROKEN,) * lost


def masked_edit(caller: Caller, count: int) -> ImageEdit:
    mask = encoded(Image.new("L", (40, 30), "white"))
    places = [("REFERENCE_TYPE_RAW", WHOLE), ("REFERENCE_TYPE_MASK", mask)]
    references = [
        {"referenceType": kind, "referenceId": number, "bytesBase64Encoded": picture}
        for number, (kind, picture) in enumerate(places, 1)
    ]
    references[1]["maskImageConfig"] = {"maskMode": "MASK_MODE_USER_PROVIDED"}
    body = {"prompt": "a car", "referenceImages": references, "editMode": "EDIT_MODE_INPAINT_INSERTION"}
    return caller.read(ImageEdit, {**body, "sampleCount": count})


async def test_a_sample_that_cannot_be_put_under_the_mask_does_not_cost_the_others(
    caller: Caller, emulator: Emulator
) -> None:
    sample(emulator, scrambled(WHOLE))
    made = await caller.run(masked_edit(caller, 3), GEMINI)
    assert [one.size for one in made.pictures] == [(40, 30)] * 2
    assert (made.failed, made.mask_applied) == ((BROKEN,), "exact")


async def test_edits_that_all_cannot_be_used_are_a_failure(caller: Caller, emulator: Emulator) -> None:
    for _ in range(2):
        sample(emulator, scrambled(WHOLE))
    with pytest.raises(errors.BrokenPicture):
        await caller.run(masked_edit(caller, 2), GEMINI)


async def test_if_all_are_lost_in_different_ways_one_is_told(caller: Caller, emulator: Emulator) -> None:
    sample(emulator, cut(WHOLE))
    emulator.troubles.set("500", vendor="vertex", times=1)
    emulator.troubles.set("429", vendor="vertex", times=1, arg=60)
    with pytest.raises(errors.RateLimited) as raised:
        await caller.run(caller.text_to_image(sampleCount=3), GEMINI)
    assert (raised.value.retry_after, raised.value.by_vendor) == (60, True)
