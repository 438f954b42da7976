"""The HTTP client that carries pictures: it sends a request in pieces and streams the answer into blobs.

One client for all vendors and for Cloud Storage. It never repeats a request by itself: a paid call that is
sent twice may be paid twice.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import aiohttp
import structlog
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from app.disk import on_disk
from app.pictures.blob import Blob
from app.pictures.in_json import JsonReader
from app.pictures.json_limits import JsonTooLarge, Limits, MalformedJson
from app.pictures.room import NoRoom
from app.providers.connections import WAITING_BYTES, Connection, Reading, connector, proxy, system_tls

MAX_ANSWER_BYTES = 128 * 1024 * 1024
_MAX_ERROR_BYTES = 1024 * 1024
_MAX_TEXT_BYTES = 32 * 1024
"""The limit of one string that is not a picture. That much of each arriving picture is in memory, too."""
_READ_AHEAD_BYTES = 64 * 1024
"""How much of an answer can be unread during its turn. aiohttp pauses at twice as much."""
_PIECE_BYTES = 64 * 1024
_SILENT_SECONDS = 1


log = structlog.get_logger()


class TransportError(Exception):
    """The request has no answer. The message is for the log and holds no URL and no vendor's text."""


class NotSent(TransportError):
    """No byte of the body was sent: the name was not resolved, or connecting, TLS or the proxy failed."""


class NotSentInTime(NotSent):
    """The deadline passed before a byte of the body was sent."""


class Broken(TransportError):
    """The request was sent and its outcome is unknown: the connection broke, or the answer is not whole, not
    JSON, too large, or cannot be kept."""


class TooLate(TransportError):
    """The request was sent, and its deadline passed before the answer was whole. The outcome is unknown."""


