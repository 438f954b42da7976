from collections.abc import Iterator
from pathlib import Path

import pytest

from app.pictures.blob import Blobs
from app.pictures.work_folder import WorkFolder
from tests.pictures.reading import assert_empty
from tests.pictures.samples import a_scope


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[WorkFolder]:
    """Blobs above 100 bytes go to disk."""
    with WorkFolder(tmp_path, blob_memory_bytes=100) as made:
        yield made


@pytest.fixture
def blobs(folder: WorkFolder) -> Iterator[Blobs]:
    """A scope in `folder`. Fails if a blob is still open when the test ends."""
    with folder.blobs() as made:
        yield made
        assert_empty(folder)


@pytest.fixture(params=[10**9, 0], ids=["in memory", "on disk"])
def scope(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Where `tests.pictures.samples` makes its pictures."""
    with a_scope(tmp_path, request.param):
        yield
