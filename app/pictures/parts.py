"""Counting the parts of a file, before anything opens it.

A picture is a chain of parts: segments in JPEG, chunks in PNG and WebP, blocks in GIF. Pillow reads them one
by one in Python, so 20 MB of tiny parts can take minutes and gigabytes. The count follows the lengths,
decodes nothing and stops at the limit. A part that is slower to read than most counts as several. `python -m
bench.hostile` measures files beyond the limit, and the slowest files within it.

Up to the first pixels the count takes the same steps as Pillow, including its mistakes. Otherwise a file
could have few parts here and many in Pillow.
"""

import re
import struct
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import accumulate

from app.pictures.blob import Blob
from app.pictures.png import MAX_PARTS, Chunk
from app.pictures.view import View

_EXIF_BYTES = 128
"""These bytes of EXIF count as a part, so 1.28 MB is the limit. Pillow takes 2 µs for a fraction of 8
bytes."""


def has_too_many_parts(blob: Blob) -> bool:
    """Whether a PNG, JPEG, WebP or GIF has more than `MAX_PARTS` parts. Other files have none."""
    data = View(blob)
    parts = _png_parts(blob.png.found, data) if blob.png.is_png else _parts(data)
    return any(number > MAX_PARTS for number in accumulate(parts))


def _parts(data: View) -> Iterator[int]:
    """Steps through the file. Yields the number of parts of each step."""
    if data.has(b"\xff\xd8\xff", 0):
        return _jpeg_parts(data)
    if data.has((b"GIF87a", b"GIF89a"), 0):
        return _gif_parts(data)
    if data.has(b"RIFF", 0) and data.has(b"WEBP", 8):
        return _webp_parts(data)
    return iter(())


# ── PNG ──────────────────────────────────────────────────────────────────────────────────────────────────

_INFLATED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
_INFLATED = 100
"""A compressed text or profile counts as so many parts. Pillow unpacks up to 1 MB of each, in 5 ms."""
_EXIF_TEXTS = (b"exif\0", b"Raw profile type exif\0")


def _png_parts(chunks: list[Chunk], data: View) -> Iterator[int]:
    """Encoders write IDAT chunks of 8 KiB or more: 20 MB are 2,560 of them."""
    for name, start, end in chunks:
        if name in _INFLATED_CHUNKS:
            yield _INFLATED
        elif name == b"eXIf" or (name == b"tEXt" and data.has(_EXIF_TEXTS, start + 8)):
            yield 1 + (end - start) // _EXIF_BYTES
        else:
            yield 1


# ── JPEG ─────────────────────────────────────────────────────────────────────────────────────────────────

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""FF is also a fill byte. Compressed pixels hold it escaped (FF 00) or in a restart marker (FF D0 to D7)."""

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_TABLES, _EXIF, _PHOTOSHOP = 0xDB, 0xE1, 0xED
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xDE)
_ARITHMETIC = (0xC9, 0xCA)
_WITH_LENGTH = frozenset((*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xF0), 0xFE))

_WINDOW = 256 * 1024
"""Bytes that are searched in one step, which holds the GIL for at most 2 ms."""

_FILL = b"\xff" * MAX_PARTS
"""A run of twice this length is too long in compressed pixels too: libjpeg reads it again with each 64 KB."""

_LEAST_SCAN = 100
_SCANNED_PIXELS = 100_000
_SCANNED_ARITHMETIC_PIXELS = 5_000
"""These pixels of a scan count as a part; a scan counts as at least 100 parts. So the limit is 1,000
megapixels in all scans together (20 scans of 50), or 100 scans of a small picture. Encoders write 10 scans,
18 for CMYK.

