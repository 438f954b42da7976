"""Files made of very many parts, for the tests and for `python -m bench.hostile`.

Most are sound pictures of 64x48 pixels with parts added that any viewer steps over.
"""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image

MEGABYTE = 1024 * 1024


class Hostile(NamedTuple):
    """`make` returns a file with so many of its part. From `fewest` on it is refused."""

    make: Callable[[int], bytes]
    fewest: int = 10_001


def _encoded(mode: str, format: str, **options: Any) -> bytes:
    file = BytesIO()
    Image.new(mode, (64, 48), 3 if mode == "P" else "teal").save(file, format, **options)
    return file.getvalue()


# ── PNG ──────────────────────────────────────────────────────────────────────────────────────────────────

PNG = _encoded("RGB", "PNG")
_BEFORE_PIXELS, _AFTER_PIXELS = 33, -12


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(part: bytes, at: int = _BEFORE_PIXELS, once: bytes = b"") -> Callable[[int], bytes]:
    return lambda number: PNG[:at] + once + part * number + PNG[at:]


def _png_of(name: bytes, data: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """With one chunk."""
    return lambda number: PNG[:_BEFORE_PIXELS] + chunk(name, data(number)) + PNG[_BEFORE_PIXELS:]


_TEXT = zlib.compress(b"a" * (MEGABYTE - 9), 9)
_BROKEN_TEXT = _TEXT[:-4] + b"fail"
_NO_UTF_8 = zlib.compress(b"\xff" * (MEGABYTE - 9), 9)


def tiff(numbers: int) -> bytes:
    """EXIF data in which orientation and resolution are so many fractions."""
    fields = ((0x0112, 5, numbers, 50), (0x011A, 5, numbers, 50), (0x0128, 3, 1, 2))
    directory = struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + struct.pack("<II", 3, 7) * numbers


_FRACTIONS = 160_000

OF_PNG = {
    "PNG of unknown chunks": Hostile(_png(chunk(b"abCd"))),
    "PNG of private chunks": Hostile(_png(chunk(b"abcd"))),
    "PNG of texts": Hostile(_png(chunk(b"tEXt", b"a\0"))),
    "PNG of texts behind its pixels": Hostile(_png(chunk(b"tEXt", b"a\0"), _AFTER_PIXELS)),
    "PNG of empty pixels": Hostile(_png(chunk(b"IDAT"))),
    "PNG of frames": Hostile(
        _png(chunk(b"fcTL", bytes(26)), _AFTER_PIXELS, once=chunk(b"acTL", struct.pack(">II", 9, 0)))
    ),
    "PNG of packed texts that end in an error": Hostile(_png(chunk(b"zTXt", b"a\0\0" + _BROKEN_TEXT)), 101),
    "PNG of packed texts that are not UTF-8": Hostile(_png(chunk(b"iTXt", b"a\0\1\0\0\0" + _NO_UTF_8)), 101),
    "PNG of packed colour profiles": Hostile(_png(chunk(b"iCCP", b"a\0\0" + _TEXT)), 101),
    "PNG whose EXIF is long": Hostile(_png_of(b"eXIf", tiff), _FRACTIONS),
    "PNG whose text is long EXIF": Hostile(
        _png_of(b"tEXt", lambda numbers: b"exif\0Exif\0\0" + tiff(numbers)), _FRACTIONS
    ),
    "PNG whose text is EXIF in lines": Hostile(
        _png_of(b"tEXt", lambda lines: b"Raw profile type exif\0" + b"\n" * lines), 1_300_000
    ),
}

# ── JPEG ─────────────────────────────────────────────────────────────────────────────────────────────────

JPEG = _encoded("RGB", "JPEG")
_FRAME, _BEFORE_END = JPEG.index(b"\xff\xc0"), len(JPEG) - 2


def segment(marker: int, data: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def _jpeg(part: bytes, at: int = 2) -> Callable[[int], bytes]:
    return lambda number: JPEG[:at] + part * number + JPEG[at:]


def exif_jpeg(numbers: int) -> bytes:
    """In segments of 65,000 bytes; without the JFIF segment, whose resolution would be used."""
    data = tiff(numbers)
    segments = [segment(0xE1, b"Exif\0\0" + data[at : at + 65_000]) for at in range(0, len(data), 65_000)]
    return JPEG[:2] + b"".join(segments) + JPEG[20:]


_CODE = bytes((1, 1, *bytes(14)))
_LARGE = struct.pack(">BHH", 8, 6250, 8000)


def scans(number: int, colours: int = 3, comment: bytes = b"") -> bytes:
    """A progressive JPEG of 50 megapixels. Each scan but the first refines coefficients that are all zero.

    A run of 32,767 blocks is written as a bit of Huffman code and 14 bits of length.
    """
    planes = range(1, colours + 1)
    run = int(("0" + "1" * 14) * 32, 2).to_bytes(60).replace(b"\xff", b"\xff\0")
    return b"".join(
        (
            b"\xff\xd8" + comment,
            segment(0xDB, bytes((0, *[1] * 64))),
            segment(
                0xC2, _LARGE + bytes((colours, *(byte for plane in planes for byte in (plane, 0x11, 0))))
            ),
            segment(0xC4, b"\x00" + bytes((1, *bytes(15))) + b"\0"),
            segment(0xC4, b"\x10" + _CODE + b"\xe0\x11"),
            segment(0xDA, bytes((colours, *(byte for plane in planes for byte in (plane, 0)), 0, 0, 1))),
            bytes(10),
            (segment(0xDA, b"\1\1\0\x01\x3f\x10") + run) * (number - 1),
            b"\xff\xd9",
        )
    )


def arithmetic_scans(number: int) -> bytes:
    """A picture of 2 megapixels. Each scan's bytes, found by trying, keep a decoder busy for 12 ms."""
    scan = b"\xd2" * 8
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, bytes((0, *[1] * 64))),
            segment(0xCA, struct.pack(">BHH", 8, 1250, 1600) + b"\1\1\x11\0"),
            segment(0xDA, b"\1\1\0\0\0\0") + scan,
            (segment(0xDA, b"\1\1\0\1\x3f\0") + scan) * (number - 1),
            b"\xff\xd9",
        )
    )


