"""Pictures: what counts as one, how it comes in, and how large it is.

A picture is kept as its encoded bytes (PNG, JPEG, WebP or GIF). Its type is read from the bytes, never
taken on trust from a name, a header or a vendor.
"""

import re
import warnings
from dataclasses import dataclass
from io import BytesIO

import pybase64
from PIL import Image, UnidentifiedImageError

from app.contract.parts import MAX_PARTS, has_too_many_parts

MAX_PICTURE_BYTES = 20 * 1024 * 1024
"""The document's 20 MB for one picture, as bytes of the encoded file."""

MAX_PIXELS = 50_000_000
"""A header that promises more pixels than this is refused before anything is decoded."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)
"""Pillow has to know the limit too: it fills a GIF's frame, of up to 4 GB, when it opens the file. By itself
it would only warn up to twice the limit."""

warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
"""Pillow warns about each broken field of EXIF: a file of 0.8 MB wrote 130,000 lines."""

_FORMATS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with further pictures behind it, as phones write
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}

_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


class NotAPicture(ValueError):
    """The bytes are no picture of a format we take; or base64 that is none."""


class PictureTooLarge(ValueError):
    """More bytes or more pixels than one picture may have."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture. Made by `picture()`, which has looked at the bytes."""

    data: bytes
    mime_type: str
    size: tuple[int, int]

    @property
    def base64(self) -> str:
        """Made anew each time: the text is not kept for as long as the picture lives."""
        return pybase64.b64encode_as_string(self.data)

    def __repr__(self) -> str:
        width, height = self.size
        return f"<Picture {self.mime_type} {width}x{height}, {len(self.data)} bytes>"


@dataclass(frozen=True, slots=True)
class GcsUri:
    """A picture that the vendor reads from Cloud Storage itself; the gateway never sees its bytes."""

    uri: str


Source = Picture | GcsUri


def recognise(data: bytes) -> Picture:
    """Look at the header: format by magic number, size in pixels; nothing is decoded.

    Raises NotAPicture, also for a file of too many parts, which is not opened; and PictureTooLarge.
    """
    if has_too_many_parts(data):
        raise NotAPicture(f"more than {MAX_PARTS} parts")
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF")) as opened:
            found = Picture(data, _FORMATS[opened.format or ""], opened.size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise PictureTooLarge("too many pixels") from exc
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, KeyError) as exc:
        raise NotAPicture("no PNG, JPEG, WebP or GIF header") from exc
    if not all(found.size):
        raise NotAPicture("a side of zero pixels")
    return found


def picture(data: bytes) -> Picture:
    """A caller's picture: recognised, and within the limits. Raises NotAPicture and PictureTooLarge."""
    if len(data) > MAX_PICTURE_BYTES:
        raise PictureTooLarge(f"more than {MAX_PICTURE_BYTES} bytes")
    found = recognise(data)
    width, height = found.size
    if width * height > MAX_PIXELS:
        raise PictureTooLarge("too many pixels")
    return found


def decode_base64(text: str) -> bytes:
    """Decode base64: standard or URL-safe, with or without padding, line breaks and a `data:` prefix.

    Raises NotAPicture.
    """
    if match := _DATA_URI.match(text[:256]):
        text = text[match.end() :]
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    text = "".join(text.split()).rstrip("=")
    alphabet = b"-_" if "-" in text or "_" in text else None
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), altchars=alphabet, validate=True)
    except ValueError as exc:
        raise NotAPicture("not base64") from exc


def read_source(value: str | bytes) -> Source:
    """A picture field in any spelling: uploaded bytes, base64 text, a `data:` URI or a `gs://` URI."""
    if isinstance(value, bytes):
        return picture(value)
    if value.startswith("gs://"):
        return GcsUri(value)
    return picture(decode_base64(value))
