"""Whether a picture's file is whole.

PNG: the checksum of every chunk is computed while the file is written (`png.py`). WebP has no checksums: all
lengths and headers must agree. Neither is decoded, so pixels that were damaged before they were packed into
the file are not found. JPEG and the first frame of GIF are decoded, because their pixels have no lengths.
"""

import struct
from collections.abc import Iterator
from itertools import dropwhile

from app.pictures.blob import Blob
from app.pictures.decoding import in_turn, load, opened, skim
from app.pictures.parts import GIF_EXTENSION, GIF_IMAGE, GIF_TRAILER, gif_palette_bytes
from app.pictures.picture import NotAPicture, Picture
from app.pictures.view import View


def check(picture: Picture) -> None:
    """Raises NotAPicture if the file is cut off or damaged. 1 MB of JPEG takes 6 ms, a PNG almost nothing."""
    try:
        match picture.mime_type:
            case "image/png":
                _check_png(picture.blob, picture.size)
            case "image/webp":
                _check_webp(View(picture.blob), picture.size)
            case "image/gif":
                _check_gif(View(picture.blob))
                _decode(picture)
            case _:
                _decode(picture)
    except (IndexError, struct.error) as exc:
        raise NotAPicture("cut off") from exc


def _require(is_sound: bool, what: str) -> None:
    if not is_sound:
        raise NotAPicture(f"damaged: {what}")


@in_turn
def _decode(picture: Picture) -> None:
    with opened(picture) as image:
        if picture.mime_type == "image/jpeg":
            skim(image)
        else:
            load(image)


# ── PNG ──────────────────────────────────────────────────────────────────────────────────────────────────

_PALETTE = 3
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""The bit depths that each colour type allows."""


def _check_png(blob: Blob, size: tuple[int, int]) -> None:
    names = [name for name, _, _ in blob.png.found]
    _require(blob.png.sound == len(names), "a chunk")
    _require(names[-1:] == [b"IEND"], "no end")
    _require(names[0] == b"IHDR" and names.count(b"IHDR") == 1, "no header")
    length, _, *sides, depth, colours, packing, filters, interlace = struct.unpack(
        ">I4sIIBBBBB", blob.head(29)[8:]
    )
    _require(length == 13 and tuple(sides) == size, "size")
    _require(depth in _DEPTHS.get(colours, ()) and (packing, filters) == (0, 0) and interlace < 2, "kind")
    _require(colours != _PALETTE or b"PLTE" in names, "no palette")
    pixels = list(dropwhile(lambda name: name != b"IDAT", names))[: names.count(b"IDAT")]
    _require(set(pixels) == {b"IDAT"}, "pixels")


# ── WebP ─────────────────────────────────────────────────────────────────────────────────────────────────

_ANIMATED = 0x02


def _check_webp(data: View, size: tuple[int, int]) -> None:
    chunks = list(_chunks(data, 12, 8 + _number(data, 4, 4)))
    name, at, _ = chunks[0]
    if name != b"VP8X":
        _check_webp_image(data, chunks[:1], size)
        return
    canvas = _number(data, at + 4, 3) + 1, _number(data, at + 7, 3) + 1
    _require(canvas == size, "size")
    if not data[at] & _ANIMATED:
        _check_webp_image(data, chunks, size)
        return
    frames = [(at, length) for name, at, length in chunks if name == b"ANMF"]
    _require(bool(frames), "no frame")
    for at, length in frames:
        left, top, width, height = (_number(data, at + offset, 3) for offset in (0, 3, 6, 9))
        _require(2 * left + width < size[0] and 2 * top + height < size[1], "a frame's place")
        _check_webp_image(data, list(_chunks(data, at + 16, at + length)), (width + 1, height + 1))


def _chunks(data: View, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the name of each chunk, and the start and the length of its data."""
    _require(end <= data.length, "cut off")
    while at < end:
        name, length = struct.unpack("<4sI", data.cut(at, at + 8))
        at += 8
        _require(at + length <= end, "a chunk's length")
        yield name, at, length
        at += length + length % 2


def _number(data: View, at: int, size: int) -> int:
    return int.from_bytes(data.cut(at, at + size), "little")


def _check_webp_image(data: View, chunks: list[tuple[bytes, int, int]], size: tuple[int, int]) -> None:
    images = [chunk for chunk in chunks if chunk[0] in (b"VP8 ", b"VP8L")]
    _require(len(images) == 1, "no image, or several")
    for name, at, length in chunks:
        head = data.cut(at, at + min(length, 10))
        if name == b"VP8 ":
            _check_lossy(head, length, size)
        elif name == b"VP8L":
            _check_lossless(head, size)
        elif name == b"ALPH":
            packing, levels, reserved = head[0] & 3, head[0] >> 4 & 3, head[0] >> 6
            _require(packing < 2 and levels < 2 and reserved < 2, "transparency")
            _require(length > (1 if packing else size[0] * size[1]), "transparency")


def _check_lossy(head: bytes, length: int, size: tuple[int, int]) -> None:
    """The frame is a key frame (bit 0), is shown (bit 4), and has the size in the file's header."""
    flags = int.from_bytes(head[:3], "little")
    _require(flags & 1 == 0 and flags >> 1 & 7 < 4 and flags >> 4 & 1 == 1, "a frame")
    _require(head[3:6] == b"\x9d\x01\x2a" and 10 + (flags >> 5) < length, "a frame")
    width, height = struct.unpack_from("<HH", head, 6)
    _require((width & 0x3FFF, height & 0x3FFF) == size, "a frame's size")


def _check_lossless(head: bytes, size: tuple[int, int]) -> None:
    mark, bits = struct.unpack_from("<BI", head)
    _require(mark == 0x2F and bits >> 29 == 0, "a frame")
    _require(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) == size, "a frame's size")


# ── GIF ──────────────────────────────────────────────────────────────────────────────────────────────────


def _check_gif(data: View) -> None:
    at, images = 13 + gif_palette_bytes(data[10]), 0
    while data[at] != GIF_TRAILER:
        _require(data[at] in (GIF_EXTENSION, GIF_IMAGE), "a block")
        if data[at] == GIF_IMAGE:
            images += 1
            at += 10 + gif_palette_bytes(data[at + 9])
            _require(1 <= data[at] <= 11 and data[at + 1] > 0, "an image")
            at += 1
        else:
            at += 2
        while size := data[at]:
            at += 1 + size
        at += 1
    _require(images > 0, "no image")
