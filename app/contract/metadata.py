"""Cutting metadata out of sound PNG and JPEG files, byte by byte: the pixels are not touched."""

from itertools import pairwise

from app.contract.parts import jpeg_segments, png_chunks

_PNG_CHUNKS = (b"IHDR", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"IDAT", b"IEND")


def bare_png(data: bytes) -> bytes:
    """A sound PNG's pixels and colours: no text, no time, no EXIF, no animation, nothing after its end."""
    whole = memoryview(data)
    kept = [whole[start:end] for name, start, end in png_chunks(data) if name in _PNG_CHUNKS]
    return _joined(data, [whole[:8], *kept])


def _joined(data: bytes, kept: list[memoryview]) -> bytes:
    """What is kept of the data; without a copy when that is all."""
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


_END_OF_IMAGE = b"\xff\xd9"


def bare_jpeg(data: bytes) -> bytes:
    """A sound JPEG's pixels and colours: no EXIF, XMP, comments or second pictures, nothing after its end."""
    whole = memoryview(data)
    starts = [start for _, start, _ in jpeg_segments(data)]
    kept = [whole[start:end] for start, end in pairwise(starts) if _is_kept(data[start : start + 18])]
    return _joined(data, [whole[:2], *kept, memoryview(_END_OF_IMAGE)])


def _is_kept(segment: bytes) -> bool:
    """Not comments, nor application data but JFIF, colour profiles and Adobe's colour transform."""
    kind = segment[1]
    if kind == 0xE2:
        return segment[4:16] == b"ICC_PROFILE\0"
    return kind in (0xE0, 0xEE) or not (0xE1 <= kind <= 0xEF or kind == 0xFE)
