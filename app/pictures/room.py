"""The room that blobs take: an allowance of memory and a folder for files."""

from pathlib import Path
from typing import BinaryIO, Protocol


class NoRoom(Exception):
    """No more bytes can be kept: temporary files have reached their limit, or the disk refuses."""


class Room(Protocol):
    """What a blob needs of the folder it is in: a WorkFolder (`work_folder.py`), or the spool."""

    def take_memory(self, size: int, held: int) -> bool:
        """Reserve memory for `size` more bytes of a blob of `held` bytes. Returns whether there is room."""

    def give_memory(self, size: int) -> None: ...

    def take_disk(self, size: int) -> None:
        """Reserve bytes on disk. Raises NoRoom."""

    def give_disk(self, size: int) -> None: ...

    def create(self) -> tuple[Path, BinaryIO]:
        """Returns a file that only the owner can read. Raises NoRoom.

        It can contain the bytes of a deleted file: truncate it at the end of the writing.
        """

    def check(self) -> None:
        """Raises NoRoom if nothing more could be kept on disk now."""
