"""JSON with pictures in it, read and written in pieces.

Reading: each long string of base64 becomes a blob while it arrives, and is replaced by a placeholder. The
rest, the skeleton, is small, and an ordinary JSON reader parses it. Writing: the length of a value with blobs
is known before its pieces are made.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import orjson
from pydantic import BaseModel
from pydantic_core import from_json

from app.pictures.base64_in import OpenString
from app.pictures.blob import Blob
from app.pictures.json_limits import JsonTooLarge, Limits, MalformedJson
from app.pictures.picture import Picture
from app.pictures.pieces import PIECE_BYTES

_ESCAPED = re.compile(rb'\\["\\]')


class JsonReader:
    """Reads one JSON text in UTF-8: `feed` its pieces, then `finish`.

    A context manager: if it is left before `finish` has returned, it closes its blobs. After `finish`, the
    caller closes them; they are in the value and in `blobs`.
    """

    def __init__(self, new_blob: Callable[[], Blob], limits: Limits | None = None) -> None:
        self.length = 0
        self._limits = limits or Limits()
        self._make_blob = new_blob
        self._mark = ""  # begins each placeholder; random, so that no text can contain it
        # The group is not possessive: Python before 3.11.5 matches such groups wrongly (gh-106052).
        self._short_strings = re.compile(rb'(?:[^"]*+"[^"]{0,%d}+")*' % self._limits.blob_from)
        self._skeleton = bytearray()
        self._commas = 0
        self._string: OpenString | None = None  # continues in the next piece, or is longer than `blob_from`
        self._cut = b""  # a backslash at the end of a piece: half an escape
        self._found: dict[str, Blob] = {}  # by placeholder, in the order of the text
        self._shorter: list[int] = []  # bytes by which each placeholder is shorter than its string
        self._given = False

    @property
    def blobs(self) -> list[Blob]:
        return list(self._found.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._string:
            self._string.close()
        if not self._given:
            for blob in self._found.values():
                blob.close()

    def feed(self, piece: bytes) -> None:
        """Read the next piece. Raises JsonTooLarge, and NoRoom if a blob cannot be kept."""
        self.length += len(piece)
        if self.length > self._limits.total:
            raise JsonTooLarge(f"the JSON is longer than {self._limits.total} bytes")
        piece = self._cut + piece
        self._cut = b""
        if piece.endswith(b"\\") and (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece, self._cut = piece[:-1], b"\\"
        self._scan(piece)

    def _scan(self, piece: bytes) -> None:
        """Find strings by their quotes. The piece does not end between a backslash and the next character.

        A backslash outside strings counts as an escape too. It stays in the skeleton, so the parser refuses
        the text, whatever follows.
        """
        if self._string and self._string.take(piece):
            return
        plain = piece
        # The same length, and each quote that is left begins or ends a string:
        if b"\\" in piece and _ESCAPED.search(piece):
            plain = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        kept = at = 0  # the skeleton has piece[:kept]; piece[:at] is read
        while True:
            if self._string:
                closing = plain.find(b'"', at)
                if closing < 0:
                    self._string.write(piece[at:])
                    return
                self._string.write(piece[at:closing])
                self._close_string(self._string)
                kept, at = closing, closing + 1
            if passed := self._short_strings.match(plain, at):
                at = passed.end()
            opening = plain.find(b'"', at)
            if opening < 0:
                self._keep(piece[kept:])
                return
            self._keep(piece[kept : opening + 1])
            self._string = OpenString(self._limits, self._new_blob)
            at = opening + 1

    def _new_blob(self) -> Blob:
        if len(self._found) >= self._limits.blobs:
            raise JsonTooLarge(f"the JSON holds more than {self._limits.blobs} pictures")
        return self._make_blob()

    def _close_string(self, string: OpenString) -> None:
        blob = string.end()
        if blob:
            self._mark = self._mark or secrets.token_hex(16)
            placeholder = f"{self._mark}{len(self._found)}"
            self._found[placeholder] = blob
            self._shorter.append(string.length - len(placeholder))
        self._string = None
        self._keep(placeholder.encode() if blob else string.text)

    def _keep(self, piece: bytes | bytearray) -> None:
        self._skeleton += piece
        self._commas += piece.count(b",")
        if len(self._skeleton) > self._limits.skeleton:
            raise JsonTooLarge(f"the JSON holds more than {self._limits.skeleton} bytes beside its pictures")
        if self._commas > self._limits.commas:
            raise JsonTooLarge(f"the JSON holds more than {self._limits.commas} values")

    def finish(self) -> object:
        """Returns the value, with blobs in place of pictures. Raises MalformedJson and JsonTooLarge."""
        self._keep(self._cut)
        value = self._place(self._parse())
        self._given = True
        return value

    def _parse(self) -> object:
        """A byte order mark is skipped, invalid UTF-8 becomes U+FFFD. NaN and Infinity are refused.

        Pydantic's reader is tried first, and orjson if that one refuses (docs/decisions/0012).
        """
        try:
            return from_json(self._skeleton, allow_inf_nan=False, cache_strings=False)
        except ValueError:
            text = self._skeleton.decode("utf-8", "replace").removeprefix("\ufeff")
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            position = exc.pos + sum(self._shorter[: text.count(self._mark, 0, exc.pos)])
            message = f"Malformed JSON: {exc.msg}, at position {position}"
        raise MalformedJson(message)  # without orjson's error, which holds the whole text

    def _place(self, value: object) -> object:
        """Put blobs in place of their placeholders. Not recursive, since JSON can be nested deeply."""
        root = [value]
        left: list[dict[str, object] | list[object]] = [root]
        unplaced = dict(self._found)
        while unplaced and left:
            node = left.pop()
            if isinstance(node, dict) and not self._found.keys().isdisjoint(node):
                raise JsonTooLarge(f"a name in the JSON is longer than {self._limits.blob_from} bytes")
            items = node.items() if isinstance(node, dict) else enumerate(node)
            for key, inner in items:
                if isinstance(inner, str) and inner in unplaced:
                    node[key] = unplaced.pop(inner)  # type: ignore[index]  # its own key
                elif isinstance(inner, dict | list):
                    left.append(inner)
        for placeholder, blob in unplaced.items():  # a name stood twice in one object: the last value counts
            blob.close()
            del self._found[placeholder]
        return root[0]


class JsonWriter:
    """The JSON text of a value: `length` bytes, in pieces. It can be iterated any number of times.

    A Blob or a Picture becomes its base64. A pydantic model becomes an object with its aliases as names and
    without fields that are None. The blobs must be sealed, and open until the last piece is read. Raises
    TypeError for any other type.
    """

    def __init__(self, value: object) -> None:
        self.blobs: list[Blob] = []
        self._mark = ""  # in place of each blob; random, so that no text can contain it
        text = self._dumped(value)
        self._put(text.split(self._mark.encode()) if self.blobs else [text])

    @classmethod
    def of(cls, parts: Sequence[str], blobs: Sequence[Blob]) -> Self:
        """Returns a writer of these parts and blobs, alternating: it begins and ends with a part."""
        writer = cls.__new__(cls)
        writer.blobs = list(blobs)
        writer._put([part.encode() for part in parts])
        return writer

    def _put(self, parts: list[bytes]) -> None:
        self.parts = parts
        self.length = sum(map(len, parts)) + sum(blob.base64_length for blob in self.blobs)

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces(lambda: PIECE_BYTES)

    def pieces(self, most: Callable[[], int]) -> Iterator[bytes]:
        """Yields the text. A piece holds at most `most()` bytes of a picture (a multiple of three)."""
        yield self.parts[0]
        for blob, part in zip(self.blobs, self.parts[1:], strict=True):
            yield from blob.base64_pieces(most)
            yield part

    def _dumped(self, value: object) -> bytes:
        """orjson refuses integers beyond 64 bits, which callers can send where any integer is allowed."""
        try:
            return orjson.dumps(value, self._place, orjson.OPT_PASSTHROUGH_DATACLASS)
        except TypeError:
            self.blobs.clear()
            return json.dumps(value, default=self._place, allow_nan=False, separators=(",", ":")).encode()

    def _place(self, value: object) -> object:
        if isinstance(value, BaseModel):
            fields = type(value).model_fields.items()
            named = ((field.alias or name, getattr(value, name)) for name, field in fields)
            return {name: inner for name, inner in named if inner is not None}
        if isinstance(value, Picture):
            value = value.blob
        if isinstance(value, Blob):
            self.blobs.append(value)
            self._mark = self._mark or secrets.token_hex(16)
            return self._mark
        raise TypeError(f"{type(value).__name__} has no JSON")
