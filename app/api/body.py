"""Reading a body: JSON, urlencoded or multipart becomes one raw value, within its limit and its time."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

import orjson
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.contract.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut, UnsupportedMedia
from app.contract.models import Catalogue
from app.contract.pictures import MAX_PICTURE_BYTES
from app.contract.rules import Contract, Uploads, read
from app.settings import Settings
from app.threads import off_loop

C = TypeVar("C", bound=Contract)
T = TypeVar("T")
Raw = Any
Spelling = Literal["json", "urlencoded", "multipart"]
Pair = tuple[str, str | bytes]

_MAX_FIELDS = 1000
_MAX_JSON_COMMAS = 100_000
"""More values than any request has; a million of them would hold the interpreter for seconds."""
_MAX_URLENCODED_BYTES = 1024 * 1024
_SLOWEST_BYTES_PER_SECOND = 16 * 1024
_MAX_PREAMBLE_BYTES = 64 * 1024
_OFF_LOOP_BYTES = 1024 * 1024
"""A body above this is parsed beside the event loop, as are bodies with pictures, which are decoded."""


async def read_body(request: Request, contract: type[C]) -> C:
    """Read the request's body into a contract type. Raises what `read_raw` raises."""
    catalogue: Catalogue = request.app.state.catalogue

    def build(raw: Raw, spelling: Spelling) -> C:
        if spelling == "multipart":
            return read(contract, contract.from_form(raw), catalogue, text=True)
        return read(contract, raw, catalogue)

    return await read_raw(request, build, max_bytes=contract.max_body_bytes, uploads=contract.uploads)


async def read_raw(
    request: Request, build: Callable[[Raw, Spelling], T], *, max_bytes: int, uploads: Uploads
) -> T:
    """Read the request's body and `build` something of it, off the event loop when that takes its time.

    `max_bytes` is the limit unless MAX_BODY_BYTES is set. A body of a type that is not read here counts as
    empty, as in Nest. Raises InvalidRequest, PayloadTooLarge, UnsupportedMedia and RequestTimedOut.
    """
    settings: Settings = request.app.state.settings
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMedia(f'unsupported content encoding "{encoding}"')
    media, options = parse_options_header(request.headers.get("content-type"))
    limit, idle = settings.max_body_bytes or max_bytes, settings.body_idle_seconds
    match media:
        case b"application/json":
            data = await _receive(_chunks(request, limit, idle))
            work = partial(_from_json, build, data, _charset(options))
        case b"application/x-www-form-urlencoded":
            limit = min(limit, _MAX_URLENCODED_BYTES)
            data = await _receive(_chunks(request, limit, idle))
            work = partial(_from_urlencoded, build, data, _charset(options, "iso-8859-1"))
        case b"multipart/form-data" if uploads:
            form = await _receive_form(_chunks(request, limit, idle), options, uploads)
            data = bytearray()
            work = partial(build, form, "multipart")
        case _:
            return build({}, "json")
    slow = len(data) > _OFF_LOOP_BYTES or uploads
    return await off_loop(work) if slow else work()


async def _chunks(request: Request, limit: int, idle_seconds: float) -> AsyncIterator[bytes]:
    """The body as it arrives. Stops at the limit, when nothing comes for `idle_seconds`, when it drips."""
    declared = request.headers.get("content-length", "")
    left = limit - (int(declared) if declared.isdecimal() else 0)
    if left < 0:
        raise PayloadTooLarge
    left = limit
    started = time.monotonic()
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(stream, None)
        except TimeoutError as exc:
            raise RequestTimedOut from exc
        if chunk is None:
            return
        left -= len(chunk)
        if left < 0:
            raise PayloadTooLarge
        if limit - left < _SLOWEST_BYTES_PER_SECOND * (time.monotonic() - started - idle_seconds):
            raise RequestTimedOut
        yield chunk


async def _receive(chunks: AsyncIterator[bytes]) -> bytearray:
    """The whole body. Whoever has parsed it clears it: its memory is wanted for the pictures."""
    data = bytearray()
    async for chunk in chunks:
        data += chunk
    return data


