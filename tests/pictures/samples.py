"""Pictures in the scope of the test that runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from app.pictures.blob import Blob, Blobs
from app.pictures.picture import Picture, picture
from app.pictures.work_folder import WorkFolder
from tests.pictures.reading import assert_empty

_scopes: list[Blobs] = []


@contextmanager
def a_scope(parent: Path, blob_memory_bytes: int) -> Iterator[None]:
    """Within it pictures can be made. In the end they are deleted, and nothing is left."""
    with WorkFolder(parent, blob_memory_bytes=blob_memory_bytes) as folder:
        with folder.blobs() as blobs:
            _scopes.append(blobs)
            yield
            _scopes.pop()
        assert_empty(folder)


def blob(data: bytes) -> Blob:
    return _scopes[-1].of(data)


def taken(data: bytes) -> Picture:
    """A caller's picture."""
    return picture(blob(data))


def content(of: Picture | Blob) -> bytes:
    return b"".join((of if isinstance(of, Blob) else of.blob).pieces())


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def file(image: Image.Image, format: str = "PNG", **options: Any) -> Picture:
    return taken(encoded(image, format, **options))


def opened(picture: Picture) -> Image.Image:
    """Decoded without the code under test."""
    image = Image.open(BytesIO(content(picture)))
    image.load()
    return image


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Different in every pixel and channel."""
    width, height = size
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(
        mode, size, bytes((at * 37 + at // 7) % 256 for at in range(width * height * bands))
    )
