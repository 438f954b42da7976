"""Reads `multipart/form-data`. Each file becomes a blob while it arrives."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.brackets import values_of
from app.contract.errors import InvalidRequest, PayloadTooLarge
from app.contract.fields import MAX_TEXT_CHARACTERS
from app.contract.reading import Uploads
from app.disk import on_disk
from app.pictures.base64_in import OpenString
from app.pictures.blob import Blob
from app.pictures.json_limits import Limits
from app.pictures.picture import MAX_PICTURE_BYTES

Raw = Any

MAX_FIELDS = 1000
TEXT_LIMITS = Limits(blob_from=MAX_TEXT_CHARACTERS)
"""A prompt without spaces can look like base64, so only texts longer than any prompt become blobs."""
_MAX_PREAMBLE_BYTES = 64 * 1024
_LAST_INDEX = re.compile(r"\[\d*\]$")


async def receive_form(
    chunks: AsyncIterator[bytes],
    options: dict[bytes, bytes],
    uploads: Uploads,
    new_blob: Callable[[], Blob],
) -> dict[str, Raw]:
    """Returns the values of a form, parsed as it arrives.

    Raises NoRoom, and InvalidRequest and PayloadTooLarge with the messages of NestJS's multer.
    """
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("Multipart: Boundary not found")
    form = _Form(uploads, new_blob)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in _from_first_boundary(chunks, b"--" + boundary):
            await on_disk(parser.write, chunk)
    except FormParserError as exc:
        where = "Malformed part header" if form.in_header else "Unexpected end of form"
        raise InvalidRequest(f"Multipart: {where}") from exc
    except PayloadTooLarge as exc:
        raise PayloadTooLarge(file=True) from exc
    if not form.complete:
        raise InvalidRequest("Multipart: Unexpected end of form")
    return values_of([*_texts_beside(form), *form.files])


def _texts_beside(form: "_Form") -> Iterator[tuple[str, str | Blob]]:
    """Yields the texts of a form. A file replaces a text of the same name, and empty texts in its list."""
    files = {name for name, _ in form.files}
    for name, text in form.texts:
        if name not in files and (text or _LAST_INDEX.sub("", name) not in files):
            yield name, text


async def _from_first_boundary(chunks: AsyncIterator[bytes], delimiter: bytes) -> AsyncIterator[bytes]:
    """Yields the body without the preamble, which RFC 2046 allows and the parser does not."""
    head = b""
    async for chunk in chunks:
        head += chunk
        at = 0 if head.startswith(delimiter) else head.find(b"\r\n" + delimiter) + 2
        if at != 1:
            yield head[at:]
            break
        if len(head) > _MAX_PREAMBLE_BYTES:
            return
    async for chunk in chunks:
        yield chunk


@dataclass
class _Form:
    """The state of parsing one form.

    `uploads`: the names of the fields that take files, and how many each takes; None for any number.
    """

    uploads: Uploads
    new_blob: Callable[[], Blob]
    texts: list[tuple[str, str | Blob]] = field(default_factory=list)
    files: list[tuple[str, Blob]] = field(default_factory=list)
    complete: bool = False
    _parts: int = 0
    in_header: bool = False
    _header: bytes = b""
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _name: str = ""
    _text: OpenString | None = None
    _text_bytes: int = 0
    _file: Blob | None = None

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise PayloadTooLarge("too many parameters")
        self._headers, self.in_header = {}, True

    def _header_begin(self) -> None:
        self._header = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end].lower()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers[self._header] = self._headers.get(self._header, b"") + data[start:end]

    def _headers_finished(self) -> None:
        """Decide whether to read the part as a text or as a file, or to ignore it."""
        self.in_header, self._text, self._file = False, None, None
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data":
            return
        if b"name" not in options:
            raise InvalidRequest("Field name missing")
        self._name = options[b"name"].decode("utf-8", "replace")
        octets = parse_options_header(self._headers.get(b"content-type"))[0] == b"application/octet-stream"
        if options.get(b"filename"):
            self._expect_file()
            self._file = self.new_blob()
        elif b"filename" not in options and not octets:
            self._text = OpenString(TEXT_LIMITS, self.new_blob)

    def _expect_file(self) -> None:
        shape = re.sub(r"\[\d+\]", "[]", self._name)
        most = self.uploads.get(shape, 0)
        if most is not None and sum(name == self._name for name, _ in self.files) >= most:
            names = ", ".join(name.replace("[]", "[0]") for name in self.uploads)
            raise InvalidRequest(
                f"Unexpected field - {self._name[:100]}", hint=f"Files are accepted in: {names}"
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file:
            if self._file.length + end - start > MAX_PICTURE_BYTES:
                raise PayloadTooLarge(file=True)
            self._file.write(data[start:end])
        elif self._text:
            self._text.write(data[start:end])

    def _end(self) -> None:
        if self._file:
            self._file.seal()
            self.files.append((self._name, self._file))
        elif self._text:
            text = self._text.end() or self._text.text.decode("utf-8", "replace")
            self.texts.append((self._name, text))
            self._text_bytes += len(self._text.text) if isinstance(text, str) else 0
            if self._text_bytes > TEXT_LIMITS.skeleton:
                raise PayloadTooLarge("too much text")

    def _finish(self) -> None:
        self.complete = True
