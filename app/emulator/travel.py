"""How an HTTP answer travels, as ordered by the control route: slowly, in pieces, rewritten, or cut short.

What an answer says is `trouble.Kind`'s business; an order may ask for both. gRPC's answers travel as always.
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
"""The key of the scope under which the connection's transport stands (see `exchange.Cuttable`)."""
_LARGEST_PIECE = 64 * 1024
_DRIPS_PER_SECOND = 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
_TIMED_OUT = b"<!DOCTYPE html>\n<title>Error 408 (Request Timeout)</title>\n<p>408. That's an error.\n"


class Travel(BaseModel):
    """The vocabulary of `travel`. Fields may be combined; numbers of bytes are those of the body as sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delay: Annotated[float, Field(ge=0)] = 0
    """Seconds before the head. The work is done and paid by then (the trouble `slow` waits before it)."""
    drip: Annotated[int, Field(gt=0)] | None = None
    """Bytes per second."""
    piece: Annotated[int, Field(gt=0)] | None = None
    """Bytes per write, and per chunk when chunked. 1: byte by byte, at most some 50,000 of them a second."""
    chunked: bool = False
    """Transfer-Encoding: chunked instead of Content-Length."""
    gzip: bool = False
    """Content-Encoding: gzip, whatever the client accepts."""
    reordered: bool = False
    """The keys of every JSON object the other way round."""
    indented: bool = False
    """JSON with line breaks and indents."""
    escaped: bool = False
    r"""JSON with `\/` and `\u003d` for every `/` and `=`, also inside base64."""
    cut: Literal["before", "after"] | Annotated[int, Field(ge=0)] | None = None
    """End the connection before the head, after so many bytes of the body, or after the whole answer."""
    reset: bool = False
    """With `cut`: end it by a reset (RST) instead of a close (FIN). What was sent arrives in both cases."""
    length: int = 0
    """Added to the true Content-Length. The connection is closed after the body."""
    endless: bool = False
    """The first half of the body, then the letter A for ever, chunked. With `gzip`: a bomb."""
    timed_out: bool = False
    """A 408 with a page of HTML, as a front end gives it, in place of the answer. The work is paid."""

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


class Travelling(Response):
    """Another response, as it travels. Made in a thread: rewriting takes its time."""

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
        if travel.delay and await _leaves(receive, travel.delay):
            return None
        if (travel.cut is not None or travel.length) and not transport.is_closing():
            transport.pause_reading()  # no further request on it, not even one that waits for the last byte
        if travel.cut == "before":
            return await _end(transport, receive, reset=travel.reset)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = bytes(self.body)
        stop = travel.cut if isinstance(travel.cut, int) else len(body) + min(travel.length, 0)
        for piece in self._pieces(body[: max(0, stop)]):
            if transport.is_closing():
                return None
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if travel.drip:
                await _leaves(receive, len(piece) / travel.drip)
            else:
                await asyncio.sleep(0)  # a write of its own
        if not isinstance(travel.cut, int) and travel.length <= 0:
            await send({"type": "http.response.body"})
        if travel.cut is not None or travel.length:
            transport.write(body[max(0, stop) :] if travel.length < 0 else b"")
            await _end(transport, receive, reset=travel.reset)
        return None

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        travel = self._travel
        size = travel.piece or _LARGEST_PIECE
        if travel.drip and not travel.piece:
            size = max(1, travel.drip // _DRIPS_PER_SECOND)
        stream = iter([body])
        if travel.endless:
            stream = _zipped(_for_ever(body)) if travel.gzip else _for_ever(body)
        for whole in stream:
            yield from (whole[at : at + size] for at in range(0, len(whole), size))


def _rewritten(body: bytes, travel: Travel) -> bytes:
    if travel.reordered or travel.indented:
        value = orjson.loads(body)
        option = orjson.OPT_INDENT_2 if travel.indented else None
        body = orjson.dumps(_reversed(value) if travel.reordered else value, option=option)
    if travel.escaped:  # outside strings JSON has neither
        body = body.replace(b"/", rb"\/").replace(b"=", rb"\u003d")
    return body


def _reversed(value: Any) -> Any:
    if isinstance(value, list):
        return [_reversed(item) for item in value]
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return value


def _for_ever(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    while True:
        yield b"A" * _LARGEST_PIECE


def _zipped(stream: Iterator[bytes]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    yield from (squeezed for piece in stream if (squeezed := squeeze.compress(piece)))
    yield squeeze.flush()


async def _end(transport: asyncio.Transport, receive: Receive, *, reset: bool) -> None:
    """Let arrive what was sent, end the connection, and wait until it has ended."""
    if transport.is_closing():
        return
    if reset:
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
            while not transport.is_closing() and (  # noqa: ASYNC110 - no event tells that the kernel is done
                transport.get_write_buffer_size() or _unsent(connection)
            ):
                await asyncio.sleep(0.005)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    else:
        transport.close()
    await _left(receive)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _leaves(receive: Receive, seconds: float) -> bool:
    """Wait so long. True, and at once, if the client leaves meanwhile."""
    try:
        await asyncio.wait_for(_left(receive), seconds)
    except TimeoutError:
        return False
    return True


def _unsent(connection: socket.socket) -> int:
    """Bytes that the kernel has not delivered yet."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), "little")
