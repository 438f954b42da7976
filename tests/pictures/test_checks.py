"""Whole files pass the check; what is cut off or damaged does not."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from app.pictures.checks import check
from app.pictures.picture import NotAPicture, PictureTooLarge, recognise
from tests.pictures.samples import blob, encoded, noise
from tools.rig import hostile_files
from tools.rig.hostile_files import PNG, chunk, riff, webp, webp_frame

pytestmark = pytest.mark.usefixtures("scope")


def checked(data: bytes) -> None:
    """As a vendor's picture: any size."""
    check(recognise(blob(data)))


def is_whole(data: bytes) -> bool:
    try:
        checked(data)
    except (NotAPicture, PictureTooLarge):
        return False
    return True


def frames(mode: str = "RGB") -> dict[str, Any]:
    return {"save_all": True, "append_images": [noise((24, 20), mode).rotate(180), Image.new(mode, (24, 20))]}


SIZE = (24, 20)
WHOLE: dict[str, bytes] = {
    **{f"PNG {mode}": encoded(noise(SIZE).convert(mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "PNG of 16 bits": encoded(Image.new("I;16", SIZE, 5)),
    "PNG of few colours": encoded(Image.new("P", SIZE, 1)),
    "PNG animated": encoded(noise(SIZE), **frames()),
    "PNG of one pixel": encoded(Image.new("L", (1, 1))),
    "PNG of several IDAT": encoded(Image.effect_noise((500, 300), 90)),
    "PNG with texts": PNG[:33] + chunk(b"tEXt", b"a\0b") + PNG[33:-12] + chunk(b"tEXt", b"a\0b") + PNG[-12:],
    "PNG with something behind it": PNG + b"behind",
    **{f"JPEG {mode}": encoded(noise(SIZE).convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")},
    "JPEG progressive": encoded(noise(SIZE), "JPEG", progressive=True),
    "JPEG with restarts": encoded(noise(SIZE), "JPEG", restart_marker_blocks=1),
    "JPEG with something behind it": encoded(noise(SIZE), "JPEG") + b"behind",
    "JPEG of a phone": encoded(noise(SIZE), "MPO", **frames()),
    "WebP lossy": encoded(noise(SIZE), "WEBP"),
    "WebP lossless": encoded(noise(SIZE), "WEBP", lossless=True),
    "WebP lossy with alpha": encoded(noise(SIZE, "RGBA"), "WEBP"),
    "WebP lossless with alpha": encoded(noise(SIZE, "RGBA"), "WEBP", lossless=True),
    "WebP with metadata": encoded(noise(SIZE), "WEBP", exif=Image.Exif(), xmp=b"odd", icc_profile=b"odd"),
    "WebP animated": encoded(noise(SIZE), "WEBP", **frames()),
    "WebP animated, lossless": encoded(noise(SIZE), "WEBP", lossless=True, **frames()),
    "WebP animated with alpha": encoded(noise(SIZE, "RGBA"), "WEBP", **frames("RGBA")),
    "WebP with something behind it": encoded(noise(SIZE), "WEBP") + b"behind",
    "WebP of one pixel": encoded(Image.new("RGB", (1, 1)), "WEBP"),
    "GIF": encoded(noise(SIZE), "GIF"),
    "GIF interlaced": encoded(noise(SIZE), "GIF", interlace=True),
    "GIF animated": encoded(noise(SIZE), "GIF", **frames(), loop=0, comment=b"a"),
    "GIF of two colours": encoded(Image.new("1", SIZE), "GIF"),
    "GIF with something behind it": encoded(noise(SIZE), "GIF") + b"behind",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_passes(name: str) -> None:
    checked(WHOLE[name])


@pytest.mark.parametrize("name", [name for name in WHOLE if "behind" not in name and "phone" not in name])
def test_a_file_that_is_cut_off_does_not_pass(name: str) -> None:
    """Only the mark at the end of a JPEG is not missed. A long file is cut at 500 places."""
    data = WHOLE[name]
    end = len(data) - (2 if name.startswith("JPEG") else 0)
    places = {*range(0, end, 1 + end // 500), *range(max(0, end - 100), end)}
    assert [place for place in sorted(places) if is_whole(data[:place])] == []


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith("PNG") and "behind" not in name])
def test_a_changed_byte_of_a_png_is_noticed(name: str) -> None:
    data = bytearray(WHOLE[name])
    unnoticed = []
    for place in range(0, len(data), 1 + len(data) // 500):
        data[place] ^= 0x20
        if is_whole(bytes(data)):
            unnoticed.append(place)
        data[place] ^= 0x20
    assert unnoticed == []


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith(("PNG", "WebP"))])
def test_png_and_webp_are_not_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ImageFile.ImageFile, "load")
    monkeypatch.delattr(Image.Image, "load")
    checked(WHOLE[name])


def header(*values: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *values))


GREY = encoded(Image.new("L", SIZE))
GREY_PIXELS = GREY[33:-12]
PALETTE = encoded(noise(SIZE).convert("P"))
END = PNG[-12:]
ODD_PNG = {
    "no pixels": GREY[:33] + END,
    "two headers": GREY[:33] + GREY[8:33] + GREY[33:],
    "a chunk before the header": GREY[:8] + chunk(b"tEXt", b"a\0b") + GREY[8:],
    "a text among the pixels": GREY[:33] + GREY_PIXELS + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT") + END,
    "a longer header": GREY[:8] + chunk(b"IHDR", GREY[16:29] + b"\0") + GREY[33:],
    "3 bits": GREY[:8] + header(*SIZE, 3, 0, 0, 0, 0) + GREY[33:],
    "2 bits a colour": GREY[:8] + header(*SIZE, 2, 2, 0, 0, 0) + GREY[33:],
    "another packing": GREY[:8] + header(*SIZE, 8, 0, 1, 0, 0) + GREY[33:],
    "another interlacing": GREY[:8] + header(*SIZE, 8, 0, 0, 0, 2) + GREY[33:],
    "no palette": PALETTE[:33] + PALETTE[PALETTE.index(b"IDAT") - 4 :],
    "no end, but something else": GREY[:-12] + b"behind it",
}


@pytest.mark.parametrize("name", ODD_PNG)
def test_a_png_whose_chunks_do_not_fit_together(name: str) -> None:
    with pytest.raises(NotAPicture):
        checked(ODD_PNG[name])


# ── WebP ─────────────────────────────────────────────────────────────────────────────────────────────────

LOSSY = encoded(Image.new("RGB", (64, 48), "teal"), "WEBP")[12:]
LOSSLESS = hostile_files.WEBP[12:]
NARROW = encoded(Image.new("RGB", (63, 48)), "WEBP")[12:]
ALL_IN_ITS_FIRST_PART = struct.pack("<I", (len(LOSSY) - 8 - 10) << 5 | LOSSY[8] & 0x1F)[:3]
OTHER_SIZE = encoded(Image.new("RGB", (64, 40)), "WEBP")[12:]
ALPHA, RAW_ALPHA = riff(b"ALPH", b"\1" + bytes(30)), riff(b"ALPH", bytes(1 + 64 * 48))


def changed(data: bytes, place: int, byte: int) -> bytes:
    return data[:place] + bytes([byte]) + data[place + 1 :]


def framed(*frames: bytes) -> bytes:
    return webp(2, riff(b"ANIM", bytes(6)), *frames)


SOUND_WEBP = {
    "lossy": webp(0, LOSSY),
    "lossless": webp(0, LOSSLESS),
    "an unknown chunk": webp(0, riff(b"abcd", b"odd"), LOSSY),
    "alpha": webp(0x10, ALPHA, LOSSY),
    "raw alpha": webp(0x10, RAW_ALPHA, LOSSY),
    "a frame at the edge": framed(changed(webp_frame(NARROW), 14, 62)),
    "frames": framed(webp_frame(LOSSY), webp_frame(ALPHA + LOSSY), webp_frame(LOSSLESS)),
}
ODD_WEBP = {
    "no pixels": webp(0, riff(b"abcd", b"")),
    "two images": webp(0, LOSSY, LOSSY),
    "an image of another size": webp(0, OTHER_SIZE),
    "no frames": framed(),
    "frames in a file without": webp(0, webp_frame(LOSSY)),
    "a frame without pixels": framed(webp_frame(LOSSY), webp_frame(b"")),
    "a frame of another size": framed(webp_frame(LOSSY), webp_frame(OTHER_SIZE)),
    "a frame outside": framed(changed(webp_frame(LOSSY), 8, 1)),
    "a frame one pixel outside": framed(changed(changed(webp_frame(NARROW), 14, 62), 8, 1)),
    "a frame whose chunk is too long": framed(webp_frame(LOSSY[:4] + struct.pack("<I", 9999) + LOSSY[8:])),
    "a lossy image that needs another": webp(0, changed(LOSSY, 8, LOSSY[8] | 1)),
    "a lossy image without its mark": webp(0, changed(LOSSY, 11, 0)),
    "a lossy image shorter than its first part": webp(0, changed(LOSSY, 10, 0xFF)),
    "a lossy image with nothing behind its first part": webp(
        0, LOSSY[:8] + ALL_IN_ITS_FIRST_PART + LOSSY[11:]
    ),
    "a lossy image of nothing": webp(0, riff(b"VP8 ", b"")),
    "a lossless image without its mark": webp(0, changed(LOSSLESS, 8, 0)),
    "a lossless image of another version": webp(0, changed(LOSSLESS, 12, LOSSLESS[12] | 0x20)),
    "alpha of nothing": webp(0x10, riff(b"ALPH", b""), LOSSY),
    "alpha of no known packing": webp(0x10, riff(b"ALPH", b"\2" + bytes(30)), LOSSY),
    "too little raw alpha": webp(0x10, riff(b"ALPH", bytes(64 * 48)), LOSSY),
}


@pytest.mark.parametrize("name", SOUND_WEBP)
def test_a_webp_whose_parts_fit_together(name: str) -> None:
    checked(SOUND_WEBP[name])


@pytest.mark.parametrize("name", ODD_WEBP)
def test_a_webp_whose_parts_do_not_fit_together(name: str) -> None:
    assert not is_whole(ODD_WEBP[name])


# ── JPEG and GIF ─────────────────────────────────────────────────────────────────────────────────────────

SMALL_GIF = encoded(Image.new("L", SIZE), "GIF")
GIF_IMAGE = SMALL_GIF.rindex(b",\0\0\0\0")
JPEG = encoded(noise(SIZE), "JPEG")
ODD = {
    "a GIF without an image": SMALL_GIF[:GIF_IMAGE] + b";",
    "a GIF with an image of nothing": SMALL_GIF[: GIF_IMAGE + 11] + b"\0;",
    "a GIF with half an image": SMALL_GIF[: GIF_IMAGE + 11]
    + b"\2"
    + SMALL_GIF[GIF_IMAGE + 12 :][:2]
    + b"\0;",
    "a GIF with codes of 12 bits": changed(SMALL_GIF, GIF_IMAGE + 10, 12),
    "a GIF with an unknown block": SMALL_GIF[:-1] + b"?;",
    "a JPEG without tables": JPEG[:2] + JPEG[JPEG.index(b"\xff\xc0") :],
    "a JPEG without pixels": JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9",
}


@pytest.mark.parametrize("name", ODD)
def test_a_jpeg_or_gif_that_cannot_be_decoded(name: str) -> None:
    with pytest.raises(NotAPicture):
        checked(ODD[name])


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
)
def test_whatever_passes_can_be_recognised_again(name: str, changes: list[tuple[int, int]]) -> None:
    """Anything else than NotAPicture and PictureTooLarge would end a request with an internal error."""
    data = bytearray(WHOLE[name])
    for place, byte in changes:
        data[place % len(data)] = byte
    if is_whole(bytes(data)):
        assert recognise(blob(bytes(data))).size
