"""Cutting metadata out of sound PNG and JPEG files, byte by byte: the pixels are not touched."""

import struct
from collections.abc import Iterator

_PNG_CHUNKS = (b"IHDR", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"IDAT", b"IEND")


def bare_png(data: bytes) -> bytes:
    """A sound PNG's pixels and colours: no text, no time, no EXIF, no animation, nothing after its end."""
    return _joined(data, [memoryview(data)[:8], *_png_chunks(data)])


def _png_chunks(data: bytes) -> Iterator[memoryview]:
    """The chunks to keep."""
    position, kind = 8, b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in _PNG_CHUNKS:
            yield memoryview(data)[position : position + length + 12]
        position += length + 12


def _joined(data: bytes, kept: list[memoryview]) -> bytes:
    """What is kept of the data; without a copy when that is all."""
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


_END_OF_IMAGE = b"\xff\xd9"
_NO_MARKERS = {b"", b"\x00", b"\xff", *(bytes([restart]) for restart in range(0xD0, 0xD8))}


def bare_jpeg(data: bytes) -> bytes:
    """A sound JPEG's pixels and colours: no EXIF, XMP, comments or second pictures, nothing after its end."""
    return _joined(data, [memoryview(data)[:2], *_jpeg_segments(data), memoryview(_END_OF_IMAGE)])


def _jpeg_segments(data: bytes) -> Iterator[memoryview]:
    """The segments to keep, each with the compressed pixels that follow it."""
    start = _next_marker(data, 2)
    while start < len(data) and data[start : start + 2] != _END_OF_IMAGE:
        length = int.from_bytes(data[start + 2 : start + 4])
        following = _next_marker(data, start + 2 + length)
        if _is_kept(data[start : start + 18]):
            yield memoryview(data)[start:following]
        start = following


def _next_marker(data: bytes, position: int) -> int:
    """Where the next marker stands, or the end. FF also occurs, escaped, among the compressed pixels."""
    while (position := data.find(b"\xff", position)) >= 0:
        if data[position + 1 : position + 2] not in _NO_MARKERS:
            return position
        position += 1
    return len(data)


def _is_kept(segment: bytes) -> bool:
    """Not comments, nor application data but JFIF, colour profiles and Adobe's colour transform."""
    kind = segment[1]
    if kind == 0xE2:
        return segment[4:16] == b"ICC_PROFILE\0"
    return kind in (0xE0, 0xEE) or not (0xE1 <= kind <= 0xEF or kind == 0xFE)
