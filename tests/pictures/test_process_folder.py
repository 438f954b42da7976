"""The folders of processes under one parent."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.pictures.process_folder import _locked, dead_folders


def test_nobody_looks_for_dead_folders_while_a_folder_is_made(tmp_path: Path) -> None:
    """A new folder has no lock yet, and would be taken for a dead one."""
    with ThreadPoolExecutor() as pool:
        with _locked(tmp_path):
            looking = pool.submit(lambda: list(dead_folders(tmp_path, "p-")))
            with pytest.raises(TimeoutError):
                looking.result(0.2)
        assert looking.result(20) == []
