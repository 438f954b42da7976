"""How an HTTP answer travels, as the control route orders: slowly, in pieces, rewritten, or cut short.

`trouble.Kind` decides what the answer is; one order can ask for both. It has no effect on gRPC.
"""

import asyncio
import fcntl
import os
import socket
import struct
import termios
import zlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

TRANSPORT = "emulator.transport"
"""The key of the connection's transport in the ASGI scope. `exchange.Cuttable` sets it."""
_LARGEST_PIECE_BYTES = 64 * 1024
_DRIPS_PER_SECOND = 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
_TIMED_OUT = b"<!DOCTYPE html>\n<title>Error 408 (Request Timeout)</title>\n<p>408. That's an error.\n"


class Travel(BaseModel):
    """What an order can say. Fields combine, except as checked below. Bytes are of the body as sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delay: Annotated[float, Field(ge=0)] = 0
    """Seconds before the head, after the work is done and paid. The trouble `slow` waits before."""
    drip: Annotated[int, Field(gt=0)] | None = None
    """Bytes per second."""
    piece: Annotated[int, Field(gt=0)] | None = None
    """Bytes per write, and per chunk if `chunked`. With 1, some 50,000 bytes per second are sent at most."""
    chunked: bool = False
    """Transfer-Encoding: chunked instead of Content-Length."""
    gzip: bool = False
    """Content-Encoding: gzip, even if the client does not accept it."""
    reordered: bool = False
    """The keys of every JSON object in reverse order."""
    indented: bool = False
    """JSON with line breaks and indentation."""
    escaped: bool = False
    r"""JSON with `\/` and `\u003d` for every `/` and `=`, also inside base64."""
    cut: Literal["before", "after"] | Annotated[int, Field(ge=0)] | None = None
    """Close the connection before the head, after so many bytes of the body, or after the whole answer."""
    reset: bool = False
    """With `cut`: a reset (RST) instead of a close (FIN). What was sent arrives in both cases."""
    length: int = 0
    """Added to the true Content-Length. The connection is closed after the body."""
    endless: bool = False
    """The first half of the body, then the letter A without end, chunked. With `gzip`: a zip bomb."""
    timed_out: bool = False
    """A 408 with an HTML page, as a vendor's front end sends it, instead of the answer. The work is paid."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("travel needs at least one field")
        if self.reset and self.cut is None:
            raise ValueError("reset needs cut")
        if self.length and (self.chunked or self.cut is not None):
            raise ValueError("length goes with neither chunked nor cut")
        if self.endless and (self.length or self.cut is not None):
            raise ValueError("endless goes with neither length nor cut")
        return self


class TravellingResponse(Response):
    """Sends another response as `travel` says. Rewriting a large body is slow: construct it in a thread."""

    def __init__(self, response: Response, travel: Travel) -> None:
        if travel.timed_out:
            response = HTMLResponse(_TIMED_OUT, 408)
        body = bytes(response.body)
        if response.headers.get("content-type", "").startswith("application/json"):
            body = _rewritten(body, travel)
        if travel.gzip and not travel.endless:
            body = b"".join(_zipped(iter([body])))
        super().__init__(body, response.status_code, dict(response.headers))
        if travel.gzip:
            self.headers["content-encoding"] = "gzip"
        if travel.chunked or travel.endless:
            del self.headers["content-length"]
        else:
            self.headers["content-length"] = str(max(0, len(body) + travel.length))
        self._travel = travel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        travel, transport = self._travel, scope[TRANSPORT]
        closes = travel.cut is not None or travel.length != 0
        if travel.delay and await _disconnects_within(travel.delay, receive):
            return
        if closes and not transport.is_closing():
            transport.pause_reading()  # no further request is served on it
        if travel.cut != "before":
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if not await self._send_body(transport, receive, send):
                return
        if closes:
            await _close(transport, receive, reset=travel.reset)

    async def _send_body(self, transport: asyncio.Transport, receive: Receive, send: Send) -> bool:
        """Returns False if the client disconnects meanwhile."""
        travel, body = self._travel, bytes(self.body)
        stop = len(body)
        if isinstance(travel.cut, int):
            stop = travel.cut
        elif travel.length < 0:
            stop = max(0, len(body) + travel.length)
        for piece in self._pieces(body[:stop]):
            if transport.is_closing():
                return False
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if travel.drip:
                await _disconnects_within(len(piece) / travel.drip, receive)
            else:
                await asyncio.sleep(0)  # so that each piece is a write of its own
        if not isinstance(travel.cut, int) and travel.length <= 0:
            await send({"type": "http.response.body"})
        if travel.length < 0:
            transport.write(body[stop:])  # the server would not send more than Content-Length
        return True

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        travel = self._travel
        size = travel.piece or _LARGEST_PIECE_BYTES
        if travel.drip and not travel.piece:
            size = max(1, travel.drip // _DRIPS_PER_SECOND)
        stream = iter([body])
        if travel.endless:
            stream = _zipped(_endless(body)) if travel.gzip else _endless(body)
        for whole in stream:
            yield from (whole[at : at + size] for at in range(0, len(whole), size))


def _rewritten(body: bytes, travel: Travel) -> bytes:
    if travel.reordered or travel.indented:
        value = orjson.loads(body)
        option = orjson.OPT_INDENT_2 if travel.indented else None
        body = orjson.dumps(_with_reversed_keys(value) if travel.reordered else value, option=option)
    if travel.escaped:  # outside strings JSON has neither / nor =
        body = body.replace(b"/", rb"\/").replace(b"=", rb"\u003d")
    return body


def _with_reversed_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_reversed_keys(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_reversed_keys(value[key]) for key in reversed(value)}
    return value


def _endless(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    while True:
        yield b"A" * _LARGEST_PIECE_BYTES


def _zipped(stream: Iterator[bytes]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    yield from (squeezed for piece in stream if (squeezed := squeeze.compress(piece)))
    yield squeeze.flush()


async def _close(transport: asyncio.Transport, receive: Receive, *, reset: bool) -> None:
    """Closes the connection when everything sent has been delivered, and waits until it is closed."""
    if transport.is_closing():
        return
    if reset:
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
            while not transport.is_closing() and (  # noqa: ASYNC110 - no event tells that the kernel is done
                transport.get_write_buffer_size() or _undelivered(connection)
            ):
                await asyncio.sleep(0.005)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    else:
        transport.close()
    await wait_for_disconnect(receive)


def _undelivered(connection: socket.socket) -> int:
    """Returns the number of bytes that the client's kernel has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), "little")


async def wait_for_disconnect(receive: Receive) -> None:
    """Waits until the client disconnects. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _disconnects_within(seconds: float, receive: Receive) -> bool:
    """Waits so many seconds, or until the client disconnects. Returns whether it did."""
    try:
        await asyncio.wait_for(wait_for_disconnect(receive), seconds)
    except TimeoutError:
        return False
    return True
