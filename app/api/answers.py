"""JSON answers. Pictures in them go out as base64, piece by piece: never as one text of tens of megabytes."""

import asyncio
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pybase64
import structlog
from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from app.contract.pictures import Picture
from app.logs import causes
from app.settings import Settings

_PIECE_BYTES = 3 * 32 * 1024
"""A multiple of three, so that the pieces' base64 can be joined."""
_SLOW_SECONDS = 1.0

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
    return _Pieces(_interleave(parts, pictures), length, status, headers or {})


class _Pieces(Response):
    """An answer with pictures in it, sent piece by piece.

    If the caller reads slowly, the pictures do not stay in memory: after a second without progress the rest
    of the answer is moved to an unnamed temporary file. The answer is given up after ANSWER_IDLE_SECONDS
    without progress. That time is long because the kernel asks for more only after a third of its buffer (a
    megabyte) was read.
    """

    def __init__(self, pieces: Iterator[bytes], length: int, status: int, headers: Mapping[str, str]) -> None:
        told = {**headers, "Content-Length": str(length)}
        super().__init__(None, status, told, "application/json; charset=utf-8")
        self._pieces = pieces
        self._left = length
        self._file: BinaryIO | None = None
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings: Settings = scope["app"].state.settings
        mover = asyncio.create_task(self._move_when_slow(settings.data_dir))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            while self._left:
                piece = await self._next()
                async with asyncio.timeout(settings.answer_idle_seconds):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.info("answer given up: not read in time")  # it has no end, so uvicorn closes the connection
        finally:
            mover.cancel()
            self._pieces = iter(())  # references to this answer must not keep its pictures in memory
            if self._file:
                self._file.close()

    async def _next(self) -> bytes:
        async with self._turn:
            piece = self._file.read(_PIECE_BYTES) if self._file else next(self._pieces)
        self._left -= len(piece)
        return piece

    async def _move_when_slow(self, folder: Path) -> None:
        left = None
        while left != self._left:
            left = self._left
            await asyncio.sleep(_SLOW_SECONDS)
        async with self._turn:
            try:
                self._file = await asyncio.to_thread(_moved, self._pieces, self._left, folder)
            except OSError as exc:
                log.warning("slow reader: the answer stays in memory", cause=causes(exc))
            else:
                log.info("slow reader: the answer was moved to disk")


def _moved(pieces: Iterator[bytes], length: int, folder: Path) -> BinaryIO:
    """Returns a temporary file with all pieces; closing it deletes it. If the disk is full, raises OSError
    before it reads the first piece."""
    folder.mkdir(parents=True, exist_ok=True)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by the answer
    try:
        os.posix_fallocate(file.fileno(), 0, max(length, 1))
    except OSError:
        file.close()
        raise
    for piece in pieces:
        file.write(piece)
    file.seek(0)
    return file


def _interleave(parts: list[bytes], pictures: list[Picture]) -> Iterator[bytes]:
    yield parts[0]
    for picture, part in zip(pictures, parts[1:], strict=True):
        data = memoryview(picture.data)
        for start in range(0, len(data), _PIECE_BYTES):
            yield pybase64.b64encode(data[start : start + _PIECE_BYTES])
        yield part
