"""The bytes of one picture: in memory while they are few, otherwise in a temporary file.

A Blob is written in pieces, sealed, read any number of times, and closed, which deletes it. Blobs are made in
a scope, usually that of a request, and closed with it. Only the disk can make a call slow: then call it in a
thread. Any thread can use a blob, one at a time until the blob is sealed. It can be closed at any time.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Self

import google_crc32c
import pybase64

from app.pictures.contents import Contents
from app.pictures.pieces import PIECE_BYTES
from app.pictures.png import PngChunks
from app.pictures.room import NoRoom, Room

_HEAD_BYTES = 64
"""These first bytes are kept in memory, so that a format is recognised without opening the file."""


class Blobs:
    """A scope of blobs, for example that of a request. When it is closed, all its blobs are deleted.

    Made by `WorkFolder.blobs()`. A context manager. `crc32c`: every blob computes it while it is written.
    `spare`: a blob that finds no more room moves to the room of this scope. `ended` is called when the scope
    is closed.
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
        """Returns a new scope, for blobs that outlive this one. The caller closes it."""
        return Blobs(self._room, crc32c=self._crc32c, spare=self._spare)

    def check(self) -> None:
        """Raises NoRoom if nothing more could be kept on disk now. Call it before something is paid."""
        self._room.check()

    def new(self, *, on_disk: bool = False, sha256: bool = False, crc32c: bool = False) -> "Blob":
        """Returns a new, empty blob. In a closed scope the blob is closed too, so a late thread keeps
        nothing."""
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

        Slow: it reads the file, to find the PNG's chunks and the digests.
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

    `png` has the chunks of a PNG, and none of any other file. With `on_disk` the bytes are never in memory.
    With `sha256` or `crc32c` that digest is computed while the bytes are written, otherwise when it is asked
    for.
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
        self._contents = Contents(room, on_disk=on_disk)
        self._spare = spare
        self._changing = Lock()
        self._head = b""
        self._sha256 = hashlib.sha256() if sha256 else None
        self._crc32c: int | None = 0 if crc32c else None

    def __repr__(self) -> str:
        where = "closed" if self._contents.is_closed else "in memory" if self.in_memory else "on disk"
        return f"<Blob of {self.length} bytes, {where}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def in_memory(self) -> bool:
        return self._contents.in_memory

    def sibling(self) -> "Blob":
        """Returns a new, empty blob of the same scope. It is on disk if this blob is."""
        return self.scope.new(on_disk=not self.in_memory)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def write(self, piece: bytes) -> None:
        """Append a piece. Raises NoRoom, after which the blob can only be closed, and ValueError if it is."""
        with self._changing:
            try:
                self._contents.append(piece)
            except NoRoom:
                if self._spare is None:
                    raise
                spare, self._spare = self._spare, None
                self._contents = self._contents.moved_to(spare)
                self._contents.append(piece)
        self._note(piece)

    def _note(self, piece: bytes) -> None:
        """Keep what would otherwise need a second reading of the bytes."""
        self.length += len(piece)
        if len(self._head) < _HEAD_BYTES:
            self._head += piece[: _HEAD_BYTES - len(self._head)]
        self.png.feed(piece)
        if self._sha256:
            self._sha256.update(piece)
        if self._crc32c is not None:
            self._crc32c = google_crc32c.extend(self._crc32c, piece)

    def seal(self) -> None:
        """End the writing. A sealed blob keeps no file open. Raises NoRoom."""
        with self._changing:
            self._contents.seal()

    def rename(self, path: Path) -> None:
        """Give its file another name, under which it stays when the blob is closed. Raises OSError."""
        with self._changing:
            self._contents.rename(path)

    def hold(self, path: Path) -> None:
        """See `Blobs.existing`."""
        for piece in self._contents.hold(path):
            self._note(piece)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> BinaryIO:
        """Returns a new file object at the first byte, for Pillow or an upload. The caller closes it."""
        return self._contents.open()

    def path(self) -> Path:
        """Returns the path of its file, which is written now if the bytes were in memory. Raises NoRoom."""
        with self._changing:
            return self._contents.path()

    def piece_at(self, place: int) -> tuple[bytes, int] | None:
        """Returns the piece in memory that has this place, and the place of its first byte.

        Nothing is copied. Returns None for a blob on disk, and beyond the end.
        """
        return self._contents.piece_at(place)

    def head(self, size: int) -> bytes:
        """Returns the first bytes, at most `size`."""
        self._contents.require_readable()
        if size <= len(self._head) or self.length == len(self._head):
            return self._head[:size]
        with self.open() as file:
            return file.read(size)

    def pieces(self, most: Callable[[], int] = lambda: PIECE_BYTES) -> Iterator[bytes]:
        """Yields all bytes. Pieces from memory have at most 252 KiB, mostly as they were written. Each piece
        from a file has at most `most()` bytes."""
        return self._contents.pieces(most)

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

    def close(self) -> None:
        """Delete the bytes, wherever they are. Never raises. A file that cannot be deleted keeps its room.

        A file that was there before, or was renamed, stays.
        """
        self.scope.forget(self)
        with self._changing:
            self._contents.close()