The slowest scan refines coefficients that are all zero. For 50 megapixels it has 68 bytes and takes 28 ms,
or 56 ms if metadata is removed. So the slowest accepted file takes 2 s. Arithmetic coding, which few programs
write or read, took up to ten times as long with data found by a random search.
"""


def jpeg_segments(data: View) -> Iterator[tuple[int, int, int]]:
    """Yields the marker (its second byte), the start and the end of each segment.

    Compressed pixels are between segments. The last segment is the first end of image after pixels. If there
    is none, it is empty and at the end of the data.
    """
    scanned, end = False, 2
    while (start := _next_marker(data, end)) is not None:
        marker, end = data[start + 1], start + 2
        if marker in _WITH_LENGTH:
            end += int.from_bytes(data.cut(end, end + 2))
        yield marker, start, end
        if marker == _END_OF_IMAGE and scanned:
            return
        scanned = scanned or marker == _START_OF_SCAN
    yield _END_OF_IMAGE, data.length, data.length


def _next_marker(data: View, at: int) -> int | None:
    while at + 1 < data.length:
        window, first = data.window(at, 2)
        end = min(at - first + _WINDOW + 1, len(window))
        if found := _MARKER.search(window, at - first, end):
            return first + found.start()
        at = first + end - 1  # a marker can begin with the last byte
    return None


def _jpeg_parts(data: View) -> Iterator[int]:
    """A segment is a part, and so is each byte between two segments, except in compressed pixels."""
    before, end_before, scan = _START_OF_IMAGE, 2, _LEAST_SCAN
    for marker, start, end in jpeg_segments(data):
        parts = 1
        between = range(end_before, start, MAX_PARTS)
        if before != _START_OF_SCAN or any(
            at + len(_FILL) <= start and data.has(_FILL, at) for at in between
        ):
            parts += len(range(end_before, start))
        if marker in _FRAMES:
            height, width = data.cut(start + 5, start + 7), data.cut(start + 7, start + 9)
            pixels = int.from_bytes(height) * int.from_bytes(width)
            share = _SCANNED_ARITHMETIC_PIXELS if marker in _ARITHMETIC else _SCANNED_PIXELS
            scan = max(_LEAST_SCAN, pixels // share)
            parts += (end - start) // 3  # a colour has three bytes
        elif marker == _START_OF_SCAN:
            parts += scan
        elif marker == _TABLES:
            parts += (end - start) // 65
        elif marker == _PHOTOSHOP:
            parts += data.cut(start, end).count(b"8BIM")
        elif marker == _EXIF and data.has(b"Exif\0\0", start + 4):
            parts += (end - start) // _EXIF_BYTES
        yield parts
        before, end_before = marker, end


# ── GIF ──────────────────────────────────────────────────────────────────────────────────────────────────

GIF_EXTENSION, GIF_IMAGE, GIF_TRAILER = b"!,;"
_COMMENT, _APPLICATION = 0xFE, 0xFF
_TINY = 64
"""Encoders write pixels in sub-blocks of 254 or 255 bytes, and the rest in a shorter last one. 20 MB have
80,000 sub-blocks, so a sub-block of an image is a part only if it is shorter than this and not the last."""


def _gif_parts(data: View) -> Iterator[int]:
    """An extension or an image is a part, and so is each of its sub-blocks except the last.

    Any other byte before the first image is a part too, since Pillow skips it. After an image it ends the
    file.
    """
    with suppress(IndexError):  # the file is cut off
        at, seen_image = 13 + gif_palette_bytes(data[10]), False
        while data[at] != GIF_TRAILER:
            yield 1
            if data[at] == GIF_IMAGE:
                seen_image = True
                at = yield from _sub_blocks(
                    data, at + 11 + gif_palette_bytes(data[at + 9]), counted_below=_TINY
                )
            elif data[at] == GIF_EXTENSION:
                at = yield from _sub_blocks(data, _after_head(data, at + 1), counted_below=256)
            elif seen_image:
                return
            else:
                at += 1


def gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_head(data: View, at: int) -> int:
    """Returns where Pillow begins to search for the last sub-block of an extension, after one or two
    others."""
    label, at = data[at], at + 1
    if label == _COMMENT:
        return at
    head = 1 + data[at]
    if label == _APPLICATION and data.cut(at + 1, at + head).startswith(b"NETSCAPE2.0"):
        head += 1 + data[at + head]
    return at + head


def _sub_blocks(data: View, at: int, *, counted_below: int) -> Generator[int, None, int]:
    """Yields 1 for each sub-block of fewer bytes, except the last. Returns the end of the last one."""
    while size := data[at]:
        at += 1 + size
        if size < counted_below and data[at]:
            yield 1
    return at + 1


# ── WebP ─────────────────────────────────────────────────────────────────────────────────────────────────


def _webp_parts(data: View) -> Iterator[int]:
    """A frame (ANMF) is a part, and so is each chunk in it. The chunks follow the frame's head of 16
    bytes."""
    at, end = 12, min(data.length, 8 + int.from_bytes(data.cut(4, 8), "little"))
    while at + 8 <= end:
        name, length = struct.unpack("<4sI", data.cut(at, at + 8))
        yield 1 + (length // _EXIF_BYTES if name == b"EXIF" else 0)
        at += 8 + (16 if name == b"ANMF" else length + length % 2)
