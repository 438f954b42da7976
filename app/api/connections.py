"""Limits connections where uvicorn does not: slow or large heads, upgrades, and unread responses.

A head (request line and headers) over 64 KiB gets 431. If it takes longer than 10 seconds, the connection is
closed. A piece of a response is sent only after the kernel has taken the previous one. If a caller reads
nothing for too long, the connection is ended. Upgrades are declined.

uvicorn chooses its protocol class before it imports the application. So `install` makes that class create
instances of a subclass.
"""

import socket
from asyncio import Transport
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_BYTES = 64 * 1024
SECONDS = 10.0
_UNREAD_SECONDS = 60.0

_BODY = b'{"statusCode":431,"message":"Request Header Fields Too Large"}'
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json; charset=utf-8\r\n"
    b"x-error-code: payload_too_large\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n\r\n%s"
) % (len(_BODY), _BODY)


class _Head:
    """The size of the head that a connection is sending, and the timer for it."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._timer: TimerHandle | None = None
        self.bytes = 0

    def begin(self) -> None:
        """Start the timer, unless it runs already."""
        if self._timer is None:
            self._timer = self._protocol.loop.call_later(SECONDS, self._late)

    def end(self) -> None:
        """Stop the timer: the head, or the body after it, is complete."""
        self.bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def refuse(self) -> None:
        """Close the connection. Send 431 before, unless another response is being sent."""
        if self._idle():
            self._protocol.transport.write(_TOO_LARGE)
        self._protocol.transport.close()

    def _late(self) -> None:
        self._timer = None
        if self._idle():
            self._protocol.transport.close()

    def _idle(self) -> bool:
        """Returns whether no response is being sent on this connection."""
        cycle = self._protocol.cycle
        return cycle is None or cycle.response_complete


class _LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the limits of this module."""

    _head: _Head

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        self._head = _Head(self)
        self._head.begin()
        transport.set_write_buffer_limits(high=0)  # at most one piece of a response waits in memory
        _end_when_unread(transport, 2 * self.app_state.get("answer_idle_seconds", _UNREAD_SECONDS))

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data to the parser, at most as much as the head may still have.

        Everything except the body counts as head: also trailers and the framing of chunks.
        """
        rest = memoryview(data)
        while rest and not self.transport.is_closing():
            if self.cycle is None or not self.cycle.more_body:
                self._head.begin()
            room = MAX_BYTES - self._head.bytes
            piece, rest = rest[:room], rest[room:]
            self._head.bytes += len(piece)
            super().data_received(piece)  # type: ignore[arg-type]
            if self._head.bytes >= MAX_BYTES:
                self._head.refuse()

    def on_headers_complete(self) -> None:
        self._head.end()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser reads no further request

    def on_body(self, body: bytes) -> None:
        self._head.bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head.end()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.more_body:  # an early response: the rest of the body must arrive in time too
            self._head.begin()
        super().on_response_complete()

    def _should_upgrade(self) -> bool:
        """Decline: uvicorn's WebSocket code would wait forever for the rest of a POST."""
        return False


def install() -> None:
    """Make uvicorn apply the limits to all connections from now on."""
    uvicorns: Any = HttpToolsProtocol
    uvicorns.__new__ = lambda _class, *_args, **_kwargs: object.__new__(_LimitedProtocol)


def _end_when_unread(transport: Transport, seconds: float) -> None:
    """Let the kernel end the connection if the caller reads nothing for so many seconds.

    Otherwise uvicorn could not stop: unsent bytes keep a closed connection open.
    """
    connection = transport.get_extra_info("socket")
    if connection.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
