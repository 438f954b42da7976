"""The bytes of one picture: in memory while they are few, else in a temporary file.

A Blob is written piece by piece, sealed, read as often as wanted, and closed, which deletes it. Blobs are
made in a scope, usually a request's, and closed with it. Only the disk can make a call slow: then run the
call in a thread. Any thread may use a blob, one at a time until the blob is sealed. It may be closed at any
time.
"""

import hashlib
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, BytesIO, RawIOBase
from itertools import accumulate
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

import google_crc32c
import pybase64

from app.pictures.png import PngChunks

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

PIECE_BYTES = 252 * 1024
"""Few enough for the processor's cache, and many enough that the cost of a step does not count. A multiple of
three, so that the texts of pieces in base64 can be joined, and of a disk's blocks."""
_LEAST_PIECE_BYTES = 64 * 1024

_HEAD_BYTES = 64
"""So many first bytes are kept in memory: a format is recognised without opening the file."""

_SMALL_BYTES = 4096
"""Neighbours in memory that are both shorter are joined: a piece of two bytes would take fifty."""


class NoRoom(Exception):
    """No more bytes can be kept: temporary files have reached their limit, or the disk refuses."""


class Room(Protocol):
    """What a blob needs of the folder it is in: a WorkFolder (`work_folder.py`), or the spool."""

    def take_memory(self, size: int, held: int) -> bool:
        """Reserve memory for `size` more bytes of a blob that holds `held`. Returns whether there is room."""

    def give_memory(self, size: int) -> None: ...

    def take_disk(self, size: int) -> None:
        """Reserve bytes on disk. Raises NoRoom."""

    def give_disk(self, size: int) -> None: ...

    def create(self) -> tuple[Path, BinaryIO]:
        """Returns a file that only the owner can read. Raises NoRoom.

        It may hold bytes of a deleted one: it is truncated where the writing ends.
        """

    def check(self) -> None:
        """Raises NoRoom if nothing more could be kept on disk now."""


