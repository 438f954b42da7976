"""Gateways whose blobs are all files, in a work folder that tells what happens in it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Condition
from typing import Any, BinaryIO

import pytest

from app import parts
from app.pictures.work_folder import WorkFolder
from tests.api.conftest import Start

_PATIENCE_SECONDS = 60


class WatchedFolder(WorkFolder):
    """Counts the files that were made in it. Thread-safe."""

    def __init__(self, parent: Path, **limits: int) -> None:
        self._changed = Condition()
        self.made = 0
        super().__init__(parent, **limits)

    def create(self) -> tuple[Path, BinaryIO]:
        created = super().create()
        with self._changed:
            self.made += 1
            self._changed.notify_all()
        return created

    def give_disk(self, size: int, owner: str | None = None) -> None:
        super().give_disk(size, owner)
        with self._changed:
            self._changed.notify_all()

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if path.name != ".lock")

    def wait_for_files(self, made: int) -> None:
        """Wait until so many files were made since the start. Raises TimeoutError."""
        self._wait(lambda: self.made >= made)

    def wait_until_empty(self) -> None:
        """Wait until nothing is kept any more. Raises TimeoutError."""
        self._wait(lambda: (self.memory_used, self.disk_used) == (0, 0))
        assert self.files == []

    def _wait(self, done: Any) -> None:
        with self._changed:
            if not self._changed.wait_for(done, _PATIENCE_SECONDS):
                raise TimeoutError(f"{self.made} files were made, {self.disk_used} bytes in {self.files}")


@contextmanager
def watched(start: Start, **settings: Any) -> Iterator[tuple[str, WatchedFolder]]:
    """Start a gateway that keeps no blob in memory. Yields its URL and its work folder."""
    made: list[WatchedFolder] = []

    def folder(parent: Path, **limits: int) -> WatchedFolder:
        made.append(WatchedFolder(parent, memory_bytes=0, **limits))
        return made[0]

    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "WorkFolder", folder)
            url = running.enter_context(start(**settings))
        yield url, made[0]
