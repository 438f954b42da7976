"""JSON responses. Their pictures are sent as base64 in pieces, never as one text of tens of megabytes."""

import asyncio
from collections.abc import Mapping

import structlog
from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.api.exchange import parts
from app.disk import on_disk
from app.pictures.in_json import JsonWriter
from app.pictures.pieces import PIECE_BYTES

_JSON = "application/json; charset=utf-8"

log = structlog.get_logger()


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None, *, head: bool = False
) -> Response:
    """An answer of these values, written by JsonWriter, or what one has written. `head`: without its body."""
    if head:
        return Response(b"", status, dict(headers or {}), media_type=_JSON)
    text = body if isinstance(body, JsonWriter) else JsonWriter(body)
    if text.blobs:
        return _Pieces(text, status, headers or {})
    return Response(b"".join(text), status, dict(headers or {}), media_type=_JSON)


_ALL_PIECES_BYTES = 4 * 1024 * 1024
"""The memory of waiting pieces of all responses together. Of each response one piece waits."""
_LEAST_PIECE_BYTES = 12 * 1024


class _Pieces(Response):
    """A response with pictures, sent in pieces.

    It is given up after ANSWER_IDLE_SECONDS without progress. That time is long, because the kernel asks for
    more only when a third of its buffer (a megabyte) was read.
    """

    being_sent = 0

    def __init__(self, text: JsonWriter, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(None, status, {**headers, "Content-Length": str(text.length)}, _JSON)
        self._text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        idle_seconds = parts(scope).settings.answer_idle_seconds
        pieces = self._text.pieces(self._piece_bytes)
        _Pieces.being_sent += 1
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            async with asyncio.timeout(None) as idle:
                while piece := await on_disk(next, pieces, b""):
                    _postpone(idle, idle_seconds)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            log.info("answer given up: not read in time")  # it has no end, so uvicorn closes the connection
        else:
            await send({"type": "http.response.body", "body": b""})
        finally:
            _Pieces.being_sent -= 1

    @classmethod
    def _piece_bytes(cls) -> int:
        """Returns how many bytes of a picture the next piece has."""
        share = _ALL_PIECES_BYTES // cls.being_sent
        return max(_LEAST_PIECE_BYTES, min(PIECE_BYTES, share - share % 3))


def _postpone(timeout: asyncio.Timeout, seconds: float) -> None:
    """Let the timeout end so many seconds from now, up to 0.1 s more.

    Not for each piece: a new timer would cost more than encoding the piece.
    """
    now, ends = asyncio.get_running_loop().time(), timeout.when()
    if ends is None or now + seconds > ends:
        timeout.reschedule(now + seconds + 0.1)
