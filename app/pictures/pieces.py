"""Bytes in memory, kept in the pieces in which they arrived: nothing is copied to join them."""

from bisect import bisect_right
from collections.abc import Iterator
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, BytesIO, RawIOBase
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

PIECE_BYTES = 252 * 1024
"""Few enough for the processor's cache, and enough that the cost of a step does not count. A multiple of
three, so that the base64 texts of pieces can be joined, and of a disk's blocks."""
_LEAST_PIECE_BYTES = 64 * 1024

_SMALL_BYTES = 4096
"""Neighbours that are both shorter are joined: a piece of two bytes would take fifty."""


class Pieces:
    def __init__(self) -> None:
        self.length = 0
        self._pieces: list[bytes] = []
        self._starts: list[int] = []

    def append(self, piece: bytes) -> None:
        if self._pieces and max(len(piece), len(self._pieces[-1])) < _SMALL_BYTES:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
            self._starts.append(self.length)
        self.length += len(piece)

    def at(self, place: int) -> tuple[bytes, int] | None:
        """Returns the piece with this place, and the place of its first byte. None beyond the end."""
        if place >= self.length:
            return None
        number = bisect_right(self._starts, place) - 1
        return self._pieces[number], self._starts[number]

    def open(self) -> BinaryIO:
        """Returns a new file object at the first byte."""
        if len(self._pieces) > 1:
            return BufferedReader(_Reader(self))
        return BytesIO(b"".join(self._pieces))  # shares the bytes, copies nothing

    def evened(self) -> Iterator[bytes]:
        """Yields all bytes in pieces of at most PIECE_BYTES: small neighbours joined, large pieces cut."""
        waiting: list[bytes] = []
        size = 0
        for piece in self._pieces:
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
    """A file object on pieces. It copies only the bytes that are read."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        begin = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._pieces.length}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: "Buffer") -> int:
        """Reads on, at most to the end of the piece."""
        if not (found := self._pieces.at(self._at)):
            return 0
        piece, start = found
        into = memoryview(buffer).cast("B")
        rest = memoryview(piece)[self._at - start :][: len(into)]
        into[: len(rest)] = rest
        self._at += len(rest)
        return len(rest)
