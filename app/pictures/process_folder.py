"""A folder of this process alone, beside those of others under one parent.

Each process holds a lock (flock) on its own. The kernel frees the lock when the process ends, however it
ends, so a folder whose lock is free belongs to nobody: whoever finds it may clear it away.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from app.pictures.room import NoRoom

LOCK = ".lock"
_MAX_USED = 32
_MAX_USED_BYTES = 4_000_000
"""So many files, each of so many bytes at most, wait to be written over. A file that has its pages and its
blocks on the disk is written four times as fast as a new one, and an emptied one is slower than both."""


class ProcessFolder:
    """Makes the folder `path`, for the owner only, whose name begins with `prefix`. Raises OSError."""

    def __init__(self, parent: Path, prefix: str) -> None:
        self._numbers = count(1)
        self._used: list[Path] = []  # to be written over
        self._unwanted: list[Path] = []  # to be deleted
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(parent):
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._lock = _lock(self.path)

    def create(self, *, buffered: bool, new: bool = False) -> tuple[Path, BinaryIO]:
        """Returns a file, `….part`, that only the owner can read. Raises NoRoom.

        Unless `new`, it may hold bytes of a removed one: write over them, and truncate it when it is whole.
        """
        buffering = -1 if buffered else 0
        while self._used and not new:
            with suppress(IndexError, OSError):  # another thread was faster, or the file is gone
                path = self._used.pop()
                return path, open(path, "r+b", buffering=buffering)
        path = self._new_path()
        try:
            return path, open(path, "xb", buffering=buffering, opener=_for_the_owner)
        except OSError as exc:
            raise NoRoom(f"{self.path}: {exc.strerror}") from exc

    def remove(self, path: Path) -> bool:
        """Take away a file that nobody has open. Raises OSError.

        It will be written over, or is to be deleted: returns whether `delete_unwanted` has work.
        """
        new = self._new_path()
        path.rename(new)
        reusable = len(self._used) < _MAX_USED and new.stat().st_size <= _MAX_USED_BYTES
        (self._used if reusable else self._unwanted).append(new)
        return bool(self._unwanted)

    def delete_unwanted(self) -> None:
        """Slow: the disk may first have to write what is then deleted. Raises OSError."""
        _delete(self._unwanted)

    def delete_used(self) -> None:
        """Delete the files that wait to be written over. As slow. Raises OSError."""
        _delete(self._used)

    def clear(self) -> None:
        """Delete the files that wait to be written over, and empty folders: itself too. Raises OSError."""
        self.delete_unwanted()
        self.delete_used()
        remove_empty(self.path)

    def _new_path(self) -> Path:
        return self.path / f"{next(self._numbers)}.part"

    def close(self) -> None:
        """Give the folder up. What is in it belongs to nobody."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def dead_folders(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields the folders of processes that have ended. Each is locked until the next one is asked for.

    May take as long as the disk. Raises OSError.
    """
    with _locked(parent), os.scandir(parent) as entries:  # not later: a folder just made has no lock yet
        found = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)
        ]
    for folder in found:
        try:
            handle = _lock(folder)
        except OSError:  # its process is alive, or it is another user's, or it is gone
            continue
        try:
            yield folder
        finally:
            os.close(handle)


def has_ended(folder: Path) -> bool | None:
    """Returns whether the process of a folder has ended; None if that cannot be told here.

    It cannot if there is no such folder, or if it is another user's.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def remove_empty(folder: Path) -> None:
    """Remove the folders in it that are empty, and itself if nothing but its lock is left."""
    for path, _, _ in os.walk(folder, topdown=False):
        if Path(path) != folder:
            with suppress(OSError):
                os.rmdir(path)
    with suppress(OSError):
        if os.listdir(folder) == [LOCK]:
            os.unlink(folder / LOCK)
        os.rmdir(folder)


def _delete(files: list[Path]) -> None:
    """Empty the list, which another thread may change meanwhile."""
    with suppress(IndexError):
        while True:
            files.pop().unlink(missing_ok=True)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _lock(folder: Path, *, wait: bool = False) -> int:
    """Returns the locked file, which is unlocked by closing it. Raises BlockingIOError if it is taken."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """Held while a folder is made and while others are looked for: a new folder is not yet locked."""
    handle = _lock(parent, wait=True)
    try:
        yield
    finally:
        os.close(handle)
