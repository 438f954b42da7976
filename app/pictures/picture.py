"""Pictures: their formats, sizes and limits.

A picture is kept as its encoded bytes (PNG, JPEG, WebP or GIF) in a blob. Its type and size are read from the
bytes, never from a file name, a header or a vendor's field.
"""

import re
import struct
import warnings
from dataclasses import dataclass

import pybase64
from PIL import Image, UnidentifiedImageError

from app.pictures.blob import Blob, Blobs
from app.pictures.parts import has_too_many_parts
from app.pictures.png import MAX_PARTS

MAX_PICTURE_BYTES = 20 * 1024 * 1024
"""The document's limit of 20 MB for one picture: bytes of the encoded file."""

MAX_PIXELS = 50_000_000
"""A picture with more pixels in its header is refused before anything is decoded."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)
"""Pillow needs the limit too: it allocates a GIF's frame, up to 4 GB, when it opens the file. By default it
only warns about pictures up to twice the limit."""

warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
"""Pillow warns about each broken EXIF field: a file of 0.8 MB caused 130,000 lines in the log."""

_FORMATS = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG followed by further pictures, as phones write
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}

_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


class NotAPicture(ValueError):
    """The bytes are not a PNG, JPEG, WebP or GIF, or the text is not base64."""


class PictureTooLarge(ValueError):
    """The picture has too many bytes or pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An encoded picture. Made by `recognise()`, which reads the header only.

    `size` is width and height in pixels. The picture is usable until its blob is closed.
    """

    blob: Blob
    mime_type: str
    size: tuple[int, int]

    @property
    def length(self) -> int:
        """The number of bytes of the encoded file."""
        return self.blob.length

    def __repr__(self) -> str:
        width, height = self.size
        return f"<Picture {self.mime_type} {width}x{height}, {self.length} bytes>"


@dataclass(frozen=True, slots=True)
class GcsUri:
    """A picture that the vendor reads from Cloud Storage. The gateway does not read its bytes."""

    uri: str


Source = Picture | GcsUri


def recognise(blob: Blob) -> Picture:
    """Returns the picture in a blob: its format by magic number, its size from the header. Nothing is
    decoded.

    Raises PictureTooLarge, and NotAPicture, also for a file of too many parts, which is not opened.
    """
    if has_too_many_parts(blob):
        raise NotAPicture(f"more than {MAX_PARTS} parts")
    found = _recognise_png(blob) if blob.png.is_png else _recognise(blob)
    if not all(found.size):
        raise NotAPicture("a side of zero pixels")
    return found


def _recognise_png(blob: Blob) -> Picture:
    """Like `_recognise`, but without Pillow, which would go through the chunks again."""
    head = blob.head(24)
    if len(head) < 24 or head[12:16] != b"IHDR":
        raise NotAPicture("no PNG header")
    width, height = struct.unpack(">II", head[16:])
    if width * height > MAX_PIXELS:
        raise PictureTooLarge("too many pixels")
    return Picture(blob, "image/png", (width, height))


def _recognise(blob: Blob) -> Picture:
    try:
        with blob.open() as file, Image.open(file, formats=("JPEG", "WEBP", "GIF")) as opened:
            return Picture(blob, _FORMATS[opened.format or ""], opened.size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise PictureTooLarge("too many pixels") from exc
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, KeyError) as exc:
        raise NotAPicture("no PNG, JPEG, WebP or GIF header") from exc


def picture(blob: Blob) -> Picture:
    """Returns a caller's picture if it is within the limits. Raises NotAPicture and PictureTooLarge."""
    if blob.length > MAX_PICTURE_BYTES:
        raise PictureTooLarge(f"more than {MAX_PICTURE_BYTES} bytes")
    found = recognise(blob)
    width, height = found.size
    if width * height > MAX_PIXELS:
        raise PictureTooLarge("too many pixels")
    return found


def blob_of_base64(text: str, blobs: Blobs) -> Blob:
    """Decode base64: standard or URL-safe, with or without padding, line breaks and a `data:` prefix.

    For short texts only: long ones become blobs while they arrive (`in_json.py`). Raises NotAPicture and
    NoRoom.
    """
    if match := _DATA_URI.match(text[:256]):
        text = text[match.end() :]
    try:
        return blobs.of(pybase64.b64decode(text, validate=True))
    except ValueError:
        pass
    text = "".join(text.split()).rstrip("=")
    alphabet = b"-_" if "-" in text or "_" in text else None
    try:
        return blobs.of(pybase64.b64decode(text + "=" * (-len(text) % 4), altchars=alphabet, validate=True))
    except ValueError as exc:
        raise NotAPicture("not base64") from exc
