"""The painter: deterministic, of the right size, and true to masks."""

import hashlib
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from app.emulator.painter import (
    dilate,
    encode,
    mix,
    paint,
    recontext,
    redraw,
    repaint,
    try_on,
    upscale,
)

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
RED = Image.new("RGB", (40, 30), "red")


@st.composite
def masks(draw: st.DrawFn) -> Image.Image:
    width, height = draw(SIZES)
    pixels = st.sampled_from([0, 0, 0, 0, 1, 255])
    values = draw(st.lists(pixels, min_size=width * height, max_size=width * height))
    return Image.frombytes("L", (width, height), bytes(values))


@settings(max_examples=50, deadline=None)
@given(prompt=st.text(max_size=80), size=SIZES, seed=st.integers(0, 2**31))
def test_painting_is_the_same_for_the_same_prompt_and_seed(
    prompt: str, size: tuple[int, int], seed: int
) -> None:
    first, second = (paint(prompt, size, seed=seed) for _ in range(2))
    assert (first.size, first.mode, first.tobytes()) == (size, "RGB", second.tobytes())


def test_painting_differs_by_prompt_and_by_seed() -> None:
    painted = [paint("a pear", (64, 64)), paint("a pear", (64, 64), seed=1), paint("an apple", (64, 64))]
    assert len({hashlib.sha256(each.tobytes()).digest() for each in painted}) == 3


def test_a_prompt_may_contain_a_lone_surrogate() -> None:
    assert paint("a \ud800 pear", (64, 64)).size == (64, 64)


@settings(max_examples=50, deadline=None)
@given(mask=masks(), share=st.floats(0, 1))
def test_dilated_mask_is_the_square_neighbourhood_of_its_pixels(mask: Image.Image, share: float) -> None:
    reach = round(share * max(mask.size))
    width, height = mask.size
    given = [(x, y) for x in range(width) for y in range(height) if mask.getpixel((x, y))]
    wanted = Image.new("L", mask.size, 0)
    for x, y in given:
        wanted.paste(255, (x - reach, y - reach, x + reach + 1, y + reach + 1))
    assert dilate(mask, share).tobytes() == wanted.tobytes()


@settings(max_examples=50, deadline=None)
@given(mask=masks())
def test_repainting_changes_no_pixel_outside_the_mask(mask: Image.Image) -> None:
    source = paint("before", mask.size)
    changed = ImageChops.difference(repaint(source, mask, "after"), source)
    outside = mask.point(lambda value: 0 if value else 255)
    assert Image.composite(changed, Image.new("RGB", mask.size), outside).getbbox() is None


def test_repainting_covers_the_whole_mask() -> None:
    whole = Image.new("L", RED.size, 1)
    assert repaint(RED, whole, "after", seed=3).tobytes() == paint("after", RED.size, seed=3).tobytes()


@pytest.mark.parametrize(
    ("made", "size"),
    [
        pytest.param(upscale(RED, 3), (120, 90), id="upscale"),
        pytest.param(mix(RED, "a pear", 0.5, 1), (40, 30), id="mix"),
        pytest.param(try_on(RED, [RED, RED]), (40, 30), id="try-on"),
        pytest.param(recontext([RED, RED, RED], "a pear", (90, 60)), (90, 60), id="recontext"),
        pytest.param(redraw([RED, RED], "a pear", (60, 90)), (60, 90), id="redraw"),
        pytest.param(try_on(Image.new("RGB", (1, 1)), [RED]), (1, 1), id="one pixel"),
    ],
)
def test_size_is_as_promised(made: Image.Image, size: tuple[int, int]) -> None:
    assert (made.size, made.mode) == (size, "RGB")


def test_source_is_left_as_it_was() -> None:
    before = RED.tobytes()
    mix(RED, "a pear", 1, 1)
    try_on(RED, [RED])
    upscale(RED, 1)
    assert RED.tobytes() == before


def test_an_upscaled_picture_shows_the_factor() -> None:
    """Two upscaled red pictures of the same size differ only where the factor is written."""
    twice, threefold = upscale(RED.resize((120, 120)), 2), upscale(RED.resize((80, 80)), 3)
    changed = ImageChops.difference(twice, threefold).getbbox()
    assert changed is not None
    assert (changed[2] - changed[0], changed[3] - changed[1]) < (twice.width // 10, twice.height // 10)
    assert ImageChops.difference(twice, RED.resize(twice.size)).getbbox() != changed, "and the mark"


@pytest.mark.parametrize(("similarity", "nearer"), [(0.9, "source"), (0.1, "painting")])
def test_mix_keeps_as_much_of_the_source_as_asked(similarity: float, nearer: str) -> None:
    source, painting = Image.new("RGB", (100, 100), "black"), paint("a pear", (100, 100), seed=1)
    middle = (50, 50)
    red = mix(source, "a pear", similarity, 1).getpixel(middle)
    full = painting.getpixel(middle)
    assert isinstance(red, tuple)
    assert isinstance(full, tuple)
    assert (sum(red) < sum(full) / 2) == (nearer == "source")


@pytest.mark.parametrize(
    ("mime_type", "format"), [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP")]
)
def test_encoding_is_of_the_type_asked_for(mime_type: str, format: str) -> None:
    assert Image.open(BytesIO(encode(RED, mime_type))).format == format


def test_better_quality_is_a_larger_file() -> None:
    painted = paint("a pear", (200, 200))
    small, large = (len(encode(painted, "image/jpeg", quality)) for quality in (0, 95))
    assert small < large
