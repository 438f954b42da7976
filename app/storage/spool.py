"""Pictures whose upload failed, kept on disk until the store is back."""

import asyncio
import errno
import os
import tempfile
import time
from pathlib import Path

import structlog
from pydantic import BaseModel

from app.contract.errors import GatewayError, UpstreamFailed
from app.logs import causes
from app.pictures.blob import PIECE_BYTES, Blob, Blobs, NoRoom
from app.pictures.picture import Picture
from app.pictures.work_folder import WorkFolder
from app.ports import Storage

log = structlog.get_logger(__name__)

_SUFFIX = ".picture"
_MAX_LABEL_BYTES = 16 * 1024
_LONGEST_PAUSE = 16  # times the ordinary one


class _Label(BaseModel):
    """What a file says about itself in its first line; the picture's bytes follow."""

    name: str
    bucket: str
    mime_type: str
    size: tuple[int, int]
    bytes: int


class Spool:
    """A folder of pictures that still have to be uploaded, under the names their callers were promised.

    Several processes may share the folder: files appear whole, and to upload one twice does no harm.
    Files that are not the spool's are left alone. `ready` requires `min_free_bytes` free bytes on its disk.
    While a kept picture is uploaded, a copy of it is in the work folder.
    """

    def __init__(self, folder: Path, work: WorkFolder, *, min_free_bytes: int = 0) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._work = work
        self._min_free_bytes = min_free_bytes

    async def keep(self, name: str, picture: Picture, bucket: str, /) -> None:
        """Return when the picture is safely on disk. Raises UpstreamFailed when it cannot be (disk full)."""
        label = _Label(
            name=name,
            bucket=bucket,
            mime_type=picture.mime_type,
            size=picture.size,
            bytes=picture.length,
        )
        try:
            await asyncio.to_thread(self._write, label, picture.blob)
        except OSError as exc:
            raise UpstreamFailed("the picture could not be kept") from exc

    async def ready(self) -> None:
        """Return if a picture can be kept now. Raises OSError if not."""
        await asyncio.to_thread(self._try)

    async def drain(self, storage: Storage) -> int:
        """Upload what is kept, oldest first, and remove what has arrived. Return how many that were."""
        arrived = 0
        for path in await asyncio.to_thread(self._waiting):
            try:
                await self._upload(path, storage)
            except FileNotFoundError:
                continue  # another process was faster
            except (GatewayError, OSError, ValueError, NoRoom) as exc:
                code = getattr(exc, "vendor_code", None)
                log.warning("picture stays in the spool", file=path.name, cause=causes(exc), vendor_code=code)
                continue
            arrived += 1
        return arrived

    async def _upload(self, path: Path, storage: Storage) -> None:
        with self._work.blobs() as blobs:
            label, picture = await asyncio.to_thread(_read, path, blobs)
            await storage.save(label.name, picture, bucket=label.bucket, again=True)
        await asyncio.to_thread(path.unlink)
        log.info("picture uploaded from the spool", file=path.name, object=label.name)

    async def run(self, storage: Storage, every_seconds: float) -> None:
        """Drain now and then, until cancelled; less often while nothing can be uploaded."""
        pause = every_seconds
        while True:
            try:
                arrived = await self.drain(storage)
                stuck = not arrived and bool(await asyncio.to_thread(self._waiting))
            except OSError as exc:
                log.warning("the spool cannot be read", cause=causes(exc))
                stuck = True
            pause = min(2 * pause, _LONGEST_PAUSE * every_seconds) if stuck else every_seconds
            await asyncio.sleep(pause)

    def _try(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < self._min_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=self._folder) as file:
            file.write(b"?")

    def _write(self, label: _Label, blob: Blob) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".", dir=self._folder)  # readable for the owner only
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(label.model_dump_json().encode() + b"\n")
                file.writelines(blob.pieces())
                file.flush()
                os.fsync(file.fileno())
            kept = self._folder / f"{time.time_ns():020}{Path(aside).name}{_SUFFIX}"
            os.rename(aside, kept)
        except BaseException:
            os.unlink(aside)
            raise
        self._sync_folder()

    def _sync_folder(self) -> None:
        """Make the new name last through a power cut."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _waiting(self) -> list[Path]:
        """Oldest first: a file's name begins with the time it was kept."""
        with os.scandir(self._folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False)
            ]
        return [self._folder / name for name in sorted(names)]


def _read(path: Path, blobs: Blobs) -> tuple[_Label, Picture]:
    """Raises ValueError for a file that is not the spool's, or not whole; and NoRoom."""
    with path.open("rb") as file:
        label = _Label.model_validate_json(file.readline(_MAX_LABEL_BYTES))
        length = os.fstat(file.fileno()).st_size - file.tell()
        if length != label.bytes:
            raise ValueError(f"{length} bytes instead of {label.bytes}")
        blob = blobs.new(crc32c=True)
        while piece := file.read(PIECE_BYTES):
            blob.write(piece)
    blob.seal()
    return label, Picture(blob, label.mime_type, label.size)
