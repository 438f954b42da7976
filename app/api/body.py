"""Reading a body: JSON, urlencoded or multipart becomes one raw value, within its limit and its time."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from io import BytesIO
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

import orjson
from fastapi import Request
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header

from app.api.brackets import nest
from app.api.form import MAX_FIELDS, receive_form
from app.contract.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut, UnsupportedMedia
from app.contract.models import Catalogue
from app.contract.rules import Contract, Uploads, read
from app.settings import Settings
from app.threads import off_loop

C = TypeVar("C", bound=Contract)
T = TypeVar("T")
Raw = Any
Spelling = Literal["json", "urlencoded", "multipart"]
Take = Callable[[int], Awaitable[None]]
"""Takes a number of bytes. Returns when that much more of the body may be kept in memory."""

_MAX_JSON_COMMAS = 100_000
"""More values than any request has; a million of them would hold the interpreter for seconds."""
_MAX_URLENCODED_BYTES = 1024 * 1024
_SLOWEST_BYTES_PER_SECOND = 16 * 1024
_OFF_LOOP_BYTES = 1024 * 1024
"""A body above this is parsed beside the event loop, as are bodies with pictures, which are decoded."""


async def _at_once(_size: int) -> None:
    """For small bodies: does not wait."""


async def read_body(request: Request, take: Take = _at_once, *, contract: type[C]) -> C:
    """Read the request's body into a contract type. Raises what `read_raw` raises."""
    catalogue: Catalogue = request.app.state.catalogue

    def build(raw: Raw, spelling: Spelling) -> C:
        if spelling == "multipart":
            return read(contract, contract.from_form(raw), catalogue, text=True)
        return read(contract, raw, catalogue)

    return await read_raw(request, take, build, max_bytes=contract.max_body_bytes, uploads=contract.uploads)


async def read_raw(
    request: Request, take: Take, build: Callable[[Raw, Spelling], T], *, max_bytes: int, uploads: Uploads
) -> T:
    """Read the request's body and `build` something of it, off the event loop when that takes its time.

    `max_bytes` is the limit unless MAX_BODY_BYTES is set. A body of a type that is not read here counts as
    empty, as in Nest. Raises InvalidRequest, PayloadTooLarge, UnsupportedMedia and RequestTimedOut.
    """
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMedia(f'unsupported content encoding "{encoding}"')
    media, options = parse_options_header(request.headers.get("content-type"))
    settings: Settings = request.app.state.settings
    limit = settings.max_body_bytes or max_bytes
    chunks = partial(_chunks, request, take, settings.body_idle_seconds)
    match media:
        case b"application/json":
            data = await _receive(chunks(limit))
            work = partial(_from_json, build, data, _charset(options))
        case b"application/x-www-form-urlencoded":
            limit = min(limit, _MAX_URLENCODED_BYTES)
            data = await _receive(chunks(limit))
            work = partial(_from_urlencoded, build, data, _charset(options, "iso-8859-1"))
        case b"multipart/form-data" if uploads:
            form = await receive_form(chunks(limit), options, uploads)
            data = BytesIO()
            work = partial(build, form, "multipart")
        case b"" if _has_body(request):
            raise InvalidRequest(
                "The body has no Content-Type: send application/json"
                + (" or multipart/form-data" if uploads else "")
            )
        case _:
            return build({}, "json")
    slow = data.tell() > _OFF_LOOP_BYTES or uploads
    return await off_loop(work) if slow else work()


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def _chunks(request: Request, take: Take, idle_seconds: float, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Stops at the limit, when nothing comes for `idle_seconds`, when it drips."""
    declared = request.headers.get("content-length", "")
    left = limit - (int(declared) if declared.isdecimal() else 0)
    if left < 0:
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


async def _receive(chunks: AsyncIterator[bytes]) -> BytesIO:
    """The whole body. Whoever has parsed it closes it: its memory is wanted for the pictures."""
    data = BytesIO()
    async for chunk in chunks:
        data.write(chunk)
    return data


def _charset(options: dict[bytes, bytes], *also: str) -> str:
    """The charset to decode with: any utf, or one of `also`."""
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    known = re.fullmatch(r"utf-(8|16|16le|16be|32|32le|32be)", charset)
    if not known and charset not in also:
        raise UnsupportedMedia(f'unsupported charset "{charset.upper()}"')
    return charset


def _from_json(build: Callable[[Raw, Spelling], T], data: BytesIO, charset: str) -> T:
    raw = _parse_json(data.getvalue(), charset)
    data.close()
    try:
        return build(raw, "json")
    except RecursionError as exc:
        raise InvalidRequest("Malformed JSON: nested too deeply") from exc


def _parse_json(data: bytes, charset: str) -> Raw:
    """Objects and lists only. A byte order mark is skipped, invalid UTF-8 becomes U+FFFD.

    Pydantic's reader is asked first; orjson, which copies the body before it reads it, only when that refuses
    (docs/decisions/0012).
    """
    if not data:
        return {}
    if data.count(b",") > _MAX_JSON_COMMAS:
        raise PayloadTooLarge
    try:
        raw = from_json(data, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        text = data.decode(charset, "replace").removeprefix("\ufeff")
        try:
            raw = orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            raise InvalidRequest(f"Malformed JSON: {exc.msg}, at position {exc.pos}") from exc
    if not isinstance(raw, dict | list):
        raise InvalidRequest("Malformed JSON: the body must be an object")
    return raw


def _from_urlencoded(build: Callable[[Raw, Spelling], T], data: BytesIO, charset: str) -> T:
    try:
        pairs = parse_qsl(
            data.getvalue().decode("latin-1"), True, encoding=charset, max_num_fields=MAX_FIELDS
        )
    except ValueError as exc:
        raise PayloadTooLarge("too many parameters") from exc
    return build(nest(pairs), "urlencoded")