def _charset(options: dict[bytes, bytes], *also: str) -> str:
    """The charset to decode with: any utf, or one of `also`."""
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    known = re.fullmatch(r"utf-(8|16|16le|16be|32|32le|32be)", charset)
    if not known and charset not in also:
        raise UnsupportedMedia(f'unsupported charset "{charset.upper()}"')
    return charset


def _from_json(build: Callable[[Raw, Spelling], T], data: bytearray, charset: str) -> T:
    raw = _parse_json(data, charset)
    data.clear()
    return build(raw, "json")


def _parse_json(data: bytearray, charset: str) -> Raw:
    """Objects and lists only. A byte order mark is skipped, invalid UTF-8 becomes U+FFFD."""
    if not data:
        return {}
    if data.count(b",") > _MAX_JSON_COMMAS:
        raise PayloadTooLarge
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data.decode(charset, "replace").removeprefix("\ufeff")
        try:
            raw = orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            raise InvalidRequest(f"Malformed JSON: {exc.msg}, at position {exc.pos}") from exc
    if not isinstance(raw, dict | list):
        raise InvalidRequest("Malformed JSON: the body must be an object")
    return raw


def _from_urlencoded(build: Callable[[Raw, Spelling], T], data: bytearray, charset: str) -> T:
    try:
        pairs = parse_qsl(data.decode("latin-1"), True, encoding=charset, max_num_fields=_MAX_FIELDS)
    except ValueError as exc:
        raise PayloadTooLarge("too many parameters") from exc
    return build(_nest(pairs), "urlencoded")


# ── multipart ────────────────────────────────────────────────────────────────────────────────────────────


async def _receive_form(
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
    names = {name for name, _ in form.files}
    return _nest([*((name, text) for name, text in form.texts if name not in names), *form.files])


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
    _data: bytearray = field(default_factory=bytearray)

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
        if self._parts > _MAX_FIELDS:
            raise PayloadTooLarge("too many parameters")
        self._headers, self._data, self.in_header = {}, bytearray(), True

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
            raise InvalidRequest(f"Unexpected field - {self._name[:100]}")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._keep is None:
            return
        if self._keep is self.files and len(self._data) + end - start > MAX_PICTURE_BYTES:
            raise PayloadTooLarge(file=True)
        self._data += memoryview(data)[start:end]

    def _end(self) -> None:
        data = bytes(self._data)
        self._data.clear()
        if self._keep is self.files:
            self.files.append((self._name, data))
        elif self._keep is self.texts:
            self.texts.append((self._name, data.decode("utf-8", "replace")))

    def _finish(self) -> None:
        self.complete = True


# ── bracket names ────────────────────────────────────────────────────────────────────────────────────────

_BRACKETED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,5})")
_INDEX = re.compile(r"\d{1,6}", re.ASCII)


def _nest(pairs: Iterable[Pair]) -> dict[str, Raw]:
    """`a[b]=1` nests, `a[]=1`, `a[0]=1` and a repeated `a=1` make lists, gaps close up. Dots mean nothing."""
    root: dict[str, Raw] = {}
    for name, value in pairs:
        match = _BRACKETED.fullmatch(name)
        *steps, last = [match[1], *match[2][1:-1].split("][")] if match else [name]
        at = root
        for step in steps:
            at = _inside(at, step or str(len(at)))
        last = last or str(len(at))
        if last in at:
            at, last = _inside(at, last), str(len(_inside(at, last)))
        at[last] = value
    return {name: _lists(value) for name, value in root.items()}


def _inside(at: dict[str, Raw], step: str) -> dict[str, Raw]:
    """The branch below a step; a value that stood there becomes its first element."""
    branch = at.get(step)
    if not isinstance(branch, dict):
        branch = at[step] = {} if branch is None else {"0": branch}
    return branch


def _lists(value: Raw) -> Raw:
    """Branches whose keys are all indices become lists."""
    if not isinstance(value, dict):
        return value
    if all(_INDEX.fullmatch(key) for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(inner) for key, inner in value.items()}
