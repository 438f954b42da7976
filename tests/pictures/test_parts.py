"""Files of too many parts are refused before anything opens them; ordinary pictures pass."""

import struct
from contextlib import suppress
from io import BytesIO
from typing import Any, NoReturn
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from app.contract.errors import UpstreamFailed
from app.contract.models import load_catalogue
from app.pictures import parts
from app.pictures.parts import has_too_many_parts
from app.pictures.picture import NotAPicture, PictureTooLarge, recognise
from app.pictures.pixels import normalise
from app.ports import Call
from app.providers.received import received
from tests.pictures.samples import blob, content, encoded, taken
from tests.support.fake_wish import NotedWish
from tools.rig import hostile_files
from tools.rig.hostile_files import GIF, HOSTILE, JPEG, PNG, WEBP, chunk, disposed_gif, segment

pytestmark = pytest.mark.usefixtures("scope")

MODEL = load_catalogue()["imagen-3.0-generate-001"]


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks Pillow to look at a file."""

    def refuse(*args: object, **options: object) -> NoReturn:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(Image, "open", refuse)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("name", HOSTILE)
def test_too_many_parts_are_refused_before_the_file_is_opened(name: str) -> None:
    make, fewest = HOSTILE[name]
    for number in (fewest, fewest * 3):
        with pytest.raises(NotAPicture, match="more than 10000 parts"):
            taken(make(number))


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.anyio
async def test_too_many_parts_are_the_vendors_failure_in_its_picture(name: str) -> None:
    make, fewest = HOSTILE[name]
    given = blob(make(fewest))
    with pytest.raises(UpstreamFailed):
        await received(
            given, Call("ann", "1", answer_by=0, store_by=0, ends=0, blobs=given.scope, wish=NotedWish())
        )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tenth_of_them_is_fine(name: str) -> None:
    make, fewest = HOSTILE[name]
    assert not has_too_many_parts(blob(make(fewest // 10)))


@pytest.mark.parametrize("sides", [(65_535, 65_535), (7_072, 7_072)])
def test_pillow_does_not_fill_a_frame_beyond_the_limit(sides: tuple[int, int]) -> None:
    with (
        mock.patch("PIL.Image.core.fill", side_effect=AssertionError("filled")),
        pytest.raises(PictureTooLarge),
    ):
        recognise(blob(disposed_gif(*sides)))


# ── ordinary pictures ────────────────────────────────────────────────────────────────────────────────────


def _exif(comment: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 1, "a place", 72.5
    exif.get_ifd(0x8769)[0x9286] = comment
    return exif


FLAGS = st.booleans()
BYTES = st.binary(max_size=64).map(lambda some: some * 900)
"""Up to 57,600 bytes, which may look like anything."""
OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "JPEG": st.fixed_dictionaries(
        {"quality": st.integers(1, 100), "progressive": FLAGS, "optimize": FLAGS},
        optional={
            "subsampling": st.sampled_from((0, 1, 2)),
            "restart_marker_blocks": st.integers(1, 9),
            "restart_marker_rows": st.integers(1, 9),
            "icc_profile": BYTES.map(lambda some: some * 4),
            "exif": BYTES.map(_exif),
            "xmp": BYTES,
            "comment": BYTES,
            "dpi": st.just((300, 300)),
        },
    ),
    "MPO": st.fixed_dictionaries({"progressive": FLAGS, "save_all": st.just(True)}),
    "PNG": st.fixed_dictionaries(
        {"compress_level": st.integers(0, 9), "save_all": FLAGS},
        optional={"icc_profile": BYTES, "exif": BYTES.map(_exif), "dpi": st.just((300, 300))},
    ),
    "GIF": st.fixed_dictionaries(
        {"interlace": FLAGS, "save_all": FLAGS, "loop": st.just(0), "disposal": st.integers(0, 3)},
        optional={"comment": BYTES, "duration": st.integers(10, 500)},
    ),
    "WEBP": st.fixed_dictionaries(
        {"lossless": FLAGS, "quality": st.integers(0, 100), "save_all": FLAGS, "method": st.integers(0, 2)},
        optional={"icc_profile": BYTES, "exif": BYTES.map(_exif), "xmp": BYTES},
    ),
}
MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "MPO": ("L", "RGB"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
}


@st.composite
def ordinary_pictures(draw: st.DrawFn) -> bytes:
    """What Pillow writes, in any format and with any options; of noise, which makes long files."""
    format = draw(st.sampled_from(sorted(OPTIONS)))
    options = draw(OPTIONS[format])
    size = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    image = Image.effect_noise(size, draw(st.floats(0, 120))).convert(draw(st.sampled_from(MODES[format])))
    if options.get("save_all"):
        options["append_images"] = [Image.effect_noise(size, 50).convert(image.mode)] * draw(
            st.integers(1, 9)
        )
    if format == "PNG":
        texts = options["pnginfo"] = PngImagePlugin.PngInfo()
        for index in range(draw(st.integers(0, 20))):
            texts.add_text(f"text {index}", draw(st.text(max_size=20)), zip=draw(FLAGS))
    return encoded(image, format, **options)


@settings(deadline=None)
@given(ordinary_pictures())
def test_what_pillow_writes_is_accepted(data: bytes) -> None:
    assert content(taken(data)) == data


LARGE = {
    "photograph of a phone, with all that it adds": lambda: (
        JPEG[:2]
        + segment(0xE1, b"Exif\0\0" + hostile_files.tiff(8_000))
        + b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 9)) + bytes(60_000)) for n in range(9))
        + segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"\xff\xda" * 30_000) * 150
        + segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\4\4" + bytes(6)) * 200)
        + JPEG[2:]
        + bytes(5_000_000)
        + segment(0xFE) * 20_000
    ),
    "second picture of many scans behind the first": lambda: JPEG + hostile_files.small_scans(1_000),
    "scans of 50 megapixels, as of a CMYK encoder": lambda: hostile_files.scans(18, colours=4),
    "restart markers after each block": lambda: (
        JPEG[:-2] + b"".join(b"ab\xff" + bytes((0xD0 + n % 8,)) for n in range(1_000_000)) + JPEG[-2:]
    ),
    "escaped bytes among pixels": lambda: JPEG[:-2] + b"\xff\0" * 5_000_000 + JPEG[-2:],
    "zeros behind a JPEG's pixels": lambda: JPEG + bytes(10_000_000),
    "PNG of chunks of 4 KiB": lambda: PNG[:33] + chunk(b"IDAT", bytes(4_096)) * 5_000 + PNG[-12:],
    "PNG with anything behind it": lambda: PNG + chunk(b"tEXt") * 20_000,
    "PNG with 90 packed texts": lambda: PNG[:33] + chunk(b"zTXt", b"a\0\0x\x9c") * 90 + PNG[33:],
    "GIF of sub-blocks of 254 bytes": lambda: GIF[:-2] + (b"\xfe" + bytes(254)) * 80_000 + GIF[-2:],
    "GIF of 2,000 frames": lambda: hostile_files.OF_GIF["GIF of images"].make(2_000),
    "GIF with anything behind it": lambda: GIF + b"!\xfe\1a\0" * 20_000,
    "WebP with anything behind it": lambda: WEBP + b"abcd\0\0\0\0" * 20_000,
    "WebP of 4,000 frames": lambda: hostile_files.OF_WEBP["WebP of frames"].make(4_000),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_ordinary_programs_write_is_accepted(name: str) -> None:
    data = blob(LARGE[name]())
    recognise(data)
    assert not has_too_many_parts(data)


@pytest.mark.parametrize("window", [1, 2, 3, 256 * 1024])
def test_metadata_are_cut_out_of_scans(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk that counts is the walk that cuts: compressed pixels stay as they are."""
    monkeypatch.setattr(parts, "_WINDOW", window)
    scans = hostile_files.small_scans(5)
    restarts = encoded(Image.effect_noise((99, 99), 90), "JPEG", restart_marker_blocks=1)
    for bare in (scans, restarts):
        with_comments = (
            bare[:20] + segment(0xFE, b"\xff\xda secret") + bare[20:-2] + segment(0xFE) + bare[-2:]
        )
        assert content(normalise(taken(with_comments + b"secret"))) == bare


