"""Opening and decoding files with Pillow."""

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import BinaryIO, Concatenate, ParamSpec, TypeVar

from PIL import Image

from app.pictures.picture import MAX_PIXELS, NotAPicture, Picture, PictureTooLarge

P = ParamSpec("P")
T = TypeVar("T")

_LARGE_PIXELS = 16_000_000
_large = threading.Lock()
"""A file of 34 bytes can unpack to 50 megapixels, which take 200 MB, or 800 MB for a WebP. So only one large
picture is open at a time, however many requests have one."""


def in_turn(work: Callable[Concatenate[Picture, P], T]) -> Callable[Concatenate[Picture, P], T]:
    """Decorates a function that opens a picture: on large pictures, only one runs at a time."""

    @wraps(work)
    def turn(picture: Picture, /, *args: P.args, **kwargs: P.kwargs) -> T:
        width, height = picture.size
        if width * height <= _LARGE_PIXELS:
            return work(picture, *args, **kwargs)
        with _large:
            return work(picture, *args, **kwargs)

    return turn


@contextmanager
def opened(picture: Picture) -> Iterator[Image.Image]:
    """Opens a picture and reads its header. Raises NotAPicture and PictureTooLarge.

    After `load`, the image can be used outside the context.
    """
    if picture.size[0] * picture.size[1] > MAX_PIXELS:
        raise PictureTooLarge("too many pixels")
    with picture.blob.open() as file:
        yield _header(file)  # no reference is kept here, so that the caller can free the pixels


def _header(file: BinaryIO) -> Image.Image:
    with _not_a_picture():
        image = Image.open(file)
    _forget_texts(image)
    return image


def load(image: Image.Image) -> None:
    """Decode the pixels. Raises NotAPicture."""
    with _not_a_picture():
        image.load()
    _forget_texts(image)


def skim(jpeg: Image.Image) -> None:
    """Read the whole file, but keep only a sixty-fourth of its pixels. Raises NotAPicture."""
    jpeg.draft(None, (1, 1))
    load(jpeg)


def _forget_texts(image: Image.Image) -> None:
    """Drop texts of a PNG that have the names of other properties, which would be bytes."""
    for name in ("icc_profile", "transparency"):
        if isinstance(image.info.get(name), str):
            del image.info[name]


@contextmanager
def _not_a_picture() -> Iterator[None]:
    """Raises NotAPicture for the errors that Pillow raises on broken files."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as exc:
        raise NotAPicture("broken") from exc
