"""Reading `multipart/form-data` as it arrives: every file is in memory once."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.brackets import nest
from app.contract.errors import InvalidRequest, PayloadTooLarge
from app.contract.pictures import MAX_PICTURE_BYTES
from app.contract.rules import Uploads

Raw = Any

MAX_FIELDS = 1000
_MAX_PREAMBLE_BYTES = 64 * 1024
_LAST_INDEX = re.compile(r"\[\d*\]$")


async def receive_form(
    chunks: AsyncIterator[bytes], options: dict[bytes, bytes], uploads: Uploads
) -> dict[str, Raw]:
    """Parse a form as it arrives; every file is in memory once. Multer's complaints, in multer's words."""
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("Multipart: Boundary not found")
    form = _Form(uploads)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in _from_first_boundary(chunks, b"--" + boundary):
            parser.write(chunk)
    except FormParserError as exc:
        where = "Malformed part header" if form.in_header else "Unexpected end of form"
        raise InvalidRequest(f"Multipart: {where}") from exc
    except PayloadTooLarge as exc:
        raise PayloadTooLarge(file=True) from exc
    if not form.complete:
        raise InvalidRequest("Multipart: Unexpected end of form")
    return nest([*_texts_beside(form), *form.files])


def _texts_beside(form: "_Form") -> Iterator[tuple[str, str]]:
    """Yields the texts of a form, except those that a file replaces: a text of the same name, and an empty
    text in the same list."""
    files = {name for name, _ in form.files}
    for name, text in form.texts:
        if name not in files and (text or _LAST_INDEX.sub("", name) not in files):
            yield name, text


async def _from_first_boundary(chunks: AsyncIterator[bytes], delimiter: bytes) -> AsyncIterator[bytes]:
    """Leave out the preamble that RFC 2046 allows and the parser does not know."""
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
    """The parts of one form. `uploads`: the fields that take files, and how many (None: any number)."""

    uploads: Uploads
    texts: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)
    complete: bool = False
    _parts: int = 0
    in_header: bool = False
    _header: bytes = b""
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _name: str = ""
    _keep: list[tuple[str, bytes]] | list[tuple[str, str]] | None = None
    _data: BytesIO = field(default_factory=BytesIO)

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
        self._headers, self._data, self.in_header = {}, BytesIO(), True

    def _header_begin(self) -> None:
        self._header = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end].lower()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers[self._header] = self._headers.get(self._header, b"") + data[start:end]

    def _headers_finished(self) -> None:
        """Decide what the part is: a text, a file, or nothing to keep."""
        self.in_header, self._keep = False, None
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data":
            return
        if b"name" not in options:
            raise InvalidRequest("Field name missing")
        self._name = options[b"name"].decode("utf-8", "replace")
        octets = parse_options_header(self._headers.get(b"content-type"))[0] == b"application/octet-stream"
        if options.get(b"filename"):
            self._expect_file()
            self._keep = self.files
        elif b"filename" not in options and not octets:
            self._keep = self.texts

    def _expect_file(self) -> None:
        shape = re.sub(r"\[\d+\]", "[]", self._name)
        most = self.uploads.get(shape, 0)
        if most is not None and sum(name == self._name for name, _ in self.files) >= most:
            names = ", ".join(name.replace("[]", "[0]") for name in self.uploads)
            raise InvalidRequest(
                f"Unexpected field - {self._name[:100]}", hint=f"Files are accepted in: {names}"
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._keep is None:
            return
        if self._keep is self.files and self._data.tell() + end - start > MAX_PICTURE_BYTES:
            raise PayloadTooLarge(file=True)
        self._data.write(memoryview(data)[start:end])

    def _end(self) -> None:
        data = self._data.getvalue()
        if self._keep is self.files:
            self.files.append((self._name, data))
        elif self._keep is self.texts:
            self.texts.append((self._name, data.decode("utf-8", "replace")))

    def _finish(self) -> None:
        self.complete = True
