"""Random access to the bytes of a blob, without loading a whole file into memory."""

from collections.abc import Iterator

from app.pictures.blob import Blob

WINDOW_BYTES = 256 * 1024


class View:
    """A window on the bytes of a sealed blob. Steps forward are fast.

    No file stays open. Reading raises OSError, and ValueError if the blob is closed.
    """

    def __init__(self, blob: Blob) -> None:
        self.length = blob.length
        self._blob = blob
        self._start = 0
        self._bytes = b""

    def window(self, at: int, least: int = 1) -> tuple[bytes, int]:
        """Returns bytes around a place, and the place of the first of them.

        They include at least `least` bytes from this place on, or all bytes up to the end.
        """
        start = self._start
        if not start <= at <= start + len(self._bytes) - min(least, self.length - at):
            piece = self._blob.piece_at(at)
            if piece and at + least <= piece[1] + len(piece[0]):
                self._bytes, self._start = piece
            else:
                with self._blob.open() as file:
                    file.seek(at)
                    self._bytes, self._start = file.read(max(least, WINDOW_BYTES)), at
        return self._bytes, self._start

    def __getitem__(self, at: int) -> int:
        """Returns one byte. Raises IndexError beyond the end."""
        window, start = self.window(at)
        return window[at - start]

    def cut(self, start: int, end: int) -> bytes:
        """Returns a copy of a few bytes, fewer where the blob ends."""
        window, first = self.window(start, end - start)
        return window[start - first : end - first]

    def has(self, part: bytes | tuple[bytes, ...], at: int) -> bool:
        """Whether this part, or one of these parts, begins at this place."""
        longest = len(part) if isinstance(part, bytes) else max(map(len, part))
        window, start = self.window(at, longest)
        return window.startswith(part, at - start)

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        """Yields the bytes of a range, one window at a time."""
        at, end = start, min(end, self.length)
        while at < end:
            window, first = self.window(at)
            piece = memoryview(window)[at - first : end - first]
            yield piece
            at += len(piece)
