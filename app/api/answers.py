"""JSON answers. Pictures in them go out as base64, piece by piece: never as one text of tens of megabytes."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pybase64
import structlog
from fastapi import Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.contract.pictures import Picture

_PIECE_BYTES = 3 * 32 * 1024
"""A multiple of three, so that the pieces' base64 can be joined."""

log = structlog.get_logger()


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, head: bool = False
) -> Response:
    """An answer of these values.

    A model among them is written by its aliases and without its Nones, a Picture as the text of its base64.
    """
    pictures: list[Picture] = []
    mark = secrets.token_hex(16)  # stands where a picture goes; nobody can guess it into the other texts

    def place(value: object) -> object:
        if isinstance(value, BaseModel):
            fields = type(value).model_fields.items()
            named = ((field.alias or name, getattr(value, name)) for name, field in fields)
            return {name: inner for name, inner in named if inner is not None}
        if isinstance(value, Picture):
            pictures.append(value)
            return mark
        raise TypeError(type(value))

    text = b"" if head else orjson.dumps(body, place, orjson.OPT_PASSTHROUGH_DATACLASS)
    media_type = "application/json; charset=utf-8"
    if not pictures:
        return Response(text, status, dict(headers or {}), media_type=media_type)
    parts = text.split(mark.encode())
    length = sum(map(len, parts)) + sum(4 * -(-len(picture.data) // 3) for picture in pictures)
    told = {**(headers or {}), "Content-Length": str(length)}
    return _Pieces(_interleave(parts, pictures), status, told, media_type=media_type)


class _NotTaken(Exception):
    """The caller reads no further."""


class _Pieces(StreamingResponse):
    """An answer that is given up when nobody reads: its pictures would stand in memory.

    The time is long, for the kernel asks for more only when a third of its buffer, a megabyte, is read.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seconds = scope["app"].state.settings.answer_idle_seconds

        async def in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(seconds):
                    await send(message)
            except TimeoutError as exc:
                raise _NotTaken from exc

        try:
            await super().__call__(scope, receive, in_time)
        except _NotTaken:
            log.info("answer not taken")  # without its end uvicorn closes the connection


async def _interleave(parts: list[bytes], pictures: list[Picture]) -> AsyncIterator[bytes]:
    yield parts[0]
    for picture, part in zip(pictures, parts[1:], strict=True):
        data = memoryview(picture.data)
        for start in range(0, len(data), _PIECE_BYTES):
            yield pybase64.b64encode(data[start : start + _PIECE_BYTES])
        yield part