class Body(Protocol):
    """What is sent: a JsonWriter, or any other known number of bytes in pieces."""

    length: int

    def __iter__(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A vendor's answer. `headers`: lower-case names. `value`: its JSON, with a Blob for each long string of
    base64; None if a body with an error status is not JSON, or longer than 1 MiB."""

    status: int
    headers: Mapping[str, str]
    value: object


class Transport:
    """Connections to all vendors. Made before the loop runs or on it; connects on first use.

    `connect_seconds` bound the address look-up, TCP, TLS and a proxy's CONNECT together. A connection that
    was idle for more than `idle_seconds` is not used again: the vendor may have closed it. HTTP_PROXY,
    HTTPS_PROXY and NO_PROXY are honoured, and SSL_CERT_FILE and SSL_CERT_DIR unless `tls` is given. Any
    number of calls can be under way; `answers_at_a_time` answers are read, and the others wait in their
    connections.
    """

    def __init__(
        self,
        *,
        connect_seconds: float = 5,
        idle_seconds: float = 10,
        answers_at_a_time: int = 24,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._tls = tls or system_tls()
        self._proxy = cache(proxy)
        self._turns = asyncio.Semaphore(answers_at_a_time)
        self._reading = Reading()
        self._opened: aiohttp.ClientSession | None = None

    async def post(
        self,
        url: str,
        body: Body,
        headers: Mapping[str, str],
        *,
        deadline: float,
        new_blob: Callable[[], Blob],
    ) -> Answer:
        """Send a POST and read its answer as JSON, whatever its status. `deadline` in the event loop's time.

        The URL goes out as it is written. Content-Length and `Accept-Encoding: identity` are added. Raises
        NotSent, Broken and TooLate.
        """
        sending = _Sending(body)
        self._reading.under_way += 1
        try:
            async with asyncio.timeout_at(deadline):
                return await self._exchange(URL(url, encoded=True), sending, headers, new_blob)
        except aiohttp.ClientError as exc:
            reason = _reason(exc)
        except TimeoutError:
            raise (TooLate if sending.begun else NotSentInTime)("the deadline has passed") from None
        except OSError as exc:
            reason = _reason(exc)
        except (MalformedJson, JsonTooLarge, NoRoom) as exc:
            reason = str(exc)
        finally:
            self._reading.under_way -= 1
        failure = Broken if sending.begun else NotSent
        log.warning("a call has no answer", host=URL(url).host, failure=failure.__name__, reason=reason)
        raise failure(reason)

    async def _exchange(
        self, url: URL, sending: "_Sending", headers: Mapping[str, str], new_blob: Callable[[], Blob]
    ) -> Answer:
        all_headers = {name.lower(): text for name, text in headers.items()}
        all_headers |= {"accept-encoding": "identity", "content-length": str(sending.size)}
        for _ in range(2):  # the loop sees which idle connections were closed meanwhile, and drops them
            await asyncio.sleep(0)
        try:
            response = await self._session().post(
                url,
                data=sending,
                headers=all_headers,
                proxy=self._proxy(url.scheme, url.authority),
                allow_redirects=False,
            )
        except BaseException:
            sending.abort()
            raise
        try:
            value = await _read(response, new_blob, _Turn(self._turns))
        finally:
            if response.connection:  # it has left a whole answer: by now another call may use it
                sending.abort()
                response.close()
        return Answer(response.status, {name.lower(): text for name, text in response.headers.items()}, value)

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=connector(self._reading, self._tls, self._idle_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_seconds),
                read_bufsize=WAITING_BYTES,
                trust_env=False,  # it would read ~/.netrc too
            )
        return self._opened

    async def aclose(self) -> None:
        """Close all connections. Call it when no call is under way: one could wait until its deadline."""
        if self._opened:
            await self._opened.close()


class _Sending(aiohttp.Payload):
    """A request's body on its way."""

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self._size = body.length
        self.begun = False
        self._transport: asyncio.BaseTransport | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body in pieces is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._transport = writer.transport
        pieces = _joined(self._value)
        while piece := await on_disk(next, pieces, b""):
            if self.begun:
                await asyncio.sleep(0)  # lets other calls run, and an early answer be seen
            self.begun = True
            await writer.write(piece)
        self.begun = True  # without a body only the head goes out

    def abort(self) -> None:
        """Close the connection at once. aiohttp would first send what is in its buffer."""
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()


def _joined(pieces: Body) -> Iterator[bytes]:
    """Yields the same bytes with small pieces joined: each piece costs a system call. No piece is empty."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if size:
        yield b"".join(waiting)


class _Turn:
    """One answer's turn to be read. It is given back when nothing has arrived for a second."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None  # while it has its turn

    async def take(self) -> None:
        """Wait for the turn. Called whenever something has arrived."""
        if self._watch is None:
            await self._turns.acquire()
            self._watch = self._loop.call_later(_SILENT_SECONDS, self._look)
        self._heard = self._loop.time()

    def _look(self) -> None:
        heard_until = self._heard + _SILENT_SECONDS
        if heard_until > self._loop.time():
            self._watch = self._loop.call_at(heard_until, self._look)
        else:
            self.give_back()

    def give_back(self) -> None:
        if self._watch:
            self._watch.cancel()
            self._watch = None
            self._turns.release()


async def _read(response: aiohttp.ClientResponse, new_blob: Callable[[], Blob], turn: _Turn) -> object:
    """Raises MalformedJson and JsonTooLarge for status 200 only."""
    whole = response.status == 200
    connection = response.connection.protocol if response.connection else None
    limits = Limits(total=MAX_ANSWER_BYTES if whole else _MAX_ERROR_BYTES, text=_MAX_TEXT_BYTES)
    with JsonReader(new_blob, limits) as reader:
        try:
            await turn.take()
            response.content.set_read_chunk_size(_READ_AHEAD_BYTES)
            if isinstance(connection, Connection):
                connection.has_turn = True
            async for chunk in response.content.iter_any():
                await turn.take()
                await on_disk(reader.feed, chunk)
            return reader.finish()
        except (MalformedJson, JsonTooLarge):
            if whole:
                raise
            return None
        finally:
            if isinstance(connection, Connection):
                connection.has_turn = False
            turn.give_back()


def _reason(exc: BaseException) -> str:
    """Returns what happened, without URLs and the vendor's text, which aiohttp's messages can quote."""
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return f"the proxy refused with status {exc.status}"
    cause = exc.__cause__
    if isinstance(cause, OSError) and cause.errno is not None:
        return f"{type(exc).__name__}: {type(cause).__name__}: {cause.strerror}"
    return type(exc).__name__
