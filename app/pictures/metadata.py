"""Removing metadata from valid PNG and JPEG files, without decoding: the pixels do not change.

Both functions return the same blob if there is nothing to remove, and otherwise a new blob of its scope.
"""

from itertools import pairwise

from app.pictures.blob import Blob
from app.pictures.parts import jpeg_segments
from app.pictures.png import PNG_SIGNATURE
from app.pictures.view import View

_PNG_CHUNKS = (b"IHDR", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"IDAT", b"IEND")

Range = tuple[int, int]


def bare_png(blob: Blob) -> Blob:
    """Keeps the pixels and colours of a valid PNG: no text, time, EXIF or animation, and nothing after its
    end.

    Raises NoRoom.
    """
    kept = [(start, end) for name, start, end in blob.png.found if name in _PNG_CHUNKS]
    return _only(blob, View(blob), [(0, len(PNG_SIGNATURE)), *kept])


_END_OF_IMAGE = b"\xff\xd9"


def bare_jpeg(blob: Blob) -> Blob:
    """Keeps the pixels and colours of a valid JPEG: no EXIF, XMP or comments, and nothing after its end.

    Raises NoRoom.
    """
    data = View(blob)
    starts = [start for _, start, _ in jpeg_segments(data)]
    kept = [(start, end) for start, end in pairwise(starts) if _is_kept(data.cut(start, start + 18))]
    return _only(blob, data, [(0, 2), *kept], end=_END_OF_IMAGE)


def _is_kept(segment: bytes) -> bool:
    """Whether to keep a segment: JFIF, colour profiles, Adobe's colour transform, and everything not
    metadata."""
    kind = segment[1]
    if kind == 0xE2:
        return segment[4:16] == b"ICC_PROFILE\0"
    return kind in (0xE0, 0xEE) or not (0xE1 <= kind <= 0xEF or kind == 0xFE)


def _only(blob: Blob, data: View, kept: list[Range], end: bytes = b"") -> Blob:
    """Returns a blob of these ranges, followed by `end`."""
    length = sum(stop - start for start, stop in kept) + len(end)
    if length == blob.length and (not end or data.has(end, length - len(end))) and _is_gapless(kept):
        return blob
    made = blob.sibling()
    for start, stop in kept:
        for piece in data.pieces(start, stop):
            made.write(bytes(piece))
    made.write(end)
    made.seal()
    return made


def _is_gapless(ranges: list[Range]) -> bool:
    return all(before[1] == after[0] for before, after in pairwise(ranges))
