"""Pictures that are paid for, on disk from the moment they are whole until the bucket has them.

Each process has a folder of its own. What a dead process has left is taken over by another one and uploaded.
A file holds exactly the picture's bytes, and its path says where it belongs (`spool_paths.py`). Files are
overwritten: after a power cut, the checksum in the path shows which picture's bytes they are.
"""

import asyncio
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import structlog

from app.contract.errors import GatewayError, UpstreamUnavailable
from app.disk import in_thread
from app.logs import causes
from app.pictures.blob import Blob, Blobs
from app.pictures.process_folder import ProcessFolder, dead_folders, remove_empty
from app.pictures.room import NoRoom
from app.ports import Storage
from app.storage.spool_files import Upload, copied, opened, sync, try_to_write
from app.storage.spool_paths import PREFIX, beginning_with, files, label_of, object_of, relative

log = structlog.get_logger(__name__)

_UPLOADS = 4
"""How many kept pictures are uploaded at a time: fewer than the storage takes, so that new ones find room."""
_TAKE_OVER_SECONDS = 60
_FAILURES = 8
"""After this many failures in a row, stop for a while: the storage is down."""
_LONGEST_PAUSES = 16
_LONGEST_REFUSAL_SECONDS = 3600


class DiskSpool:
    """The port `Spool` on disk: the pictures under `parent`, of this process and of dead ones.

    Files with other names are left alone. `ready` requires `min_free_bytes` free bytes on its disk. With
    `fsync` what has landed survives a power cut. To be closed after the last use.
    """

    def __init__(self, parent: Path, *, min_free_bytes: int = 0, fsync: bool = False) -> None:
        self._parent = parent
        self._min_free_bytes = min_free_bytes
        self._fsync = fsync
        self._waiting: dict[Path, Upload] = {}
        self._making = Lock()  # held while folders are made or removed
        self._own: ProcessFolder | None = None
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._own = ProcessFolder(parent, PREFIX)
        except OSError as exc:  # `ready` tries again
            log.warning("the spool is not writable", folder=str(parent), cause=causes(exc))

    def close(self) -> None:
        """Other processes upload what is left."""
        if self._own:
            with suppress(OSError):
                self._own.clear()
            self._own.close()

    # ── pictures of this process ─────────────────────────────────────────────────────────────────────────

    def blobs(self, spare: Blobs | None, /) -> Blobs:
        return Blobs(self, crc32c=True, spare=spare)  # Cloud Storage will ask for the checksum

    async def land(self, blob: Blob, bucket: str, name: str, /) -> Path:
        if not self._own:
            raise NoRoom(f"{self._parent}: not writable")
        own = self._own.path
        if blob.in_memory or blob.path().parent != own:
            with self.blobs(None) as copies:
                return await self.land(await asyncio.to_thread(copied, blob, copies), bucket, name)
        path = own / relative(bucket, name, blob.crc32c())
        if not self._fsync:
            self._rename(blob, path)
            return path
        try:
            await self._synced(blob.path())
        finally:
            self._rename(blob, path)  # also if the caller leaves meanwhile
        await self._synced(*path.parents[: len(path.relative_to(self._parent).parts)])
        return path

    async def _synced(self, *paths: Path) -> None:
        try:
            await asyncio.to_thread(sync, *paths)
        except OSError as exc:  # it is written: only a power cut can lose it
            log.warning("a picture is not synced", folder=str(self._parent), cause=causes(exc))

    def _rename(self, blob: Blob, path: Path) -> None:
        try:
            with suppress(FileNotFoundError):
                blob.rename(path)
                return
            with self._making:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                blob.rename(path)
        except OSError as exc:
            raise NoRoom(f"{self._parent}: {exc.strerror}") from exc

    def remove(self, path: Path, /) -> None:
        try:
            with suppress(FileNotFoundError):
                if not self._own:
                    path.unlink()
                elif self._own.remove(path):
                    in_thread(self._delete_unwanted)
        except OSError as exc:
            log.warning("a stored picture cannot be deleted", file=path.name, cause=causes(exc))

    def _delete_unwanted(self) -> None:
        try:
            if self._own:
                self._own.delete_unwanted()
        except OSError as exc:
            log.warning("stored pictures cannot be deleted", folder=str(self._parent), cause=causes(exc))

    def release(self, path: Path, /) -> None:
        self._waiting[path] = Upload(time.time())

    async def find(self, bucket: str, stem: str, /) -> list[str]:
        return sorted(await asyncio.to_thread(self._names, bucket, stem))

    def _names(self, bucket: str, stem: str) -> set[str]:
        names = set()
        for _ in range(2):  # a file that another process takes over meanwhile can be missed once, not twice
            for path in beginning_with(self._parent, bucket, stem):
                with self.blobs(None) as blobs, suppress(OSError, ValueError):  # uploaded by now, or damaged
                    names.add(opened(path, self._parent, blobs)[1])
        return names

    async def ready(self) -> str | None:
        try:
            await asyncio.to_thread(self._try)
        except (OSError, NoRoom) as exc:
            raise OSError(getattr(exc, "errno", None), str(exc), str(self._parent)) from exc
        stuck = any(one.due for one in self._waiting.values())
        return "pictures wait that cannot be uploaded" if stuck else None

    def _try(self) -> None:
        with self._making:
            if self._own and not self._own.path.is_dir():
                self._own.close()
                self._own = None
            self._own = self._own or ProcessFolder(self._parent, PREFIX)
        try:
            try_to_write(self._own, self._min_free_bytes)
        except (OSError, NoRoom):
            self._own.delete_used()
            try_to_write(self._own, self._min_free_bytes)

    # ── what its blobs need (`app.pictures.room.Room`) ───────────────────────────────────────────────────

    def take_memory(self, size: int, held: int) -> bool:
        return False

    def give_memory(self, size: int) -> None: ...

    def take_disk(self, size: int) -> None: ...

    def give_disk(self, size: int) -> None: ...

    def create(self) -> tuple[Path, BinaryIO]:
        """Unbuffered: when the disk is full, all that was written before can be read."""
        if not self._own:
            raise NoRoom(f"{self._parent}: not writable")
        return self._own.create(buffered=False)

    def check(self) -> None: ...

    # ── pictures that wait ───────────────────────────────────────────────────────────────────────────────

    async def run(self, storage: Storage, every_seconds: float) -> None:
        """Until cancelled, take over what dead processes have left, and upload what waits."""
        looked = -math.inf
        while True:
            try:
                if time.monotonic() - looked >= _TAKE_OVER_SECONDS:
                    looked = time.monotonic()
                    await self.take_over()
                await self.drain(storage, every_seconds)
                if self._own:
                    await asyncio.to_thread(self._own.delete_used)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the pictures are tried again
                log.warning("the spool cannot be read", folder=str(self._parent), cause=causes(exc))
            await asyncio.sleep(min(every_seconds, _TAKE_OVER_SECONDS))

    async def take_over(self) -> int:
        """Returns the number of pictures that were found. Raises OSError."""
        found: dict[Path, Upload] = {}
        try:
            await asyncio.to_thread(self._find, found)
        finally:
            self._waiting.update(found)
        if found:
            log.info("pictures found on the spool", number=len(found))
        return len(found)

    def _find(self, found: dict[Path, Upload]) -> None:
        """Move files of dead processes, and those of the first edition, into the process's own folder.

        Partial files are deleted, and so are folders that are then empty.
        """
        if not self._own:
            return
        with os.scandir(self._parent) as entries:
            flat = [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
        for path in flat:
            if label_of(path):
                self._move(path, Path(path.name), found)
        for folder in dead_folders(self._parent, PREFIX):
            for path in files(folder):
                inner = path.relative_to(folder)
                if len(inner.parts) == 1 and path.suffix == ".part":
                    self.remove(path)
                elif object_of(inner) or label_of(path):
                    self._move(path, inner, found)
            remove_empty(folder)
        for folder_path, _, _ in os.walk(self._own.path, topdown=False):
            with self._making, suppress(OSError):
                os.rmdir(folder_path)  # those that are empty

    def _move(self, path: Path, inner: Path, found: dict[Path, Upload]) -> None:
        if not self._own:
            return
        new = self._own.path / inner
        try:
            kept_at = path.stat().st_mtime
            with self._making:
                new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.rename(new)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as exc:
            log.warning("a picture on the spool cannot be moved", file=path.name, cause=causes(exc))
            return
        found[new] = Upload(kept_at)

    async def drain(self, storage: Storage, every_seconds: float = 0.0) -> int:
        """Upload what is due, oldest first. Returns the number of pictures that were uploaded.

        What fails is due again after `every_seconds`, then after twice that, and so on. Ends early if the
        storage seems to be down.
        """
        now = time.monotonic()
        due = sorted((one.kept_at, path) for path, one in self._waiting.items() if one.due <= now)
        queue = iter(due)
        arrived = failed = 0

        async def upload() -> None:
            nonlocal arrived, failed
            for _, path in queue:
                if failed >= _FAILURES:
                    return
                try:
                    await self._upload(path, storage)
                except Exception as exc:  # noqa: BLE001 - whatever it is, the others are uploaded
                    failed += isinstance(exc, UpstreamUnavailable)
                    self._postpone(path, exc, every_seconds)
                else:
                    arrived, failed = arrived + 1, 0

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(_UPLOADS, len(due))):
                tasks.create_task(upload())
        return arrived

    async def _upload(self, path: Path, storage: Storage) -> None:
        """Raises what `opened` and `Storage.save` raise."""
        with self.blobs(None) as blobs:
            bucket, name, picture = await asyncio.to_thread(opened, path, self._parent, blobs)
            await storage.save(name, picture, bucket=bucket, again=True)
        self.remove(path)
        del self._waiting[path]
        log.info("picture uploaded from the spool", bucket=bucket, object=name)

    def _postpone(self, path: Path, exc: Exception, every_seconds: float) -> None:
        log.warning(
            "picture stays on the spool",
            file=path.name,
            cause=causes(exc),
            vendor_code=exc.vendor_code if isinstance(exc, GatewayError) else None,
        )
        if isinstance(exc, FileNotFoundError) and self._parent.is_dir():
            del self._waiting[path]
            return
        refused = not isinstance(exc, UpstreamUnavailable)
        longest = _LONGEST_REFUSAL_SECONDS if refused else _LONGEST_PAUSES * every_seconds
        self._waiting[path].postpone(every_seconds, longest)