# ── Pillow and we read the same parts ────────────────────────────────────────────────────────────────────


class Watched(BytesIO):
    """A file that counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


PIECES = {
    PNG[:33]: (
        chunk(b"tEXt", b"a\0"),
        chunk(b"abcd"),
        chunk(b"IDAT"),
        chunk(b"fcTL", bytes(26)),
        PNG[33:-12],
    ),
    JPEG[:2]: (
        segment(0xE0, b"JFIF\0"),
        segment(0xFE),
        struct.pack(">HH", 0xFFFE, 0),
        segment(0xDD, b"\0\0"),
        JPEG[2:-2],
        *(b"\xff" + bytes((marker,)) for marker in (0x00, 0xC8, 0xD0, 0xD8, 0xD9, 0xF0, 0xFF)),
    ),
    GIF[: hostile_files._GIF_IMAGE]: (
        *(b"!" + bytes((label,)) for label in (0x01, 0xF9, 0xFE, 0xFF)),
        b"\x0bNETSCAPE2.0",
        b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0",
        b"!\xfe\1a\0",
        b"\1a",
        b",",
        b";",
        GIF[hostile_files._GIF_IMAGE : -1],
    ),
}
"""Beginnings of files, and what may follow each, sound or not."""


@st.composite
def soups(draw: st.DrawFn) -> bytes:
    """A beginning of a file and then its pieces, each any number of times, among bytes that mean a size."""
    head = draw(st.sampled_from(sorted(PIECES)))
    piece = st.sampled_from(PIECES[head]) | st.sampled_from([b"\0", b"\1", b"\2", b"\xff"])
    repeated = st.tuples(piece, st.sampled_from((1, 2, 3, 3_000)))
    groups = draw(st.lists(repeated, min_size=1, max_size=8))
    return head + b"".join(one * times for one, times in groups)


BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@settings(deadline=None, max_examples=400)
@given(soups())
def test_pillow_does_not_read_more_parts_than_were_counted(data: bytes) -> None:
    """Whatever a file is made of: when it passes, Pillow reads it in a few reads for each part."""
    with mock.patch.object(parts, "MAX_PARTS", 400):
        if has_too_many_parts(blob(data)):
            return
    file = Watched(data)
    with suppress(OSError, SyntaxError, ValueError, *BOMBS), Image.open(file) as image:
        image.load()
    assert file.reads < 5 * 400
