"""The room of a process for blobs: a folder of its own, and an allowance of memory."""

import os
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Self

from app.pictures.blob import Blobs
from app.pictures.picture import MAX_PICTURE_BYTES
from app.pictures.process_folder import ProcessFolder, dead_folders
from app.pictures.room import NoRoom

_PREFIX = "work-"
_SCOPE_BYTES = 80_000
"""The memory of a request besides its blobs, mostly while it waits for a model: 66,000 bytes were measured
(`python -m bench.crowd`)."""
_CHECK_SECONDS = 1.0
"""How long the result of a check of the disk stays valid."""


class WorkFolder:
    """Makes blobs, and limits the bytes of all blobs together.

    `memory_bytes` is the limit in memory. It falls to a quarter while many scopes are open, because each
    scope is a request that needs memory besides its blobs. `blob_memory_bytes` is the limit of one blob in
    memory: a blob that must leave memory is written to disk in one step. `max_bytes` (WORK_BYTES) is the
    limit of all files; half of it is the limit of one owner. Folders of processes that have ended are
    removed.
    """

    def __init__(
        self,
        parent: Path,
        *,
        max_bytes: int = 4 * 1024**3,
        memory_bytes: int = 48_000_000,
        blob_memory_bytes: int = 16_000_000,
    ) -> None:
        self.memory_used = 0
        self.disk_used = 0
        self._max_bytes = max_bytes
        self._memory_bytes = memory_bytes
        self._blob_memory_bytes = blob_memory_bytes
        self._scopes = 0
        self._most_scopes = 0.0  # recently
        self._disk_used_by: Counter[str] = Counter()
        self._counting = Lock()
        self._checked = -_CHECK_SECONDS
        self._parent = parent
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.clean()
        self._folder = ProcessFolder(parent, _PREFIX)
        self.path = self._folder.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def blobs(self, owner: str | None = None) -> Blobs:
        """Returns a new scope of blobs, which the caller closes. Their files count for `owner`."""
        with self._counting:
            self._scopes += 1
            self._most_scopes = max(self._scopes, self._most_scopes)
        return Blobs(_Share(self, owner) if owner else self, ended=self._scope_ended)

    def _scope_ended(self) -> None:
        with self._counting:
            self._scopes -= 1
            # It falls slowly, because Python frees the memory of ended requests slowly.
            self._most_scopes = max(self._scopes, self._most_scopes - 0.25)

    def clean(self) -> int:
        """Remove the folders of processes that have ended. Returns their number. Can be as slow as the
        disk."""
        removed = 0
        for folder in dead_folders(self._parent, _PREFIX):
            with suppress(OSError):
                shutil.rmtree(folder)
                removed += 1
        return removed

    def close(self) -> None:
        """Remove the folder with all its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._folder.close()

    # ── what blobs need (`app.pictures.room.Room`) ───────────────────────────────────────────────────────

    def take_memory(self, size: int, held: int) -> bool:
        with self._counting:
            most = max(self._memory_bytes - self._most_scopes * _SCOPE_BYTES, self._memory_bytes // 4)
            room = held + size <= self._blob_memory_bytes and self.memory_used + size <= most
            if room:
                self.memory_used += size
            return room

    def give_memory(self, size: int) -> None:
        with self._counting:
            self.memory_used -= size

    def take_disk(self, size: int, owner: str | None = None) -> None:
        with self._counting:
            if self.disk_used + size > self._max_bytes:
                raise NoRoom(f"{self.path}: temporary files would hold more than {self._max_bytes} bytes")
            if owner:
                share = self._max_bytes // 2
                if self._disk_used_by[owner] + size > share:
                    raise NoRoom(f"{self.path}: files of one user would hold more than {share} bytes")
                self._disk_used_by[owner] += size
            self.disk_used += size

    def give_disk(self, size: int, owner: str | None = None) -> None:
        with self._counting:
            self.disk_used -= size
            if owner:
                self._disk_used_by[owner] -= size
                if not self._disk_used_by[owner]:
                    del self._disk_used_by[owner]

    def create(self) -> tuple[Path, BinaryIO]:
        return self._folder.create(buffered=True)

    def check(self, owner: str | None = None) -> None:
        """Raises NoRoom if nothing more could be kept on disk now. Looks at the disk at most once a
        second."""
        self.take_disk(1, owner)
        self.give_disk(1, owner)
        if time.monotonic() - self._checked < _CHECK_SECONDS:
            return
        path, file = self._folder.create(buffered=False)
        try:
            with file:
                file.write(b"?")
            disk = os.statvfs(self.path)
            if disk.f_bavail * disk.f_frsize < MAX_PICTURE_BYTES:
                raise NoRoom(f"{self.path}: fewer than {MAX_PICTURE_BYTES} bytes are free")
        except OSError as exc:
            raise NoRoom(f"{self.path}: {exc.strerror}") from exc
        finally:
            path.unlink(missing_ok=True)
        self._checked = time.monotonic()


class _Share:
    """The room of one owner in a WorkFolder: files count for the owner."""

    def __init__(self, folder: WorkFolder, owner: str) -> None:
        self._folder = folder
        self._owner = owner
        self.take_memory = folder.take_memory
        self.give_memory = folder.give_memory
        self.create = folder.create

    def take_disk(self, size: int) -> None:
        self._folder.take_disk(size, self._owner)

    def give_disk(self, size: int) -> None:
        self._folder.give_disk(size, self._owner)

    def check(self) -> None:
        self._folder.check(self._owner)
