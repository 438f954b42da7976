"""Reads a request body (JSON, urlencoded or multipart) within limits of size and time."""

import asyncio
import codecs
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from python_multipart.multipart import parse_options_header

from app.api.brackets import values_of
from app.api.exchange import parts
from app.api.form import MAX_FIELDS, TEXT_LIMITS, receive_form
from app.contract.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut, UnsupportedMedia
from app.contract.reading import Contract, Uploads, read
from app.disk import on_disk
from app.pictures.blob import Blob, Blobs
from app.pictures.in_json import JsonReader
from app.pictures.json_limits import JsonTooLarge, MalformedJson
from app.threads import off_loop

C = TypeVar("C", bound=Contract)
T = TypeVar("T")
Raw = Any
BodyFormat = Literal["json", "urlencoded", "multipart"]
Take = Callable[[int], Awaitable[None]]
"""A function that waits until so many more bytes of the body may be kept in memory."""

_LARGE_BODY_BYTES = 10_000_000
"""With a larger Content-Length, pictures are written to disk while they arrive, never kept in memory."""
_BUILT_AT_ONCE_BYTES = 64 * 1024
"""A body up to this size is validated on the event loop: a thread would cost more."""
_MAX_URLENCODED_BYTES = 1024 * 1024
_SLOWEST_BYTES_PER_SECOND = 16 * 1024


async def never_wait(_size: int) -> None:
    """A `Take` that never waits, for small bodies."""


async def read_body(request: Request, take: Take, blobs: Blobs, *, contract: type[C]) -> C:
    """Returns the request's body as `contract`. Raises what `read_raw` raises."""
    catalogue = parts(request.scope).catalogue

    def build(raw: Raw, body_format: BodyFormat, blobs: Blobs) -> C:
        if body_format == "multipart":
            return read(contract, contract.from_form(raw), catalogue, blobs, text=True)
        return read(contract, raw, catalogue, blobs)

    return await read_raw(
        request, take, blobs, build, max_bytes=contract.max_body_bytes, uploads=contract.uploads
    )


async def read_raw(
    request: Request,
    take: Take,
    blobs: Blobs,
    build: Callable[[Raw, BodyFormat, Blobs], T],
    *,
    max_bytes: int,
    uploads: Uploads,
) -> T:
    """Read the request's body and return `build(raw, format, blobs)`. A large body is built in a thread.

    Pictures become blobs while they arrive. `max_bytes` is the limit unless MAX_BODY_BYTES is set. A body of
    another media type counts as empty, as in NestJS. Raises InvalidRequest, PayloadTooLarge,
    UnsupportedMedia, RequestTimedOut and NoRoom.
    """
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMedia(f'unsupported content encoding "{encoding}"')
    media, options = parse_options_header(request.headers.get("content-type"))
    settings = parts(request.scope).settings
    limit = settings.max_body_bytes or max_bytes
    bytes_read = 0

    async def counted(size: int) -> None:
        nonlocal bytes_read
        bytes_read += size
        await take(size)

    chunks = partial(_chunks, request, counted, settings.body_idle_seconds)
    new_blob = partial(blobs.new, on_disk=_declared(request) > _LARGE_BODY_BYTES)
    body_format: BodyFormat
    match media:
        case b"application/json":
            body_format, raw = "json", await _read_json(chunks(limit), _charset(options), new_blob)
        case b"application/x-www-form-urlencoded":
            charset = _charset(options, "iso-8859-1")
            received = chunks(min(limit, _MAX_URLENCODED_BYTES))
            body_format, raw = "urlencoded", await _read_urlencoded(received, charset)
        case b"multipart/form-data" if uploads:
            body_format, raw = "multipart", await receive_form(chunks(limit), options, uploads, new_blob)
        case b"" if _has_body(request):
            raise InvalidRequest(
                "The body has no Content-Type: send application/json"
                + (" or multipart/form-data" if uploads else "")
            )
        case _:
            return build({}, "json", blobs)
    try:
        if uploads and bytes_read > _BUILT_AT_ONCE_BYTES:
            return await off_loop(build, raw, body_format, blobs)
        return build(raw, body_format, blobs)
    except RecursionError as exc:
        raise InvalidRequest("Malformed JSON: nested too deeply") from exc


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _declared(request: Request) -> int:
    """Returns Content-Length, or 0 if it is missing or not a number."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


async def _chunks(request: Request, take: Take, idle_seconds: float, limit: int) -> AsyncIterator[bytes]:
    """Yields the body as it arrives. Raises PayloadTooLarge, and RequestTimedOut if it arrives too slowly."""
    if _declared(request) > limit:
        raise PayloadTooLarge
    left, seconds = limit, 0.0
    stream = request.stream()
    while True:
        started = time.monotonic()
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
        seconds += time.monotonic() - started
        if limit - left < _SLOWEST_BYTES_PER_SECOND * (seconds - idle_seconds):
            raise RequestTimedOut
        await take(len(chunk))
        yield chunk


def _charset(options: dict[bytes, bytes], *also: str) -> str:
    """Returns the charset of the body: UTF-8, UTF-16, UTF-32 or one of `also`. Raises UnsupportedMedia."""
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    known = re.fullmatch(r"utf-(8|16|16le|16be|32|32le|32be)", charset)
    if not known and charset not in also:
        raise UnsupportedMedia(f'unsupported charset "{charset.upper()}"')
    return charset


async def _read_json(chunks: AsyncIterator[bytes], charset: str, new_blob: Callable[[], Blob]) -> Raw:
    """Returns an object or a list, and {} for an empty body. Raises InvalidRequest for other JSON."""
    decode = None if charset == "utf-8" else codecs.getincrementaldecoder(charset)("replace").decode
    with JsonReader(new_blob, TEXT_LIMITS) as reader:
        try:
            async for chunk in chunks:
                await on_disk(reader.feed, decode(chunk).encode() if decode else chunk)
            if not reader.length:
                return {}
            raw = reader.finish()
        except MalformedJson as exc:
            raise InvalidRequest(str(exc)) from None
        except JsonTooLarge as exc:
            raise PayloadTooLarge from exc
    if not isinstance(raw, dict | list):
        raise InvalidRequest("Malformed JSON: the body must be an object")
    return raw


async def _read_urlencoded(chunks: AsyncIterator[bytes], charset: str) -> Raw:
    text = b"".join([chunk async for chunk in chunks]).decode("latin-1")
    try:
        return values_of(parse_qsl(text, True, encoding=charset, max_num_fields=MAX_FIELDS))
    except ValueError as exc:
        raise PayloadTooLarge("too many parameters") from exc