def small_scans(number: int) -> bytes:
    """The last scan of a progressive JPEG again and again."""
    data = _encoded("RGB", "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * number + data[-2:]


OF_JPEG = {
    "JPEG of application data": Hostile(_jpeg(segment(0xE0))),
    "JPEG of restart intervals": Hostile(_jpeg(segment(0xDD, b"\0\0"))),
    "JPEG of comments": Hostile(_jpeg(segment(0xFE))),
    "JPEG of comments behind its pixels": Hostile(_jpeg(segment(0xFE), _BEFORE_END)),
    "JPEG of Huffman tables": Hostile(_jpeg(segment(0xC4))),
    "JPEG of quantization tables": Hostile(_jpeg(segment(0xDB, bytes((0, *range(1, 65))) * 1000)), 10),
    "JPEG of colours": Hostile(
        _jpeg(segment(0xC0, struct.pack(">BHHB", 8, 48, 64, 3) + bytes(3_000)), _FRAME), 10
    ),
    "JPEG of Photoshop's resources": Hostile(
        _jpeg(segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\4\4" + bytes(6)) * 5_000)), 2
    ),
    "JPEG of EXIF segments": Hostile(_jpeg(segment(0xE1, b"Exif\0\0" + bytes(2_000))), 640),
    "JPEG whose EXIF is long": Hostile(exif_jpeg, _FRACTIONS),
    "JPEG of fill bytes": Hostile(_jpeg(b"\xff")),
    "JPEG of fill bytes among its pixels": Hostile(_jpeg(b"\xff", _BEFORE_END), 20_000),
    "JPEG of zeros between segments": Hostile(_jpeg(b"\0", 20)),
    "JPEG of escaped bytes between segments": Hostile(_jpeg(b"\xff\0"), 5_000),
    "JPEG of restart markers between segments": Hostile(_jpeg(b"\xff\xd0"), 5_000),
    "JPEG of starts": Hostile(_jpeg(b"\xff\xd8")),
    "JPEG of scans": Hostile(scans, 21),
    "JPEG of scans of few pixels": Hostile(small_scans, 91),
    "JPEG of scans behind fill bytes": Hostile(
        lambda number: small_scans(number).replace(b"\xff\xda", b"\xff\xff\xda"), 91
    ),
    "JPEG of arithmetic scans": Hostile(arithmetic_scans, 25),
}

# ── GIF ──────────────────────────────────────────────────────────────────────────────────────────────────

GIF = _encoded("P", "GIF")
_GIF_IMAGE = 13 + (3 << (GIF[10] & 7) + 1)


def _gif(part: bytes, before: bytes = b"", after: bytes = b"") -> Callable[[int], bytes]:
    return lambda number: GIF[:_GIF_IMAGE] + before + part * number + after + GIF[_GIF_IMAGE:]


def _gif_of_sub_blocks(number: int) -> bytes:
    """The pixels' code continues in sub-blocks of one byte, which are behind the last pixel."""
    return GIF[:-2] + b"\1\0" * number + GIF[-2:]


OF_GIF = {
    "GIF of comments": Hostile(_gif(b"!\xfe\1a\0")),
    "GIF of a comment's sub-blocks": Hostile(_gif(b"\1a", b"!\xfe", b"\0"), 10_002),
    "GIF of full comment sub-blocks": Hostile(_gif(b"\xff" + b"a" * 255, b"!\xfe", b"\0"), 10_002),
    "GIF of application data": Hostile(_gif(b"\1a", b"!\xff\x0bapplication", b"\0")),
    "GIF of frames' settings": Hostile(_gif(b"!\xf9" + bytes((4, 0, 0, 0, 0, 0)))),
    "GIF of zeros": Hostile(_gif(b"\0")),
    "GIF of images": Hostile(lambda number: GIF[:-1] + GIF[_GIF_IMAGE:-1] * number + b";"),
    "GIF of an image's sub-blocks": Hostile(_gif_of_sub_blocks),
    "GIF of sub-blocks that only Pillow reads, after an empty one": Hostile(
        _gif(b"\1,", b"!\1\0" + b"\x01,", b"\0")
    ),
    "GIF of sub-blocks that only Pillow reads, after NETSCAPE": Hostile(
        _gif(b"\1,", b"!\xff\x0bNETSCAPE2.0\0" + b"\x01,", b"\0")
    ),
}

# ── WebP ─────────────────────────────────────────────────────────────────────────────────────────────────

WEBP = _encoded("RGB", "WEBP", lossless=True)
_PIXELS = WEBP[12:]


def riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp(flags: int, *chunks: bytes) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (64, 48))
    return riff(b"RIFF", b"WEBP" + riff(b"VP8X", bytes((flags, 0, 0, 0)) + sides) + b"".join(chunks))


def webp_frame(pixels: bytes) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (64, 48))
    return riff(b"ANMF", bytes(6) + sides + b"\x0a\0\0\0" + pixels)


_ANIMATION = riff(b"ANIM", bytes(6))

OF_WEBP = {
    "WebP of unknown chunks": Hostile(lambda number: webp(0, _PIXELS, riff(b"abcd", b"") * number)),
    "WebP of frames": Hostile(lambda number: webp(2, _ANIMATION, webp_frame(_PIXELS) * number), 5_000),
    "WebP of chunks in a frame": Hostile(
        lambda number: webp(2, _ANIMATION, webp_frame(_PIXELS + riff(b"abcd", b"") * number))
    ),
    "WebP whose EXIF is long": Hostile(
        lambda numbers: webp(8, _PIXELS, riff(b"EXIF", tiff(numbers))), _FRACTIONS
    ),
}

HOSTILE = {**OF_PNG, **OF_JPEG, **OF_GIF, **OF_WEBP}


def disposed_gif(width: int, height: int) -> bytes:
    """A GIF of 8x8 pixels with a larger frame, to be cleared: Pillow fills it when it opens the file."""
    frame = b"," + struct.pack("<4HB", 0, 0, width, height, 0)
    return b"GIF89a" + struct.pack("<HH", 8, 8) + bytes(3) + b"!\xf9\4\x08" + bytes(4) + frame + b"\2\0;"
