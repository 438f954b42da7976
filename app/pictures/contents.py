"""The bytes of a blob in a room: in memory while the room allows it, then in a file."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from app.pictures.pieces import PIECE_BYTES, Pieces
from app.pictures.room import NoRoom, Room


class Contents:
    """Bytes that are appended, sealed, read, and closed, which deletes them. With `on_disk`, never in memory.

    Reading raises ValueError before `seal` and after `close`, and OSError. One thread at a time, until
    sealed.
    """

    def __init__(self, room: Room, *, on_disk: bool = False) -> None:
        self.length = 0
        self.is_closed = False
        self._room = room
        self._on_disk = on_disk
        self._sealed = False
        self._stays = False  # the file, after `close`
        self._memory = Pieces()
        self._path: Path | None = None
        self._file: BinaryIO | None = None  # while it is written
        self._reserved_memory = 0
        self._reserved_disk = 0

    @property
    def in_memory(self) -> bool:
        return self._path is None

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def append(self, piece: bytes) -> None:
        """Raises NoRoom, after which nothing more can be appended, and ValueError if sealed or closed."""
        if self._sealed or self.is_closed:
            raise ValueError("the blob is sealed or closed")
        in_memory = self._path is None and not self._on_disk
        if in_memory and self._room.take_memory(len(piece), self.length):
            self._reserved_memory += len(piece)
            self._memory.append(piece)
        else:
            if self._path is None:
                self._move_to_file()
            self._write(piece)
        self.length += len(piece)

    def moved_to(self, room: Room) -> "Contents":
        """Returns the bytes in another room, and closes these, after `append` raised NoRoom. Raises
        NoRoom."""
        moved = Contents(room)
        try:
            for piece in self._written():
                moved.append(piece)
        except BaseException:
            moved.close()
            raise
        finally:
            self.close()
        return moved

    def _written(self) -> Iterator[bytes]:
        """Yields the appended bytes: all are in memory until the file has all of them. Raises NoRoom."""
        if self._memory.length or self._path is None:
            yield from self._memory.evened()
            return
        with suppress(OSError):
            if self._file:
                self._file.close()
        try:
            with self._path.open("rb") as file:
                while piece := file.read(min(PIECE_BYTES, self.length - file.tell())):
                    yield piece
        except OSError as exc:
            raise NoRoom(exc.strerror) from exc

    def seal(self) -> None:
        """End the writing. No file stays open. Raises NoRoom."""
        self._sealed = True
        self._close_file()

    def hold(self, path: Path) -> Iterator[bytes]:
        """Take the bytes of a file, which stays after `close`, and seal them. Yields them. Raises OSError."""
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                self.length += len(piece)
                yield piece
        self._path = path
        self._stays = self._sealed = True

    def _close_file(self) -> None:
        if self._file:
            file, self._file = self._file, None
            try:
                with file:
                    file.truncate()
            except OSError as exc:
                raise NoRoom(exc.strerror) from exc

    def _move_to_file(self) -> None:
        self._path, self._file = self._room.create()
        for piece in self._memory.evened():
            self._write(piece)
        self._memory = Pieces()
        self._room.give_memory(self._reserved_memory)
        self._reserved_memory = 0

    def _write(self, piece: bytes) -> None:
        self._room.take_disk(len(piece))
        self._reserved_disk += len(piece)
        left = memoryview(piece)
        try:
            while left and self._file:
                left = left[self._file.write(left) :]  # without a buffer, a full disk takes a part
        except OSError as exc:
            raise NoRoom(f"{self._path and self._path.parent}: {exc.strerror}") from exc

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    def require_readable(self) -> None:
        if not self._sealed or self.is_closed:
            raise ValueError("the blob is not sealed, or closed")

    def open(self) -> BinaryIO:
        """Returns a new file object at the first byte."""
        self.require_readable()
        return self._path.open("rb") if self._path else self._memory.open()

    def path(self) -> Path:
        """Returns the path of the file, which is written now if the bytes were in memory. Raises NoRoom."""
        self.require_readable()
        if self._path is None:
            self._move_to_file()
            self._close_file()
        assert self._path  # noqa: S101 - just made
        return self._path

    def rename(self, path: Path) -> None:
        """Give the file another name, under which it stays after `close`. Raises OSError."""
        if not self._sealed or self.is_closed or self._path is None:
            raise ValueError("the blob is not sealed, or closed, or in memory")
        self._path.rename(path)
        self._path = path
        self._stays = True

    def piece_at(self, place: int) -> tuple[bytes, int] | None:
        """Returns the piece in memory with this place, and the place of its first byte; None if there is
        none."""
        return self._memory.at(place)

    def pieces(self, most: Callable[[], int]) -> Iterator[bytes]:
        """Yields all bytes: from memory at most PIECE_BYTES at a time, from a file at most `most()`."""
        if self._memory.length and self._sealed:
            yield from self._memory.evened()
            return
        with self.open() as file:
            while piece := file.read(most()):
                yield piece

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Delete the bytes. Never raises. A file that cannot be deleted keeps its reservation."""
        if self.is_closed:
            return
        self.is_closed = True
        self._memory = Pieces()
        self._room.give_memory(self._reserved_memory)
        with suppress(OSError):
            if self._file:
                self._file.close()
        self._file = None
        with suppress(OSError):
            if self._path and not self._stays:
                self._path.unlink(missing_ok=True)
            self._room.give_disk(self._reserved_disk)
