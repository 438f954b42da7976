"""Connections to vendors: how they are opened, and how much of an answer each takes in at a time."""

import asyncio
import socket
import ssl
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from aiohttp.client_proto import ResponseHandler

WAITING_BYTES = 2 * 1024
"""How much of an answer can be unread before its turn. aiohttp pauses at twice as much."""
_READ_BYTES = 256 * 1024
_FEW = 64
_KEEP_ALIVE_SECONDS = 30


class Reading:
    """What all connections of an event loop share: one buffer, and how many calls are under way.

    A connection reads into the buffer, and what has arrived is copied before another one reads.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self.under_way = 0


def connector(reading: Reading, tls: ssl.SSLContext | bool, idle_seconds: float) -> aiohttp.TCPConnector:
    """Returns a pool of any number of connections. One that was idle for longer is not used again."""
    pool = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=idle_seconds, ssl=tls, socket_factory=_keep_alive_socket
    )
    loop = asyncio.get_running_loop()
    # aiohttp has no public way to choose the protocol of its connections.
    pool._factory = lambda: Connection(loop, reading)  # type: ignore[assignment]
    return pool


class Connection(ResponseHandler):
    """One connection. While many calls are under way, it takes little of an answer at once before its turn.

    The event loop would read 256 KB at a time, and a thousand waiting answers would hold that much each.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reading: Reading) -> None:
        super().__init__(loop)
        self.reading = reading
        self.has_turn = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        transport.set_protocol(_Buffered(self))


class _Buffered(asyncio.BufferedProtocol):
    """Passes everything on to a Connection, which is not a BufferedProtocol: loops check the class."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reading = connection.reading
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._connection.has_turn or self._reading.under_way <= _FEW:
            return self._reading.buffer
        return self._reading.buffer[:WAITING_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        # aiohttp's parser copies what it keeps of these bytes.
        self._connection.data_received(self._reading.buffer[:nbytes])  # type: ignore[arg-type]


def proxy(scheme: str, authority: str) -> str | None:
    """Returns the proxy's URL, with user and password if it has them: aiohttp makes a header of those."""
    url = getproxies().get(scheme)
    if not url or proxy_bypass(authority):
        return None
    return url if "://" in url else f"http://{url}"


def system_tls() -> ssl.SSLContext | bool:
    """Returns True if the system has certificate authorities: aiohttp made a context of them at import.

    Making one takes about 20 ms.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return True
    return ssl.create_default_context(cafile=certifi.where())


def _keep_alive_socket(address: tuple[int, int, int, str, object]) -> socket.socket:
    """TCP keep-alive: a vendor that has vanished is noticed, and a firewall keeps a waiting call's state."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _KEEP_ALIVE_SECONDS)
    return made
