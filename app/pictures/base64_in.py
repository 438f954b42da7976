"""Long strings in JSON: base64 is decoded into a blob while it arrives, anything else stays a text."""

import re
from collections.abc import Callable
from contextlib import suppress

import pybase64

from app.pictures.blob import Blob
from app.pictures.json_limits import Limits

_DATA_URI = re.compile(rb"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)
_LONGEST_DATA_URI = 256
_WHOLE = re.compile(rb"(?:[^\\]+|\\u[dD][89abAB]..\\u.{4}|\\u(?![dD][89abAB]).{4}|\\[^u]){1,100}", re.DOTALL)
"""Up to a hundred whole characters or escapes."""
_PADDING = ord("=")
_STANDARD = bytes.maketrans(b"-_", b"+/")

_SPELLED = [
    (f"\\u00{digits}".encode(), character)
    for hexadecimal, character in (("2b", b"+"), ("2f", b"/"), ("3d", b"="), ("2d", b"-"), ("5f", b"_"))
    for digits in {hexadecimal, hexadecimal.upper()}
]


class NotBase64(ValueError):
    """The string is not base64, so it is a text."""


class Base64Decoder:
    """Decodes one string: standard or URL-safe alphabet, padded or not, with line breaks, as a `data:` URI.

    The string is given as JSON source, in pieces that do not end after an odd number of backslashes. A string
    with an escaped letter or digit is a text: no program writes base64 like that. `blob` is None until the
    first byte is decoded.
    """

    def __init__(self, new_blob: Callable[[], Blob]) -> None:
        self.blob: Blob | None = None
        self._new_blob = new_blob
        self._left = b""  # not decoded yet: part of a group of four, of an escape, or of a data: prefix
        self._begun = False
        self._padded = False

    def take(self, source: bytes) -> bool:
        """Decode a piece in one pass, if it is standard base64 without escapes: the usual case.

        Returns False, and does nothing, for any other piece. Raises NoRoom.
        """
        if not self._begun or self._padded:
            return False
        text = self._left + source if self._left else source
        end = len(text) - len(text) % 4
        left = text[end:]
        if not end or b'"' in left or b"\\" in left:
            return False
        try:
            data = pybase64.b64decode(memoryview(text)[:end], validate=True)
        except ValueError:
            return False
        self._keep(text[end - 1] == _PADDING, data)
        self._left = left
        return True

    def write(self, source: bytes) -> None:
        """Decode a piece. Raises NotBase64 and NoRoom."""
        if self.take(source):
            return
        text, cut_escape = _unescape(self._left + source)
        if not self._begun and len(text) >= _LONGEST_DATA_URI:
            text = self._begin(text)
        whole = len(text) // 4 * 4 if self._begun else 0
        self._decode(text[:whole])
        self._left = text[whole:] + cut_escape

    def end(self) -> Blob:
        """Returns the sealed blob. Raises NotBase64 if the last group is incomplete, or there is no byte."""
        text = self._left if self._begun else self._begin(self._left)
        missing = -len(text) % 4
        if missing and b"=" in text:
            raise NotBase64
        self._decode(text + b"=" * missing)
        if self.blob is None:
            raise NotBase64
        self.blob.seal()
        return self.blob

    def _begin(self, text: bytes) -> bytes:
        self._begun = True
        match = _DATA_URI.match(text, 0, _LONGEST_DATA_URI)
        return text[match.end() :] if match else text

    def _decode(self, text: bytes) -> None:
        if not text:
            return
        if self._padded:
            raise NotBase64
        self._keep(text[-1] == _PADDING, _decode(text))

    def _keep(self, padded: bool, data: bytes) -> None:
        self._padded = padded
        if self.blob is None:
            self.blob = self._new_blob()
        self.blob.write(data)


class OpenString:
    """A string that has not ended yet. Its source is kept, because it can still turn out to be a text.

    A text longer than `limits.text` is cut, and ends with an ellipsis: it is too long for any field, and the
    ellipsis is not base64.
    """

    def __init__(self, limits: Limits, new_blob: Callable[[], Blob]) -> None:
        self.length = 0
        self.text = bytearray()
        self._limits = limits
        self._decoder: Base64Decoder | None = Base64Decoder(new_blob)
        self._decoding = False

    def write(self, source: bytes) -> None:
        """Raises NoRoom."""
        self.length += len(source)
        if self._decoder and self.length > self._limits.blob_from:
            undecoded = source if self._decoding else bytes(self.text) + source
            self._decoding = True
            try:
                self._decoder.write(undecoded)
            except NotBase64:
                self.close()
        self._keep(source)

    def take(self, source: bytes) -> bool:
        """Decode a piece like `Base64Decoder.take`. Returns False for a string that is not being decoded."""
        if not (self._decoding and self._decoder and self._decoder.take(source)):
            return False
        self.length += len(source)
        self._keep(source)
        return True

    def _keep(self, source: bytes) -> None:
        if len(self.text) < self._limits.text:
            self.text += source[: self._limits.text - len(self.text)]

    def end(self) -> Blob | None:
        """Returns the blob, or None for a text, which is in `text`."""
        if self._decoder and self._decoding:
            try:
                return self._decoder.end()
            except NotBase64:
                self.close()
        if self.length > self._limits.text:
            self.text = _beginning(self.text)
        return None

    def close(self) -> None:
        """Delete the blob: the string is a text, or is not needed any more."""
        if self._decoder and self._decoder.blob:
            self._decoder.blob.close()
        self._decoder = None


def _beginning(text: bytearray) -> bytearray:
    """Returns the text up to its last whole character, and an ellipsis."""
    end = 0
    while whole := _WHOLE.match(text, end):
        end = whole.end()
    return bytearray(text[:end].decode("utf-8", "ignore").encode()) + "…".encode()


def _decode(text: bytes) -> bytes:
    """Decode whole groups of the standard alphabet, the URL-safe one, or both. Raises NotBase64."""
    with suppress(ValueError):
        return pybase64.b64decode(text, validate=True)
    with suppress(ValueError):
        return pybase64.b64decode(text.translate(_STANDARD), validate=True)
    raise NotBase64


def _unescape(source: bytes) -> tuple[bytes, bytes]:
    """Returns the text, and an incomplete escape at its end. Raises NotBase64.

    Without a doubled backslash, each backslash begins an escape, so each kind of escape can be replaced in
    one step. Line breaks come last: removing them can bring characters together that look like an escape.
    """
    if b"\\" not in source:
        return source, b""
    unmarked = source.replace(b"\\", b"")
    slashes = source.count(b"\\/")
    if len(source) - len(unmarked) == slashes:  # no other escapes, as PHP writes base64: the quick way
        return unmarked, b""
    if b"\\\\" in source:
        raise NotBase64
    cut = source.rfind(b"\\u", -5)
    text, cut_escape = (source[:cut], source[cut:]) if cut >= 0 else (source, b"")
    if slashes:
        text = text.replace(b"\\/", b"/")
    if b"\\u" in text:
        for escape, character in _SPELLED:
            text = text.replace(escape, character)
    text = text.replace(b"\\r", b"").replace(b"\\n", b"")
    if b"\\" in text:
        raise NotBase64
    return text, cut_escape