class Blobs:
    """A scope of blobs: a request's, for example. When it is closed, all its blobs are deleted.

    Made by `WorkFolder.blobs()`. A context manager. `crc32c`: every blob computes it while it is written. A
    blob that finds no more room moves to the room of `spare`, if there is one. `ended` is called when the
    scope is closed.
    """

    def __init__(
        self,
        room: Room,
        *,
        crc32c: bool = False,
        spare: "Blobs | None" = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._room = room
        self._crc32c = crc32c
        self._spare = spare
        self._ended = ended
        self._open: set[Blob] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def another(self) -> "Blobs":
        """Returns a new scope, for blobs that shall outlive this one. To be closed by the caller."""
        return Blobs(self._room, crc32c=self._crc32c, spare=self._spare)

    def check(self) -> None:
        """Raises NoRoom if nothing more could be kept on disk now: to be asked before something is paid."""
        self._room.check()

    def new(self, *, on_disk: bool = False, sha256: bool = False, crc32c: bool = False) -> "Blob":
        """Returns a new, empty blob. In a closed scope it is closed already: a late thread keeps nothing."""
        blob = Blob(
            self._room,
            self,
            on_disk=on_disk,
            sha256=sha256,
            crc32c=crc32c or self._crc32c,
            spare=self._spare._room if self._spare else None,
        )
        self._open.add(blob)
        if self._closed:
            blob.close()
        return blob

    def existing(self, path: Path) -> "Blob":
        """Returns a sealed blob of a file, which stays when the blob is closed. Raises OSError.

        Slow: the file is read once, for what a blob knows of its bytes.
        """
        blob = self.new()
        blob.hold(path)
        return blob

    def of(self, data: bytes) -> "Blob":
        """Returns a sealed blob of these bytes. Raises NoRoom."""
        blob = self.new()
        blob.write(data)
        blob.seal()
        return blob

    def take(self, blob: "Blob") -> None:
        """Move a blob of another scope into this one."""
        blob.scope.forget(blob)
        blob.scope = self
        self._open.add(blob)

    def forget(self, blob: "Blob") -> None:
        self._open.discard(blob)

    def close(self) -> None:
        self._closed = True
        for blob in list(self._open):
            blob.close()
        if self._ended:
            ended, self._ended = self._ended, None
            ended()

    def __del__(self) -> None:
        forgotten = bool(self._open)
        self.close()
        if forgotten:
            warnings.warn("a scope of blobs was not closed", ResourceWarning, stacklevel=1)


class Blob:
    """Some bytes. Made by `Blobs.new()`.

    `png` are its chunks if it is a PNG. With `on_disk` it is never in memory. With `sha256` or `crc32c` that
    digest is computed while the bytes are written, otherwise on demand.
    """

    def __init__(
        self,
        room: Room,
        scope: Blobs,
        *,
        on_disk: bool = False,
        sha256: bool = False,
        crc32c: bool = False,
        spare: Room | None = None,
    ) -> None:
        self.length = 0
        self.scope = scope
        self.png = PngChunks()
        self._room = room
        self._spare = spare
        self._changing = Lock()
        self._closed = False
        self._stays = False  # its file, when it is closed
        self._head = b""
        self._on_disk = on_disk
        self._sealed = False
        self._pieces: list[bytes] = []  # while it is in memory
        self._starts: list[int] = []  # where each of them begins, once it is sealed
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

    @property
    def in_memory(self) -> bool:
        return self._path is None

    def sibling(self) -> "Blob":
        """Returns a new, empty blob of the same scope. What is made of a picture on disk goes to disk."""
        return self.scope.new(on_disk=not self.in_memory)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def write(self, piece: bytes) -> None:
        """Append a piece. Raises NoRoom, after which the blob can only be closed, and ValueError if it is."""
        with self._changing:
            self._append(piece)
        self._note(piece)

    def _note(self, piece: bytes) -> None:
        """Keep what shall be known of the bytes without reading them again."""
        self.length += len(piece)
        if len(self._head) < _HEAD_BYTES:
            self._head += piece[: _HEAD_BYTES - len(self._head)]
        self.png.feed(piece)
        if self._sha256:
            self._sha256.update(piece)
        if self._crc32c is not None:
            self._crc32c = google_crc32c.extend(self._crc32c, piece)

    def _append(self, piece: bytes) -> None:
        if self._sealed or self._closed:
            raise ValueError("the blob is sealed or closed")
        in_memory = self._path is None and not self._on_disk
        if in_memory and self._room.take_memory(len(piece), self.length):
            self._reserved_memory += len(piece)
            if self._pieces and max(len(piece), len(self._pieces[-1])) < _SMALL_BYTES:
                self._pieces[-1] += piece
            else:
                self._pieces.append(piece)
            return
        try:
            if self._path is None:
                self._move_to_file()
            self._write_file(piece)
        except NoRoom:
            if self._spare is None:
                raise
            self._move_to_spare()
            self._append(piece)

    def seal(self) -> None:
        """End the writing. A sealed blob keeps no file open. Raises NoRoom."""
        with self._changing:
            self._sealed = True
            self._starts = [0, *accumulate(map(len, self._pieces))]
            self._close_file()

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
        for piece in self._pieces:
            self._write_file(piece)
        self._pieces = []
        self._room.give_memory(self._reserved_memory)
        self._reserved_memory = 0

    def _write_file(self, piece: bytes) -> None:
        self._room.take_disk(len(piece))
        self._reserved_disk += len(piece)
        left = memoryview(piece)
        try:
            while left and self._file:
                left = left[self._file.write(left) :]  # without a buffer, a full disk takes a part
        except OSError as exc:
            raise NoRoom(f"{self._path and self._path.parent}: {exc.strerror}") from exc

    def _move_to_spare(self) -> None:
        """Go on in the spare room, with what has been written so far. Raises NoRoom."""
        full, path, taken = self._room, self._path, self._reserved_disk
        if self._spare:
            self._room, self._spare = self._spare, None
        with suppress(OSError):
            if self._file:
                self._file.close()
        self._path, self._file, self._reserved_disk, self._on_disk = None, None, 0, False
        try:
            if path:
                with path.open("rb") as file:
                    while piece := file.read(min(PIECE_BYTES, self.length - file.tell())):
                        self._append(piece)
        except OSError as exc:
            raise NoRoom(exc.strerror) from exc
        finally:
            with suppress(OSError):
                if path:
                    path.unlink()
                full.give_disk(taken)

    def rename(self, path: Path) -> None:
        """Give its file another name, under which it stays when the blob is closed. Raises OSError."""
        with self._changing:
            if not self._sealed or self._closed or self._path is None:
                raise ValueError("the blob is not sealed, or closed, or in memory")
            self._path.rename(path)
            self._path = path
            self._stays = True

    def hold(self, path: Path) -> None:
        """See `Blobs.existing`."""
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                self._note(piece)
        with self._changing:
            self._path = path
            self._stays = self._sealed = True

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> BinaryIO:
        """Returns a new file object at the first byte: for Pillow, or for an upload. Its user closes it."""
        if not self._sealed or self._closed:
            raise ValueError("the blob is not sealed, or closed")
        if self._path:
            return self._path.open("rb")
        if len(self._pieces) > 1:
            return BufferedReader(_Reader(self))
        return BytesIO(b"".join(self._pieces))  # shares the bytes, copies nothing

    def path(self) -> Path:
        """Returns the path of its file, which is written now if the bytes were in memory. Raises NoRoom."""
        with self._changing:
            if not self._sealed or self._closed:
                raise ValueError("the blob is not sealed, or closed")
            if self._path is None:
                self._move_to_file()
                self._close_file()
        assert self._path  # noqa: S101 - just made
        return self._path

    def piece_at(self, at: int) -> tuple[bytes, int] | None:
        """Returns the piece in memory that holds this place, and the place of its first byte.

        Nothing is copied. Returns None for a blob on disk, and beyond the end.
        """
        if not self._pieces or at >= self.length:
            return None
        number = bisect_right(self._starts, at) - 1
        return self._pieces[number], self._starts[number]

    def head(self, size: int) -> bytes:
        """Returns the first bytes, at most `size`."""
        if not self._sealed or self._closed:
            raise ValueError("the blob is not sealed, or closed")
        if size <= len(self._head) or self.length == len(self._head):
            return self._head[:size]
        with self.open() as file:
            return file.read(size)

    def pieces(self, most: Callable[[], int] = lambda: PIECE_BYTES) -> Iterator[bytes]:
        """Yields all bytes. Pieces from memory have at most 252 KiB, mostly as they were written. Each piece
        from a file has at most `most()` bytes."""
        if self._pieces and self._sealed:
            yield from _evened(self._pieces)
            return
        with self.open() as file:
            while piece := file.read(most()):
                yield piece

    @property
    def base64_length(self) -> int:
        return 4 * -(-self.length // 3)

    def base64_pieces(self, most: Callable[[], int] = lambda: PIECE_BYTES) -> Iterator[bytes]:
        """Yields the standard base64 text, a piece of it for at most `most()` bytes (a multiple of three)."""
        rest = b""
        for piece in self.pieces(most):
            data = memoryview(rest + piece if rest else piece)
            at, whole = 0, len(data) - len(data) % 3
            while at < whole:
                end = min(at + most(), whole)
                yield pybase64.b64encode(data[at:end])
                at = end
            rest = bytes(data[whole:])
        if rest:
            yield pybase64.b64encode(rest)

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

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Delete the bytes, wherever they are. Never raises; a file that cannot be deleted keeps its room.

        A file that was there before, or was renamed, stays.
        """
        with self._changing:
            if self._closed:
                return
            self._closed = True
            self.scope.forget(self)
            self._pieces = []
            self._room.give_memory(self._reserved_memory)
            with suppress(OSError):
                if self._file:
                    self._file.close()
            self._file = None
            with suppress(OSError):
                if self._path and not self._stays:
                    self._path.unlink(missing_ok=True)
                self._room.give_disk(self._reserved_disk)


def _evened(pieces: list[bytes]) -> Iterator[bytes]:
    """Yields the same bytes: small neighbours joined, large pieces cut, the others as they are."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > PIECE_BYTES and waiting:
            yield b"".join(waiting)
            waiting, size = [], 0
        while len(piece) > PIECE_BYTES:
            yield piece[:PIECE_BYTES]
            piece = piece[PIECE_BYTES:]
        waiting.append(piece)
        size += len(piece)
        if size >= _LEAST_PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)


class _Reader(RawIOBase):
    """A file on the pieces of a blob in memory. It copies what is read, and never joins the pieces."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        begin = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._blob.length}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: "Buffer") -> int:
        """Read on, at most to the end of the piece."""
        if not (found := self._blob.piece_at(self._at)):
            return 0
        piece, start = found
        into = memoryview(buffer).cast("B")
        rest = memoryview(piece)[self._at - start :][: len(into)]
        into[: len(rest)] = rest
        self._at += len(rest)
        return len(rest)
