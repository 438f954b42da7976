"""Arguments for calling a provider: a Call, and pictures in blobs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from app.pictures.blob import Blobs
from app.pictures.picture import Picture, picture
from app.pictures.work_folder import WorkFolder
from app.ports import Call
from tests.support.fake_wish import NotedWish


@contextmanager
def scope() -> Iterator[Blobs]:
    """Yields a scope. Blobs above 100,000 bytes are on disk; fails if one is left there at the end."""
    with TemporaryDirectory() as folder, WorkFolder(Path(folder), blob_memory_bytes=100_000) as work:
        with work.blobs() as blobs:
            yield blobs
        assert not list(work.path.glob("*.part"))


def call(blobs: Blobs, *, seconds: float = 20, trouble: str | None = None) -> Call:
    """Returns a Call with deadlines `seconds` from now."""
    ends = asyncio.get_running_loop().time() + seconds
    return Call(
        "tester",
        "request-1",
        answer_by=ends,
        store_by=ends,
        ends=ends,
        blobs=blobs,
        wish=NotedWish(),
        trouble=trouble,
    )


def encoded(image: Image.Image, format: str = "PNG", **options: int) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def grey(blobs: Blobs, size: tuple[int, int]) -> Picture:
    return picture(blobs.of(encoded(Image.new("RGB", size, "gray"))))
