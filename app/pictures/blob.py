"""The bytes of one picture: in memory while they are few, else in a temporary file.

A Blob is written piece by piece, sealed, read as often as wanted, and closed, which deletes it. Its owner
closes it; closing it twice does no harm. Only the disk can make a call slow: then run the call in a thread.
Any thread may use a blob, one at a time until the blob is sealed.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import google_crc32c
import pybase64

PIECE_BYTES = 64 * 1024
_BASE64_PIECE_BYTES = 48 * 1024
"""64 KiB as base64. A multiple of three, so that the pieces' texts can be joined."""


class NoRoom(Exception):
    """No more bytes can be kept: temporary files have reached their limit, or the disk refuses."""


class Room(Protocol):
    """What a blob needs of its WorkFolder (`app/pictures/work_folder.py`)."""

    def take_memory(self, size: int, held: int) -> bool:
        """Reserve memory for `size` more bytes of a blob that holds `held`. Returns whether there is room."""

    def give_memory(self, size: int) -> None: ...

    def take_disk(self, size: int) -> None:
        """Reserve bytes on disk. Raises NoRoom."""

    def give_disk(self, size: int) -> None: ...

    def create(self) -> tuple[Path, BinaryIO]:
        """Returns a new, empty file that only the owner can read. Raises NoRoom."""


class Blob:
    """Some bytes. Made by `WorkFolder.blob()`.

    With `sha256` or `crc32c` that digest is computed while the bytes are written, otherwise on demand.
    """

    def __init__(self, room: Room, *, sha256: bool = False, crc32c: bool = False) -> None:
        self.length = 0
        self._room = room
        self._closed = False
        self._buffer: BytesIO | None = BytesIO()  # while it is written in memory
        self._data: bytes | None = None  # once it is sealed in memory
        self._file: BinaryIO | None = None  # while it is written to disk
        self._path: Path | None = None
        self._reserved_memory = 0
        self._reserved_disk = 0
        self._sha256 = hashlib.sha256() if sha256 else None
        self._crc32c: int | None = 0 if crc32c else None

    def __repr__(self) -> str:
        where = "closed" if self._closed else "in memory" if self.in_memory else "on disk"
        return f"<Blob of {self.length} bytes, {where}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            self.close()
            warnings.warn(f"nobody closed a blob of {self.length} bytes", ResourceWarning, stacklevel=1)

    @property
    def in_memory(self) -> bool:
        return self._path is None

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def write(self, piece: bytes) -> None:
        """Append a piece. Raises NoRoom, after which the blob can only be closed."""
        if self._buffer is None and self._file is None:
            raise ValueError("the blob is sealed or closed")
        if self._buffer:
            if self._room.take_memory(len(piece), self.length):
                self._reserved_memory += len(piece)
                self._buffer.write(piece)
            else:
                written, self._buffer = self._buffer.getvalue(), None
                self._move_to_file(written)
        if self._file:
            self._write_file(self._file, piece)
        self.length += len(piece)
        if self._sha256:
            self._sha256.update(piece)
        if self._crc32c is not None:
            self._crc32c = google_crc32c.extend(self._crc32c, piece)

    def seal(self) -> None:
        """End the writing. A sealed blob keeps no file open. Raises NoRoom."""
        if self._buffer:
            self._data, self._buffer = self._buffer.getvalue(), None
        if self._file:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as exc:
                raise NoRoom(exc.strerror) from exc

    def _move_to_file(self, written: bytes) -> None:
        self._path, self._file = self._room.create()
        self._write_file(self._file, written)
        self._room.give_memory(self._reserved_memory)
        self._reserved_memory = 0

    def _write_file(self, file: BinaryIO, piece: bytes) -> None:
        self._room.take_disk(len(piece))
        self._reserved_disk += len(piece)
        try:
            file.write(piece)
        except OSError as exc:
            raise NoRoom(exc.strerror) from exc

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> BinaryIO:
        """Returns a new file object at the first byte: for Pillow, or for an upload. Its user closes it."""
        if self._path and not self._file and not self._closed:
            return self._path.open("rb")
        return BytesIO(self._sealed_data())  # shares the bytes, copies nothing

    def path(self) -> Path:
        """Returns the path of its file, which is written now if the bytes were in memory. Raises NoRoom."""
        if self._path is None:
            self._move_to_file(self._sealed_data())
            self._data = None
            self.seal()
        if self._path is None or self._file or self._closed:
            raise ValueError("the blob is not sealed, or closed")
        return self._path

    def head(self, size: int) -> bytes:
        """Returns the first bytes, at most `size`."""
        with self.open() as file:
            return file.read(size)

    def pieces(self, size: int = PIECE_BYTES) -> Iterator[bytes]:
        """Yields all bytes in pieces of `size`; the last one may be shorter."""
        with self.open() as file:
            while piece := file.read(size):
                yield piece

    @property
    def base64_length(self) -> int:
        return 4 * -(-self.length // 3)

    def base64_pieces(self) -> Iterator[bytes]:
        """Yields the standard base64 text in pieces of 64 KiB."""
        for piece in self.pieces(_BASE64_PIECE_BYTES):
            yield pybase64.b64encode(piece)

    def sha256(self) -> bytes:
        if self._sha256 is None:
            digest = hashlib.sha256()
            for piece in self.pieces():
                digest.update(piece)
            self._sha256 = digest
        return self._sha256.digest()

    def crc32c(self) -> bytes:
        """Returns four bytes, most significant first: Cloud Storage wants their base64."""
        if self._crc32c is None:
            value = 0
            for piece in self.pieces():
                value = google_crc32c.extend(value, piece)
            self._crc32c = value
        return self._crc32c.to_bytes(4, "big")

    def _sealed_data(self) -> bytes:
        if self._data is None:
            raise ValueError("the blob is not sealed, or closed")
        return self._data

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Delete the bytes, wherever they are. Never raises; a file that cannot be deleted keeps its room."""
        if self._closed:
            return
        self._closed = True
        self._buffer = self._data = None
        self._room.give_memory(self._reserved_memory)
        with suppress(OSError):
            if self._file:
                self._file.close()
        self._file = None
        with suppress(OSError):
            if self._path:
                self._path.unlink(missing_ok=True)
            self._room.give_disk(self._reserved_disk)
