"""A folder for one process. The folders of all processes are in one parent folder.

Each process holds a lock (flock) on its folder. The kernel frees the lock when the process ends, however it
ends. So any process can clean up a folder if its lock is free.
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
"""The most files that are kept for reuse, and the most bytes of each. Overwriting a file is four times as
fast as writing a new one, since it has its pages and blocks. An emptied file is slower than both."""


class ProcessFolder:
    """Makes a folder, `path`, that only the owner can read. Its name begins with `prefix`. Raises OSError."""

    def __init__(self, parent: Path, prefix: str) -> None:
        self._numbers = count(1)
        self._used: list[Path] = []  # to be overwritten
        self._unwanted: list[Path] = []  # to be deleted
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(parent):
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._lock = _lock(self.path)

    def create(self, *, buffered: bool, new: bool = False) -> tuple[Path, BinaryIO]:
        """Returns a file, `….part`, that only the owner can read. Raises NoRoom.

        Unless `new`, it can contain the bytes of a removed file: truncate it at the end of the writing.
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
        """Remove a file that is not open anywhere. Raises OSError.

        It is kept for reuse, or deleted later. Returns whether `delete_unwanted` has files to delete.
        """
        new = self._new_path()
        path.rename(new)
        reusable = len(self._used) < _MAX_USED and new.stat().st_size <= _MAX_USED_BYTES
        (self._used if reusable else self._unwanted).append(new)
        return bool(self._unwanted)

    def delete_unwanted(self) -> None:
        """Delete the removed files that are not reused. Slow: the disk may first write them. Raises
        OSError."""
        _delete(self._unwanted)

    def delete_used(self) -> None:
        """Delete the files that are kept for reuse. As slow. Raises OSError."""
        _delete(self._used)

    def clear(self) -> None:
        """Delete all removed files and empty folders, and this folder if it is empty. Raises OSError."""
        self.delete_unwanted()
        self.delete_used()
        remove_empty(self.path)

    def _new_path(self) -> Path:
        return self.path / f"{next(self._numbers)}.part"

    def close(self) -> None:
        """Free the lock: any process can now clean up the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def dead_folders(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields the folders of processes that have ended. Each is locked until the next one is requested.

    Can be as slow as the disk. Raises OSError.
    """
    with _locked(parent), os.scandir(parent) as entries:  # a folder that is made later has no lock yet
        found = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)
        ]
    for folder in found:
        try:
            handle = _lock(folder)
        except OSError:  # its process is alive, or it belongs to another user, or it is gone
            continue
        try:
            yield folder
        finally:
            os.close(handle)


def has_ended(folder: Path) -> bool | None:
    """Returns whether the process of a folder has ended; None if that cannot be determined.

    It is None if the folder does not exist, or belongs to another user.
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
    """Remove the empty folders in it, and the folder itself if only its lock is left."""
    for path, _, _ in os.walk(folder, topdown=False):
        if Path(path) != folder:
            with suppress(OSError):
                os.rmdir(path)
    with suppress(OSError):
        if os.listdir(folder) == [LOCK]:
            os.unlink(folder / LOCK)
        os.rmdir(folder)


def _delete(files: list[Path]) -> None:
    """Delete the files and empty the list, which other threads can change meanwhile."""
    with suppress(IndexError):
        while True:
            files.pop().unlink(missing_ok=True)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _lock(folder: Path, *, wait: bool = False) -> int:
    """Returns the handle of the lock; closing it frees the lock. Raises BlockingIOError if it is held."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """Locks the parent while a folder is made, or folders are listed: a new folder has no lock yet."""
    handle = _lock(parent, wait=True)
    try:
        yield
    finally:
        os.close(handle)
