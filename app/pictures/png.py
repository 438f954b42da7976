"""The chunks of a PNG, found and checked while its bytes are written.

So the file need not be read again to count its chunks, to check that it is whole, or to remove metadata.
"""

import re
import struct

from zlib_ng import zlib_ng

MAX_PARTS = 10_000
"""The most parts that a picture can have: chunks, segments, blocks (`parts.py`)."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_NAME = re.compile(rb"\w{4}", re.ASCII)
_HEAD = struct.Struct(">I4s")

Chunk = tuple[bytes, int, int]
"""The name of a chunk, its start, and its end, after the checksum."""


class PngChunks:
    """Takes the pieces of any file, from the first byte on. A file of another format has no chunks.

    `found` ends with IEND, before the first bytes that are not a chunk, or after MAX_PARTS + 1 chunks. Its
    last chunk can be cut off. `sound` is the number of chunks that are whole and have the right checksum.
    """

    def __init__(self) -> None:
        self.is_png = False
        self.found: list[Chunk] = []
        self.sound = 0
        self._ended = False
        self._fed = 0
        self._cut = b""  # part of a signature, a head or a checksum, which the next piece continues
        self._left = 0  # bytes of the open chunk's data that have not arrived
        self._checksum: int | None = None  # of the open chunk

    def feed(self, piece: bytes) -> None:
        if self._ended:
            return
        data = self._cut + piece if self._cut else piece
        start = self._fed - len(self._cut)
        self._fed += len(piece)
        at = 0
        while not self._ended:
            if self._checksum is None:
                if len(data) < at + 8:
                    break
                self._open(data[at : at + 8], start + at)
                at += 8
            else:
                end = min(at + self._left, len(data))
                self._checksum = zlib_ng.crc32(memoryview(data)[at:end], self._checksum)
                self._left -= end - at
                at = end
                if len(data) < at + 4 or self._left:
                    break
                self._close(data[at : at + 4], self._checksum)
                at += 4
        self._cut = data[at:]

    def _open(self, head: bytes, start: int) -> None:
        """Read the file's signature, or the head of a chunk."""
        if not self.is_png:
            self.is_png = head == PNG_SIGNATURE
            self._ended = not self.is_png
            return
        self._left, name = _HEAD.unpack(head)
        if not _CHUNK_NAME.fullmatch(name):
            self._ended = True
            return
        self.found.append((name, start, start + self._left + 12))
        self._checksum = zlib_ng.crc32(name)
        self._ended = len(self.found) > MAX_PARTS

    def _close(self, checksum: bytes, expected: int) -> None:
        self.sound += checksum == expected.to_bytes(4, "big")
        self._ended = self.found[-1][0] == b"IEND"
        self._checksum = None
