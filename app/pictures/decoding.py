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


@contextmanager
def opened(picture: Picture) -> Iterator[Image.Image]:
    """The picture with its header read. Raises NotAPicture and PictureTooLarge.

    Once it is loaded it may be used after the context.
    """
    if picture.size[0] * picture.size[1] > MAX_PIXELS:
        raise PictureTooLarge("too many pixels")
    with picture.blob.open() as file:
        yield _header(file)  # not held here, so that its user can free the pixels


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
    """Read all of the file, but keep a sixty-fourth of the pixels. Raises NotAPicture."""
    jpeg.draft(None, (1, 1))
    load(jpeg)


def _forget_texts(image: Image.Image) -> None:
    """A PNG's text may have the name of something that is not text."""
    for name in ("icc_profile", "transparency"):
        if isinstance(image.info.get(name), str):
            del image.info[name]


@contextmanager
def _not_a_picture() -> Iterator[None]:
    """Pillow's complaints in, ours out."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as exc:
        raise NotAPicture("broken") from exc
