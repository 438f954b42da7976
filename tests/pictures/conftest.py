from collections.abc import Iterator
from pathlib import Path

import pytest

from app.pictures.work_folder import WorkFolder
from tests.pictures.reading import assert_empty


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[WorkFolder]:
    """Blobs above 100 bytes go to disk."""
    with WorkFolder(tmp_path, blob_memory_bytes=100) as made:
        yield made
        assert_empty(made)
