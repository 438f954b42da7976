from collections.abc import Iterator
from pathlib import Path

import pytest

from app.pictures.work_folder import WorkFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[WorkFolder]:
    """Blobs above 100 bytes go to disk."""
    with WorkFolder(tmp_path, blob_memory_bytes=100) as made:
        yield made
        assert_empty(made)


def assert_empty(folder: WorkFolder) -> None:
    """No blob is open: nothing is reserved, and no file is left."""
    assert (folder.memory_used, folder.disk_used) == (0, 0)
    assert not [path for path in folder.path.iterdir() if path.name != ".lock"]
