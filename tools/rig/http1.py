"""Minimal HTTP/1.1, for both ends of the floor and for the callers that load the gateway.

A message has a Content-Length or no body. Its body is received into one buffer, which the connection keeps
and uses again for the next message.
"""

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, cast
from urllib.parse import urlsplit

Part = bytes | memoryview
_HEAD_BYTES = 16 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Message(NamedTuple):
    """A request or an answer. Its body is `buffer[:length]`, and is overwritten by the connection's next."""

    head: bytes
    buffer: bytearray
    length: int

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    def view(self, start: int, end: int) -> memoryview:
        return memoryview(self.buffer)[start:end]


class Connection(asyncio.BufferedProtocol):
    """One end of a connection. `received` is called with each message."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._head = bytearray(_HEAD_BYTES)
        self._in_head = 0
        self._body = bytearray()
        self._length = self._missing = 0
        self._complete_head = b""
        self._drained: asyncio.Future[None] | None = None

    def received(self, message: Message) -> None:
        raise NotImplementedError

    async def write(self, parts: Sequence[Part]) -> None:
        """Send the parts. Returns when the kernel has all bytes, so that the parts can be changed."""
        self.transport.writelines(parts)
        if self._drained:
            await self._drained

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class
        self.transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._drained and not self._drained.done():
            self._drained.set_exception(exc or ConnectionResetError())

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._missing:
            return memoryview(self._body)[self._length - self._missing : self._length]
        return memoryview(self._head)[self._in_head :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing:
            self._missing -= nbytes
        else:
            self._in_head += nbytes
            self._read_head()
        if self._complete_head and not self._missing:
            head, self._complete_head = self._complete_head, b""
            self.received(Message(head, self._body, self._length))

    def _read_head(self) -> None:
        """Read a message. All bytes after its head are its body: no client sends a second request early."""
        end = self._head.find(b"\r\n\r\n", 0, self._in_head) + 4
        if end < 4:
            assert self._in_head < _HEAD_BYTES, "a head of 16 KB"
            return
        self._complete_head = bytes(self._head[:end])
        length = _LENGTH.search(self._complete_head)
        self._length = int(length[1]) if length else 0
        if self._length > len(self._body):
            self._body = bytearray(self._length)
        begun, self._in_head = self._in_head - end, 0
        self._body[:begun] = self._head[end : end + begun]
        self._missing = self._length - begun


class Client(Connection):
    """Sends requests and receives their answers, one at a time."""

    _answer: "asyncio.Future[Message] | None" = None

    def expect(self) -> "asyncio.Future[Message]":
        """Returns the answer to the request that is sent next."""
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    async def ask(self, parts: Sequence[Part]) -> Message:
        """Send a request and return its response. Raises ConnectionError without a response."""
        answer = self.expect()
        self.transport.writelines(parts)
        return await answer

    def received(self, message: Message) -> None:
        assert self._answer
        self._answer.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the other end closed the connection"))


async def connect(url: str) -> Client:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Client, address.hostname or "", address.port or 80)
    return client


class Pool:
    """Connections to one address. The one that was used last, whose buffer is in the cache, is used next."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: deque[Client] = deque()

    async def acquire(self) -> Client:
        while self._idle:
            client = self._idle.pop()
            if not client.transport.is_closing():
                return client
        return await connect(self._url)

    def release(self, client: Client) -> None:
        self._idle.append(client)
