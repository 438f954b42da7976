"""Single files of the spool: copied, synced, and read back."""

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from app.pictures.blob import Blob, Blobs
from app.pictures.checks import check
from app.pictures.picture import Picture, recognise
from app.pictures.pieces import PIECE_BYTES
from app.pictures.process_folder import ProcessFolder
from app.storage.spool_paths import MAX_LABEL_BYTES, label_of, object_of


@dataclass(slots=True)
class Upload:
    """A file that is to be uploaded. `kept_at` orders uploads (time.time()); `due` is in time.monotonic()."""

    kept_at: float
    due: float = 0.0
    pause: float = 0.0

    def postpone(self, shortest: float, longest: float) -> None:
        """Double the pause, between these seconds."""
        self.pause = min(max(2 * self.pause, shortest), longest)
        self.due = time.monotonic() + self.pause


def opened(path: Path, spool: Path, blobs: Blobs) -> tuple[str, str, Picture]:
    """Returns the bucket, the object's name and the picture of a file below a process's folder in `spool`.

    Raises OSError, NoRoom, and ValueError if the picture is damaged.
    """
    if label := label_of(path):
        with path.open("rb") as file:
            file.readline(MAX_LABEL_BYTES)
            blob = blobs.new()
            while piece := file.read(PIECE_BYTES):
                blob.write(piece)
        blob.seal()
        picture = recognise(blob)
        check(picture)
        return label.bucket, label.name, picture
    blob = blobs.existing(path)
    found = object_of(Path(*path.relative_to(spool).parts[1:]))
    if not found or found.crc32c != blob.crc32c():
        raise ValueError("these are not the bytes that were kept under this name")
    return found.bucket, found.name, recognise(blob)


def copied(blob: Blob, blobs: Blobs) -> Blob:
    copy = blobs.new()
    for piece in blob.pieces():
        copy.write(piece)
    copy.seal()
    return copy


def sync(*paths: Path) -> None:
    """Write files and folders through to the disk. Raises OSError."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def try_to_write(folder: ProcessFolder, min_free_bytes: int) -> None:
    """Raises OSError if so many bytes are not free, or if a file cannot be written."""
    disk = os.statvfs(folder.path)
    if disk.f_bavail * disk.f_frsize < min_free_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    path, file = folder.create(buffered=False, new=True)
    try:
        with file:
            file.write(b"?")
    finally:
        path.unlink(missing_ok=True)
