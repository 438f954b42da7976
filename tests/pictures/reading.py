"""Reading a whole JSON text in pieces, and what is left afterwards."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.pictures.blob import Blob, Blobs
from app.pictures.in_json import JsonReader
from app.pictures.json_limits import Limits
from app.pictures.work_folder import WorkFolder


def assert_empty(folder: WorkFolder) -> None:
    """No blob is open: nothing is reserved, and no file is left."""
    assert (folder.memory_used, folder.disk_used) == (0, 0)
    assert not [path for path in folder.path.iterdir() if path.name != ".lock"]


def read(source: Iterable[bytes], blobs: Blobs, limits: Limits | None = None) -> object:
    """The value, with bytes for its blobs, which are closed."""
    with JsonReader(blobs.new, limits) as reader:
        for piece in source:
            reader.feed(piece)
        value = reader.finish()
    found = reader.blobs
    value = plain(value, found)
    assert not found, "a blob that is not in the value"
    return value


def plain(value: object, found: list[Blob]) -> object:
    if isinstance(value, Blob):
        found.remove(value)
        with value:
            return b"".join(value.pieces())
    if isinstance(value, dict):
        return {key: plain(inner, found) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, found) for inner in value]
    return value


def cut(source: bytes, places: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for place in sorted(place % (len(source) + 1) for place in places):
        yield source[start:place]
        start = place
    yield source[start:]


@contextmanager
def some_blobs(memory_bytes: int = 1000) -> Iterator[Blobs]:
    """A scope in which nothing may be left open."""
    with (
        TemporaryDirectory() as parent,
        WorkFolder(Path(parent), memory_bytes=memory_bytes) as folder,
        folder.blobs() as blobs,
    ):
        yield blobs
        assert_empty(folder)
