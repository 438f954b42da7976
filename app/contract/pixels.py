"""Work on pixels: making pictures uniform, changing their type or size.

All of it takes tens of milliseconds per megapixel: call it through `threads.off_loop`.
"""

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from io import BytesIO
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, TypeVar

from PIL import ExifTags, Image, ImageOps

from app.contract.metadata import bare_jpeg, bare_png
from app.contract.pictures import (
    MAX_PICTURE_BYTES,
    MAX_PIXELS,
    NotAPicture,
    Picture,
    PictureTooLarge,
    recognise,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

P = ParamSpec("P")
T = TypeVar("T")

OutputType = Literal["image/png", "image/jpeg"]

_LARGE_PIXELS = 16_000_000
_large = threading.Lock()
"""A file of 34 bytes may unpack to 50 megapixels, which take 200 MB, and 800 MB when it is a WebP. So one
large picture is open at a time, however many callers send them."""


def in_turn(work: Callable[Concatenate[Picture, P], T]) -> Callable[Concatenate[Picture, P], T]:
    """Marks work that opens a picture: on a large one it waits its turn."""

    @wraps(work)
    def turn(picture: Picture, /, *args: P.args, **kwargs: P.kwargs) -> T:
        width, height = picture.size
        if width * height <= _LARGE_PIXELS:
            return work(picture, *args, **kwargs)
        with _large:
            return work(picture, *args, **kwargs)

    return turn


_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# ── pictures that come in ────────────────────────────────────────────────────────────────────────────────


@in_turn
def normalise(picture: Picture) -> Picture:
    """The picture as every vendor takes it: whole, upright, one frame, 8 bits, PNG or JPEG, without metadata.

    The pixels of an upright JPEG or 8-bit PNG are not touched: metadata are cut out of the file. Whatever
    needs new pixels becomes a PNG, or a JPEG of quality 95 when it was one. A colour profile stays.
    Raises NotAPicture when the file is broken, PictureTooLarge when the result is over the document's 20 MB.
    """
    image = _open(picture)
    is_jpeg = picture.mime_type == "image/jpeg"
    if is_jpeg and image.mode in ("L", "RGB") and _turn(image) is None:
        _skim(image)
        data = bare_jpeg(picture.data)
        if data is not picture.data:
            _skim(_open(recognise(data)))  # a crafted file may need what was cut out
    else:
        _load(image)
        if picture.mime_type == "image/png" and _is_plain_png(picture, image) and _turn(image) is None:
            data = bare_png(picture.data)
        elif is_jpeg and image.mode != "CMYK":
            data = _encode(_plain(image), "image/jpeg", 95)
        else:
            data = _encode(_plain(image), "image/png")
    return picture if data == picture.data else _checked(recognise(data))


def _checked(picture: Picture) -> Picture:
    if len(picture.data) > MAX_PICTURE_BYTES:
        raise PictureTooLarge(f"more than {MAX_PICTURE_BYTES} bytes after transcoding")
    return picture


def decode(picture: Picture) -> Image.Image:
    """The first frame, upright, in 8 bits: L, RGB or RGBA. Raises NotAPicture and PictureTooLarge."""
    image = _open(picture)
    _load(image)
    return _plain(image)


def _open(picture: Picture) -> Image.Image:
    if picture.size[0] * picture.size[1] > MAX_PIXELS:
        raise PictureTooLarge("too many pixels")
    with _not_a_picture():
        return Image.open(BytesIO(picture.data))


def _skim(jpeg: Image.Image) -> None:
    """Read all of the file, but keep a sixty-fourth of the pixels."""
    jpeg.draft(None, (1, 1))
    _load(jpeg)


def _load(image: Image.Image) -> None:
    with _not_a_picture():
        image.load()
    for name in ("icc_profile", "transparency"):
        if isinstance(image.info.get(name), str):  # a PNG's text of that name
            del image.info[name]


@contextmanager
def _not_a_picture() -> Iterator[None]:
    """Pillow's complaints in, ours out."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as exc:
        raise NotAPicture("broken") from exc


def _plain(image: Image.Image) -> Image.Image:
    """Upright, in 8 bits: L, RGB or RGBA. Keeps the colour profile, unless the colours are converted."""
    profile = None if image.mode == "CMYK" else image.info.get("icc_profile")
    if (turn := _turn(image)) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda level: level / 257).convert("L")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    image.info = {"icc_profile": profile} if profile else {}
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the image upright. EXIF that cannot be read says nothing."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return None


def _encode(image: Image.Image, mime_type: str, quality: int = 75, file: BytesIO | None = None) -> bytes:
    file = file or BytesIO()
    profile = image.info.get("icc_profile")
    if mime_type == "image/jpeg":
        image.save(file, "JPEG", quality=quality, icc_profile=profile)
    else:
        image.save(file, "PNG", compress_level=1, icc_profile=profile)
    return file.getvalue()


def _is_plain_png(picture: Picture, image: Image.Image) -> bool:
    """Grey, RGB or RGBA in 8 bits (the header's 24th byte: Pillow shows 16-bit colours as if they were 8)."""
    return image.mode in ("L", "RGB", "RGBA") and "transparency" not in image.info and picture.data[24] == 8


# ── pictures that go out ─────────────────────────────────────────────────────────────────────────────────


@in_turn
def transcode(picture: Picture, mime_type: OutputType, quality: int = 75) -> Picture:
    """The picture as PNG or JPEG. JPEG knows no transparency: it is laid on white."""
    if picture.mime_type == mime_type:
        return picture
    image = decode(picture)
    if mime_type == "image/jpeg":
        image = opaque(image, "white")
    return Picture(_encode(image, mime_type, quality), mime_type, image.size)


def opaque(image: Image.Image, ground: str) -> Image.Image:
    """The image laid on a ground. (Not by alpha_composite, which holds the GIL all the time.)"""
    if image.mode != "RGBA":
        return image
    opaque = Image.new("RGB", image.size, ground)
    opaque.paste(image, mask=image.getchannel("A"))
    opaque.info = image.info
    return opaque


def png(image: Image.Image) -> Picture:
    return Picture(_encode(image, "image/png"), "image/png", image.size)


@in_turn
def fit(picture: Picture, size: tuple[int, int]) -> Picture:
    """A PNG of exactly this size: scaled to cover it, what stands out cut off evenly."""
    image = ImageOps.fit(decode(picture), size, Image.Resampling.LANCZOS)
    return png(image)


@in_turn
def limit(picture: Picture, longest_side: int) -> Picture:
    """The picture itself, or a PNG scaled down so that neither side is longer."""
    if max(picture.size) <= longest_side:
        return picture
    image = ImageOps.contain(decode(picture), (longest_side, longest_side), Image.Resampling.LANCZOS)
    return png(image)


@in_turn
def lighten(picture: Picture, most_bytes: int, *, keep_size: bool) -> Picture:
    """The picture itself, or the best that has no more bytes: a PNG, else a JPEG on white.

    A JPEG may come out at half its sides unless it has to `keep_size`: a photograph of so many bytes has more
    pixels than models look at, and a fourth of them takes a fourth of the memory. Raises PictureTooLarge.
    """
    if len(picture.data) <= most_bytes:
        return picture
    image = _open(picture)
    attempts = [("image/jpeg", quality) for quality in (95, 85, 75, 50, 25)]
    if picture.mime_type != "image/jpeg":
        attempts.insert(0, ("image/png", 0))
    elif not keep_size:
        image.draft(None, (image.width // 2, image.height // 2))
    _load(image)
    image = _plain(image)
    for mime_type, quality in attempts:
        if mime_type == "image/jpeg":
            image = opaque(image, "white")
        with suppress(_Full):
            return Picture(_encode(image, mime_type, quality, _Limited(most_bytes)), mime_type, image.size)
    raise PictureTooLarge(f"more than {most_bytes} bytes however it is encoded")


class _Full(Exception):
    """More was written than may be."""


class _Limited(BytesIO):
    """A file in memory that stays small: an encoder that writes more ends with _Full."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most = most_bytes

    def write(self, data: "Buffer", /) -> int:
        if self.tell() + len(memoryview(data)) > self._most:
            raise _Full
        return super().write(data)
