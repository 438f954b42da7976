"""Where blobs live: a folder of this process alone, and an allowance of memory.

Each process has its own subfolder and holds a lock (flock) on it. The kernel frees the lock when the process
ends, however it ends, so a subfolder whose lock is free belongs to nobody and is removed.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Self

from app.pictures.blob import Blobs, NoRoom

_PREFIX = "work-"
_LOCK = ".lock"


class WorkFolder:
    """Makes blobs, and bounds what all of them hold.

    All blobs together hold at most `memory_bytes` in memory, one blob at most `blob_memory_bytes`: a blob
    that must leave memory is written to disk at one stroke. `max_bytes` bounds the files (WORK_BYTES).
    """

    def __init__(
        self,
        parent: Path,
        *,
        max_bytes: int = 4 * 1024**3,
        memory_bytes: int = 64_000_000,
        blob_memory_bytes: int = 16_000_000,
    ) -> None:
        self.memory_used = 0
        self.disk_used = 0
        self._parent = parent
        self._max_bytes = max_bytes
        self._memory_bytes = memory_bytes
        self._blob_memory_bytes = blob_memory_bytes
        self._counting = Lock()
        self._numbers = count(1)
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.clean()
        with _locked(parent):
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))  # for the owner only
            self._lock = _lock(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def blobs(self) -> Blobs:
        """Returns a new scope of blobs, to be closed by the caller."""
        return Blobs(self)

    def clean(self) -> int:
        """Remove the folders of processes that have ended. Returns how many. May take as long as the disk."""
        removed = 0
        with _locked(self._parent), os.scandir(self._parent) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                    with suppress(OSError):  # its process is alive, or it is another user's
                        removed += _remove_if_dead(Path(entry.path))
        return removed

    def close(self) -> None:
        """Remove the folder with all its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # ── what blobs need (`app.pictures.blob.Room`) ───────────────────────────────────────────────────────

    def take_memory(self, size: int, held: int) -> bool:
        with self._counting:
            room = held + size <= self._blob_memory_bytes and self.memory_used + size <= self._memory_bytes
            if room:
                self.memory_used += size
            return room

    def give_memory(self, size: int) -> None:
        with self._counting:
            self.memory_used -= size

    def take_disk(self, size: int) -> None:
        with self._counting:
            if self.disk_used + size > self._max_bytes:
                raise NoRoom(f"temporary files would hold more than {self._max_bytes} bytes")
            self.disk_used += size

    def give_disk(self, size: int) -> None:
        with self._counting:
            self.disk_used -= size

    def create(self) -> tuple[Path, BinaryIO]:
        path = self.path / f"{next(self._numbers)}.part"
        try:
            return path, open(path, "xb", opener=_for_the_owner)
        except OSError as exc:
            raise NoRoom(exc.strerror) from exc


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _lock(folder: Path, *, wait: bool = False) -> int:
    """Returns the locked file, which is unlocked by closing it. Raises BlockingIOError if it is taken."""
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """Held while a folder is made and while others are removed: a new folder is not yet locked."""
    handle = _lock(parent, wait=True)
    try:
        yield
    finally:
        os.close(handle)


def _remove_if_dead(folder: Path) -> bool:
    handle = _lock(folder)
    try:
        shutil.rmtree(folder)
    finally:
        os.close(handle)
    return True
