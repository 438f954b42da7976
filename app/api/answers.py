"""JSON responses. Pictures are sent as base64 in pieces, so that no response is in memory as a whole."""

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
    """Returns a JSON response. `body` is a JsonWriter, or a value for one. `head` leaves out the body."""
    if head:
        return Response(b"", status, dict(headers or {}), media_type=_JSON)
    text = body if isinstance(body, JsonWriter) else JsonWriter(body)
    if text.blobs:
        return _Pieces(text, status, headers or {})
    return Response(b"".join(text), status, dict(headers or {}), media_type=_JSON)


_ALL_PIECES_BYTES = 4 * 1024 * 1024
"""The memory for the pieces that wait to be sent, of all responses together. Each has one such piece."""
_LEAST_PIECE_BYTES = 12 * 1024


class _Pieces(Response):
    """A response with pictures, sent in pieces.

    The connection is closed after ANSWER_IDLE_SECONDS without progress. That time is long, because the kernel
    takes the next piece only after a third of its buffer (a megabyte) was read.
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
            log.info(
                "answer given up: not read in time"
            )  # it is incomplete, so uvicorn closes the connection
        else:
            await send({"type": "http.response.body", "body": b""})
        finally:
            _Pieces.being_sent -= 1

    @classmethod
    def _piece_bytes(cls) -> int:
        """Returns how many bytes of a picture the next piece has: fewer if many responses are being sent."""
        share = _ALL_PIECES_BYTES // cls.being_sent
        return max(_LEAST_PIECE_BYTES, min(PIECE_BYTES, share - share % 3))


def _postpone(timeout: asyncio.Timeout, seconds: float) -> None:
    """Move the timeout to `seconds` from now, or up to 0.1 s later.

    It is not moved for each piece: a new timer would cost more than encoding the piece.
    """
    now, ends = asyncio.get_running_loop().time(), timeout.when()
    if ends is None or now + seconds > ends:
        timeout.reschedule(now + seconds + 0.1)
