"""The HTTP client, over real sockets: against the emulator, and against servers that behave worse."""

import asyncio
import gzip
import json
import os
import socket
import ssl
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import certifi
import pytest

from app.emulator.server import Emulator
from app.emulator.travel import Travel
from app.pictures.blob import Blob, Blobs
from app.pictures.in_json import JsonWriter
from app.pictures.work_folder import WorkFolder
from app.providers import connections
from app.providers import transport as transport_module
from app.providers.transport import Answer, Body, Broken, NotSent, TooLate, Transport, TransportError
from tests.providers.peers import Authority, Peer, answering, basic, forwarding, serving
from tests.support.vertex_client import PARENT

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
IMAGEN = f"/v1/{PARENT}/imagen-4.0-generate-001:predict"
ASKED: Json = {
    "instances": [{"prompt": "a pear"}],
    "parameters": {"sampleCount": 2, "seed": 7, "addWatermark": False},
}
SECRET = "s3cret-of-the-vendor"
"""In everything that a message must not repeat."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[WorkFolder]:
    with WorkFolder(tmp_path / "work", blob_memory_bytes=100_000) as folder:
        yield folder


@pytest.fixture
def blobs(folder: WorkFolder) -> Iterator[Blobs]:
    with folder.blobs() as blobs:
        yield blobs


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def transport(no_proxy: None) -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.aclose()


async def post(
    transport: Transport,
    url: str,
    blobs: Blobs,
    *,
    body: Body | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 30,
) -> Answer:
    return await transport.post(
        url,
        body or JsonWriter(ASKED),
        headers or {"Content-Type": "application/json"},
        deadline=asyncio.get_running_loop().time() + seconds,
        new_blob=blobs.new,
    )


def shown(value: Any) -> Any:
    """The value with each blob's digest in its place."""
    if isinstance(value, Blob):
        return value.sha256().hex()
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    return [shown(inner) for inner in value] if isinstance(value, list) else value


def connections_to(port: int) -> list[list[str]]:
    """The kernel's list of TCP connections on the client's side: 2 the peer, 3 the state, 5 the timer."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [columns for columns in lines if columns[2].endswith(f":{port:04X}")]


class Pieces:
    """A body of `count` pieces of `size`, which counts those that were asked for."""

    def __init__(self, count: int, size: int) -> None:
        self.length = count * size
        self.given = 0
        self._count = count
        self._size = size

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._count):
            self.given += 1
            yield bytes([number % 251]) * self._size


# ── Answers that arrive ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "travel",
    [
        {"gzip": True},
        {"chunked": True},
        {"piece": 4093},
        {"gzip": True, "chunked": True, "piece": 1000},
        {"reordered": True},
        {"indented": True},
        {"escaped": True},
        {"gzip": True, "chunked": True, "reordered": True, "indented": True, "escaped": True},
        {"cut": "after"},
        {"cut": "after", "reset": True},
        {"cut": "after", "gzip": True},
        {"cut": "after", "gzip": True, "reset": True},
    ],
    ids=str,
)
async def test_pictures_are_the_same_however_they_travel(
    travel: Json, emulator: Emulator, transport: Transport, blobs: Blobs
) -> None:
    plain = await post(transport, emulator.http_url + IMAGEN, blobs)
    emulator.troubles.set(travel=Travel(**travel))
    answer = await post(transport, emulator.http_url + IMAGEN, blobs)
    assert answer.status == 200
    assert shown(answer.value) == shown(plain.value)
    assert isinstance(plain.value, dict)
    assert all(isinstance(each["bytesBase64Encoded"], Blob) for each in plain.value["predictions"])


async def test_a_picture_in_chunks_of_one_byte_is_the_same(
    emulator: Emulator, transport: Transport, blobs: Blobs
) -> None:
    picture = blobs.of(os.urandom(10_000))
    [text] = json.loads(b"".join(JsonWriter([picture])))
    emulator.troubles.set("answer", arg={"status": 200, "body": {"a": text, "b": "short"}})
    emulator.troubles.set(travel=Travel(chunked=True, piece=1))
    answer = await post(transport, emulator.http_url + IMAGEN, blobs)
    assert shown(answer.value) == {"a": picture.sha256().hex(), "b": "short"}


@pytest.mark.parametrize(
    "travel",
    [
        {"cut": "before"},
        {"cut": "before", "reset": True},
        {"cut": 0},
        {"cut": 5000},
        {"cut": 5000, "reset": True},
        {"cut": 5000, "gzip": True},
        {"cut": 5000, "chunked": True},
        {"cut": 100_000_000, "chunked": True},
        {"length": 5},
        {"length": -5},
        {"endless": True},
        {"endless": True, "gzip": True},
    ],
    ids=str,
)
async def test_an_answer_that_is_not_whole_is_broken(
    travel: Json,
    emulator: Emulator,
    transport: Transport,
    folder: WorkFolder,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The vendor is asked once, and nothing of the answer is left."""
    monkeypatch.setattr(transport_module, "MAX_ANSWER_BYTES", 5_000_000)
    emulator.troubles.set(travel=Travel(**travel))
    with pytest.raises(Broken):
        await post(transport, emulator.http_url + IMAGEN, blobs)
    assert len(emulator.calls.list()) == 1
    assert (folder.memory_used, folder.disk_used) == (0, 0)


async def test_a_bomb_is_inflated_piece_by_piece(
    transport: Transport, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_ANSWER_BYTES", 30_000_000)

    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(bomb, "200 OK", "Content-Encoding: gzip")

    bomb = gzip.compress(b'"' + b"A" * 60_000_000)
    assert len(bomb) < 100_000
    async with serving(handle) as server:
        tracemalloc.start()
        try:
            with pytest.raises(Broken, match="longer than 30000000 bytes"):
                await post(transport, server.url(), blobs)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize(
    ("status", "body", "value"),
    [
        ("200 OK", b'{"a": 1}', {"a": 1}),
        ("429 Too Many Requests", b'{"error": {"code": 429}}', {"error": {"code": 429}}),
        ("503 Service Unavailable", b"<html>busy</html>", None),
        ("404 Not Found", b"", None),
        ("500 Internal Server Error", json.dumps("many " * 300_000).encode(), None),
        ("302 Found", b"{}", {}),
        ("204 No Content", b"", None),
    ],
)
async def test_every_status_is_an_answer(
    status: str, body: bytes, value: object, transport: Transport, blobs: Blobs
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(body, status, "Location: /elsewhere", "X-RequestID: 7")
        await peer.hung_up()

    async with serving(handle) as server:
        answer = await post(transport, server.url(), blobs)
        assert (answer.status, answer.value) == (int(status[:3]), value)
        assert answer.headers["x-requestid"] == "7"
        assert len(server.requests) == 1
        await transport.aclose()


async def test_a_page_of_a_front_end_is_an_answer(
    emulator: Emulator, transport: Transport, blobs: Blobs
) -> None:
    emulator.troubles.set(travel=Travel(timed_out=True))
    answer = await post(transport, emulator.http_url + IMAGEN, blobs)
    assert (answer.status, answer.value) == (408, None)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n<html>" + SECRET.encode() + b"</a>",
        b"HTTP/1.1 200 OK\r\n\r\n" + b'{"a": "' + SECRET.encode(),
        b"HTTP/1.1 two-hundred " + SECRET.encode() + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + SECRET.encode() + b"\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + SECRET.encode(),
        b"HTTP/1.1 200 OK\r\nX: " + SECRET.encode() * 1000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        SECRET.encode(),
        b"",
    ],
)
async def test_nonsense_is_broken_and_not_repeated_in_the_message(
    sent: bytes, transport: Transport, blobs: Blobs
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(sent)

    async with serving(handle) as server:
        with pytest.raises(Broken) as caught:
            await post(transport, server.url(f"/{SECRET}?q={SECRET}"), blobs)
        assert len(server.requests) == 1
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert str(server.port) not in str(caught.value)


async def test_what_cannot_be_kept_ends_the_connection(tmp_path: Path, transport: Transport) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(b'"' + b"A" * 1_000_000 + b'"')
        await peer.hung_up()
        gone.set()

    gone = asyncio.Event()
    with WorkFolder(tmp_path, memory_bytes=0, max_bytes=1000) as folder, folder.blobs() as blobs:
        async with serving(handle) as server:
            with pytest.raises(Broken):
                await post(transport, server.url(), blobs)
            await gone.wait()
        assert folder.disk_used == 0


# ── Requests as they go out ──────────────────────────────────────────────────────────────────────────


async def test_a_request_goes_out_as_written(transport: Transport, blobs: Blobs) -> None:
    path = "/model/stability.sd3-5-large-v1%3A0/invoke?name=a%2Fb%20c&x=1%2B1"
    async with serving(answering) as server:
        await post(
            transport,
            server.url(path),
            blobs,
            headers={"Content-Type": "application/json", "accept-encoding": "gzip", "X-Amz-Date": "now"},
        )
    [request] = server.requests
    assert request.line == f"POST {path} HTTP/1.1"
    assert json.loads(request.body) == ASKED
    assert request.headers["content-length"] == str(JsonWriter(ASKED).length)
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["x-amz-date"] == "now"
    assert request.headers["content-type"] == "application/json"
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize("size", [0, 1, 47_999, 5_000_000])
async def test_a_picture_goes_out_whole(size: int, transport: Transport, blobs: Blobs) -> None:
    data = os.urandom(size)
    body = JsonWriter({"image": blobs.of(data), "after": "é"})
    async with serving(answering) as server:
        await post(transport, server.url(), blobs, body=body)
    [request] = server.requests
    assert request.body == b"".join(body)
    assert len(request.body) == body.length == int(request.headers["content-length"])


async def test_small_pieces_go_out_together(transport: Transport, blobs: Blobs) -> None:
    body = Pieces(100_000, 10)
    async with serving(answering) as server:
        await post(transport, server.url(), blobs, body=body)
    assert server.requests[0].body == b"".join(body)


async def test_an_empty_body_has_a_length(transport: Transport, blobs: Blobs) -> None:
    async with serving(answering) as server:
        assert (await post(transport, server.url(), blobs, body=Pieces(0, 0))).status == 200
    assert server.requests[0].headers["content-length"] == "0"


async def test_no_cookie_and_no_password_of_netrc_is_sent(
    tmp_path: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login ann password {SECRET}\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.answer(b"{}", "200 OK", "Set-Cookie: a=b; Path=/")

    async with serving(handle) as server, serving(forwarding) as proxy:
        direct = Transport()
        await post(direct, server.url(), blobs)
        await post(direct, server.url(), blobs)
        await direct.aclose()
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        proxied = Transport()
        await post(proxied, server.url(), blobs)
        await proxied.aclose()
    assert len(server.requests) == 3
    for request in server.requests + proxy.requests:
        assert not {"cookie", "authorization", "proxy-authorization"} & request.headers.keys()


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("status", ["413 Too Large", "503 Busy"])
async def test_an_answer_before_the_body_is_read_is_an_answer(
    close: bool, status: str, transport: Transport, blobs: Blobs
) -> None:
    async def handle(peer: Peer) -> None:
        if len(server.peers) > 1:
            return await answering(peer)
        await peer.head()
        peer.answer(b'{"error": "no"}', status)
        await peer.writer.drain()
        if not close:
            await gone.wait()
        return None

    gone = asyncio.Event()
    body = Pieces(1000, 100_000)
    async with serving(handle) as server:
        answer = await post(transport, server.url(), blobs, body=body)
        assert (answer.status, answer.value) == (int(status[:3]), {"error": "no"})
        assert body.given < 1000
        assert (await post(transport, server.url(), blobs)).status == 200
        gone.set()
    assert len(server.peers) == 2


# ── Connections ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_connection_idle_for_more_than_10_s_is_not_used_again(
    transport: Transport, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: now)
    async with serving(answering) as server:
        used = []
        for idle in (0, 9.9, 9.9, 10.1, 9.9):
            now += idle
            await post(transport, server.url(), blobs)
            used.append(len(server.peers))
    assert used == [1, 1, 1, 2, 2]


async def test_a_connection_that_the_vendor_has_closed_is_not_used_again(
    transport: Transport, blobs: Blobs
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"{}")
        peer.writer.write_eof()
        await peer.hung_up()
        gone.set()

    async with serving(handle) as server:
        for _ in range(2):
            gone = asyncio.Event()
            assert (await post(transport, server.url(), blobs)).status == 200
            await gone.wait()
    assert len(server.peers) == 2


async def test_a_connection_closed_right_after_its_answer_is_not_used_again(
    transport: Transport, blobs: Blobs
) -> None:
    """Though the next call is made at once."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"{}")
        peer.writer.transport.abort()

    async with serving(handle) as server:
        for _ in range(10):
            assert (await post(transport, server.url(), blobs)).status == 200
    assert len(server.peers) == 10


@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_that_dies_is_broken_and_its_call_not_repeated(
    reset: bool, transport: Transport, blobs: Blobs
) -> None:
    """It was idle, and looked alive when it was used."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"{}")
        await peer.request()
        if reset:
            peer.writer.transport.abort()

    async with serving(handle) as server:
        assert (await post(transport, server.url(), blobs)).status == 200
        with pytest.raises(Broken):
            await post(transport, server.url(), blobs)
    assert (len(server.peers), len(server.requests)) == (1, 2)


async def test_a_connection_of_a_failed_call_is_not_used_again(transport: Transport, blobs: Blobs) -> None:
    """Its answer is malformed, but whole: only the call is at fault."""

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.answer(b"{]" if len(server.requests) == 1 else b"{}")

    async with serving(handle) as server:
        with pytest.raises(Broken, match="Malformed"):
            await post(transport, server.url(), blobs)
        assert (await post(transport, server.url(), blobs)).status == 200


async def test_a_failed_call_leaves_the_connection_that_another_call_uses_alone(
    transport: Transport, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole answer has left its connection before all of it is read, on a slow disk for example."""

    async def slow_at_first(step: Any, *args: Any) -> Any:
        result = step(*args)
        if step.__name__ == "feed" and not fed.is_set():
            fed.set()
            await go_on.wait()
        return result

    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"{]")
        await peer.request()
        go_on.set()
        await asyncio.wait([first])
        peer.answer(b"{}")

    monkeypatch.setattr(transport_module, "on_disk", slow_at_first)
    fed, go_on = asyncio.Event(), asyncio.Event()
    async with serving(handle) as server:
        first = asyncio.create_task(post(transport, server.url(), blobs))
        await fed.wait()
        assert (await post(transport, server.url(), blobs)).status == 200
        with pytest.raises(Broken, match="Malformed"):
            await first
    assert len(server.peers) == 1


async def test_300_calls_are_under_way_at_once(transport: Transport, blobs: Blobs) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        if len(server.requests) == 300:
            all_there.set()
        await all_there.wait()
        peer.answer(b"{}")

    all_there = asyncio.Event()
    async with serving(handle) as server:
        answers = await asyncio.gather(*(post(transport, server.url(), blobs) for _ in range(300)))
    assert [answer.status for answer in answers] == [200] * 300


async def test_answers_are_read_in_turn(blobs: Blobs, no_proxy: None) -> None:
    """With one turn, the second answer is left alone until the first one is whole."""

    async def handle(peer: Peer) -> None:
        name = (await peer.request()).line.split()[1]
        if name == "/first":
            peer.writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 10002\r\n\r\n"' + b"A" * 6000)
            await second_sent.wait()
            peer.writer.write(b"A" * 4000 + b'"')
        else:
            peer.answer(b'"' + b"B" * 10_000 + b'"')
            for _ in range(100):
                await asyncio.sleep(0)
            second_sent.set()

    async def call(name: str) -> None:
        def new_blob() -> Blob:
            seen.append(f"{name} begins")
            reading[name].set()
            return blobs.new()

        deadline = asyncio.get_running_loop().time() + 30
        await transport.post(server.url(name), Pieces(1, 1), {}, deadline=deadline, new_blob=new_blob)
        seen.append(f"{name} ends")

    seen: list[str] = []
    reading = {"/first": asyncio.Event(), "/second": asyncio.Event()}
    second_sent = asyncio.Event()
    transport = Transport(answers_at_a_time=1)
    async with serving(handle) as server:
        first = asyncio.create_task(call("/first"))
        await reading["/first"].wait()
        await asyncio.gather(first, call("/second"))
        await transport.aclose()
    assert seen == ["/first begins", "/first ends", "/second begins", "/second ends"]


@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": True}), "asyncio"], ids=["uvloop", "asyncio"]
)
@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_that_waits_for_its_turn_holds_little(
    tls: bool, blobs: Blobs, authority: Authority, no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand of them wait at their vendors, not in memory."""

    async def handle(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            peer.answer(b'"' + b"A" * 2_000_000 + b'"')
        await peer.hung_up()

    class Watched(connections.Connection):
        def data_received(self, data: bytes) -> None:
            read.append(len(data))
            super().data_received(data)

        def pause_reading(self) -> None:
            super().pause_reading()
            paused.set()

    read: list[int] = []
    paused = asyncio.Event()
    monkeypatch.setattr(connections, "Connection", Watched)
    monkeypatch.setattr(connections, "_FEW", 0)  # calls under way
    transport = Transport(answers_at_a_time=1, tls=authority.client() if tls else None)
    async with serving(handle, authority.server("127.0.0.1") if tls else None) as server:
        url = server.url(scheme="https" if tls else "http")
        for _ in range(2):  # on the same connection
            await transport._turns.acquire()
            read.clear()
            paused.clear()
            call = asyncio.create_task(post(transport, url, blobs))
            await paused.wait()
            await asyncio.sleep(0)
            assert sum(read) <= 3 * 8192
            transport._turns.release()
            assert (await call).status == 200
            assert max(read) > 16_000
        await transport.aclose()
    assert len(server.peers) == 1


@pytest.mark.parametrize("silent", ["after the head", "in the picture"])
async def test_an_answer_that_falls_silent_loses_its_turn(
    silent: str, blobs: Blobs, no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(peer: Peer) -> None:
        name = (await peer.request()).line.split()[1]
        if name == "/silent":
            peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10002\r\n\r\n")
            if silent == "in the picture":
                peer.writer.write(b'"' + b"A" * 6000)
            fallen_silent.set()
            await go_on.wait()
            peer.writer.write((b'"' + b"A" * 10_000 + b'"')[6001 if silent == "in the picture" else 0 :])
        else:
            peer.answer(b"{}")

    monkeypatch.setattr(transport_module, "_SILENT_SECONDS", 0.05)
    fallen_silent, go_on = asyncio.Event(), asyncio.Event()
    transport = Transport(answers_at_a_time=1)
    async with serving(handle) as server:
        call = asyncio.create_task(post(transport, server.url("/silent"), blobs))
        await fallen_silent.wait()
        assert (await post(transport, server.url("/other"), blobs)).status == 200
        go_on.set()
        assert isinstance((await call).value, Blob)
        for name in ("/silent", "/other"):  # the turn was given back once, not twice
            assert (await post(transport, server.url(name), blobs)).status == 200
        await transport.aclose()


async def test_a_waiting_connection_is_kept_alive(transport: Transport, blobs: Blobs) -> None:
    """By TCP: the kernel's list of connections tells the timer and its rest in hundredths of a second."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        there.set()
        await peer.hung_up()

    there = asyncio.Event()
    async with serving(handle) as server:
        call = asyncio.create_task(post(transport, server.url(), blobs))
        await there.wait()
        [columns] = connections_to(server.port)
        kind, _, left = columns[5].partition(":")
        assert kind == "02"
        assert 0 < int(left, 16) <= 3000
        call.cancel()
        await asyncio.wait([call])


async def test_closing_hangs_up(blobs: Blobs) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"{}")
        await peer.hung_up()
        gone.set()

    gone = asyncio.Event()
    transport = Transport()
    async with serving(handle) as server:
        await post(transport, server.url(), blobs)
        await transport.aclose()
        await gone.wait()


async def test_closing_what_was_never_used_does_nothing() -> None:
    await Transport().aclose()


# ── Late, and given up ───────────────────────────────────────────────────────────────────────────────


async def test_a_call_that_is_cancelled_is_hung_up(transport: Transport, blobs: Blobs) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        there.set()
        assert await peer.hung_up() == 0
        gone.set()

    there, gone = asyncio.Event(), asyncio.Event()
    async with serving(handle) as server:
        call = asyncio.create_task(post(transport, server.url(), blobs))
        await there.wait()
        call.cancel()
        await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_call_that_is_cancelled_while_it_is_sent_stops_sending(
    transport: Transport, blobs: Blobs
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.head()
        there.set()
        await given_up.wait()
        assert await peer.hung_up() < body.length
        gone.set()

    there, given_up, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
    body = Pieces(1000, 100_000)
    async with serving(handle) as server:
        call = asyncio.create_task(post(transport, server.url(), blobs, body=body))
        await there.wait()
        given = 0
        while given < body.given:  # until the sockets are full
            given = body.given
            await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        await asyncio.sleep(0)
        established = "01"
        assert established not in [columns[3] for columns in connections_to(server.port)]
        given_up.set()
        await gone.wait()
    assert body.given < 1000


async def test_others_have_their_turn_between_pieces(transport: Transport, blobs: Blobs) -> None:
    """A body on its way to sockets that take everything at once would hold the loop until it is sent."""

    turn = 0
    seen = set[int]()

    class Watched(Pieces):
        def __iter__(self) -> Iterator[bytes]:
            for piece in super().__iter__():
                seen.add(turn)
                yield piece

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    async with serving(answering) as server:
        await post(transport, server.url(), blobs, body=Watched(5, 70_000))
    other.cancel()
    assert len(seen) >= 4


@pytest.mark.parametrize("how", ["silent", "in the head", "in the body", "does not read"])
async def test_a_deadline_after_sending_is_too_late(
    how: str, transport: Transport, folder: WorkFolder, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's clock jumps when the server has come so far."""

    async def handle(peer: Peer) -> None:
        if how == "does not read":
            await peer.head()
        else:
            await peer.request()
        if how == "in the head":
            peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-")
        if how == "in the body":
            peer.writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"' + b"A" * 50_000)
            await reading.wait()
        monkeypatch.setattr(loop, "time", lambda: now() + 30)
        if how == "does not read":
            await late.wait()
        await peer.hung_up()
        gone.set()

    def new_blob() -> Blob:
        reading.set()
        return blobs.new()

    late, gone, reading = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    now = loop.time
    async with serving(handle) as server:
        with pytest.raises(TooLate):
            await transport.post(
                server.url(), Pieces(100, 100_000), {}, deadline=now() + 30, new_blob=new_blob
            )
        late.set()
        await gone.wait()
    assert (folder.memory_used, folder.disk_used) == (0, 0)


async def test_a_deadline_that_has_passed_sends_nothing(transport: Transport, blobs: Blobs) -> None:
    """Not even on a connection that is open."""
    async with serving(answering) as server:
        await post(transport, server.url(), blobs)
        with pytest.raises(NotSent):
            await post(transport, server.url(), blobs, seconds=0)
        await post(transport, server.url(), blobs)
    assert len(server.requests) == 2


# ── Surely not sent ──────────────────────────────────────────────────────────────────────────────────


async def refused(transport: Transport, url: str, blobs: Blobs, *, seconds: float = 30) -> str:
    """Returns the message of NotSent, having seen that nobody asked for the body."""
    body = Pieces(1, 10)
    with pytest.raises(NotSent) as caught:
        await post(transport, url, blobs, body=body, seconds=seconds)
    assert body.given == 0
    assert caught.value.__cause__ is None
    return str(caught.value)


async def test_a_body_that_cannot_be_read_is_not_sent(transport: Transport, blobs: Blobs) -> None:
    """Nor is its head."""
    picture = blobs.of(b"A" * 100_000)
    picture.path().unlink()
    body = JsonWriter([picture])
    async with serving(answering) as server:
        with pytest.raises(NotSent):
            await post(transport, server.url(), blobs, body=body)
        assert (await post(transport, server.url(), blobs)).status == 200
    assert len(server.requests) == 1


async def test_a_refused_connection_is_not_sent(transport: Transport, blobs: Blobs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "Refused" in await refused(transport, f"http://127.0.0.1:{port}/{SECRET}", blobs)


async def test_a_name_without_address_is_not_sent(
    transport: Transport, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "not known" in await refused(transport, f"http://vendor.example/{SECRET}", blobs)


@pytest.mark.parametrize(("connect_seconds", "seconds"), [(0.2, 30), (5, 0.2)])
async def test_a_vendor_that_does_not_shake_hands_is_not_sent(
    connect_seconds: float, seconds: float, no_proxy: None, blobs: Blobs
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.hung_up()
        gone.set()

    gone = asyncio.Event()
    transport = Transport(connect_seconds=connect_seconds)
    async with serving(handle) as server:
        await refused(transport, server.url(scheme="https"), blobs, seconds=seconds)
        await gone.wait()
    await transport.aclose()


async def test_a_vendor_without_tls_is_not_sent(transport: Transport, blobs: Blobs) -> None:
    async def handle(peer: Peer) -> None:
        await peer.reader.read(1)
        peer.writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with serving(handle) as server:
        assert "SSL" in await refused(transport, server.url(scheme="https"), blobs)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_an_unknown_authority_is_refused(
    transport: Transport, blobs: Blobs, authority: Authority
) -> None:
    async with serving(answering, authority.server("127.0.0.1")) as server:
        message = await refused(transport, server.url(scheme="https"), blobs)
    assert "CERTIFICATE_VERIFY_FAILED" in message
    assert server.requests == []


async def test_a_known_authority_is_served(blobs: Blobs, authority: Authority, no_proxy: None) -> None:
    transport = Transport(tls=authority.client())
    async with serving(answering, authority.server("127.0.0.1")) as server:
        for _ in range(2):
            assert (await post(transport, server.url(scheme="https"), blobs)).status == 200
        await transport.aclose()
    assert len(server.peers) == 1


async def test_a_certificate_for_another_name_is_refused(
    blobs: Blobs, authority: Authority, no_proxy: None
) -> None:
    transport = Transport(tls=authority.client())
    async with serving(answering, authority.server("vendor.example")) as server:
        await refused(transport, server.url(scheme="https", host="localhost"), blobs)
        await transport.aclose()
    assert server.requests == []


async def test_a_large_picture_crosses_tls_both_ways(
    blobs: Blobs, authority: Authority, no_proxy: None
) -> None:
    async def handle(peer: Peer) -> None:
        peer.answer((await peer.request()).body)

    transport = Transport(tls=authority.client())
    picture = blobs.of(os.urandom(3_000_000))
    async with serving(handle, authority.server("127.0.0.1")) as server:
        answer = await post(transport, server.url(scheme="https"), blobs, body=JsonWriter([picture]))
        await transport.aclose()
    assert shown(answer.value) == [picture.sha256().hex()]


_ASK = """
import asyncio, sys
from pathlib import Path
from app.pictures.in_json import JsonWriter
from app.pictures.work_folder import WorkFolder
from app.providers.transport import Transport

async def main(url, folder):
    transport = Transport()
    deadline = asyncio.get_running_loop().time() + 30
    with WorkFolder(Path(folder)) as work, work.blobs() as blobs:
        answer = await transport.post(url, JsonWriter({}), {}, deadline=deadline, new_blob=blobs.new)
    await transport.aclose()
    print(answer.status)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("variable", "served"), [("SSL_CERT_FILE", True), ("SSL_CERT_NONE", False)])
async def test_ssl_cert_file_names_the_authorities(
    variable: str, served: bool, authority: Authority, tmp_path: Path
) -> None:
    """In a process of its own: aiohttp reads them when it is imported."""
    async with serving(answering, authority.server("127.0.0.1")) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _ASK, server.url(scheme="https"), str(tmp_path)),
            env={variable: str(authority.certificate)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert out.endswith(b"200\n") == served
    assert (b"NotSent" in err) == (not served)


async def test_certifi_stands_in_where_the_system_knows_no_authority(
    authority: Authority, blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = ssl.DefaultVerifyPaths(None, str(tmp_path / "certs"), "", "", "", "")  # type: ignore[arg-type]
    (tmp_path / "certs").mkdir()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: empty)
    monkeypatch.setattr(certifi, "where", lambda: str(authority.certificate))
    transport = Transport()
    async with serving(answering, authority.server("127.0.0.1")) as server:
        assert (await post(transport, server.url(scheme="https"), blobs)).status == 200
        await transport.aclose()


# ── Proxies ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spelling", ["http://ann:s3cret@{}", "ann:s3cret@{}"])
async def test_http_proxy_is_used(spelling: str, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering) as server, serving(forwarding) as proxy:
        monkeypatch.setenv("HTTP_PROXY", spelling.format(f"127.0.0.1:{proxy.port}"))
        transport = Transport()
        assert (await post(transport, server.url("/a%3Ab"), blobs)).status == 200
        await transport.aclose()
    assert proxy.requests[0].line == f"POST {server.url('/a%3Ab')} HTTP/1.1"
    assert proxy.requests[0].headers["proxy-authorization"] == basic("ann", "s3cret")
    assert [request.line for request in server.requests] == ["POST /a%3Ab HTTP/1.1"]


async def test_https_proxy_is_a_tunnel(
    blobs: Blobs, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(answering, authority.server("127.0.0.1")) as server, serving(forwarding) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:s3cret@127.0.0.1:{proxy.port}")
        transport = Transport(tls=authority.client())
        for _ in range(2):
            assert (await post(transport, server.url(scheme="https"), blobs)).status == 200
        await transport.aclose()
    [request] = proxy.requests
    assert request.line == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"
    assert request.headers["proxy-authorization"] == basic("ann", "s3cret")
    assert len(server.requests) == 2
    assert "proxy-authorization" not in server.requests[0].headers


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "vendor.example,127.0.0.1:{port}"])
async def test_no_proxy_goes_without(exempt: str, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering) as server, serving(forwarding) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        monkeypatch.setenv("NO_PROXY", exempt.format(port=server.port))
        transport = Transport()
        assert (await post(transport, server.url(), blobs)).status == 200
        await transport.aclose()
    assert proxy.peers == []


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 Who?\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"Hm\r\n\r\n", b""]
)
async def test_a_tunnel_that_is_refused_is_not_sent(
    answer: bytes, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.head()
        peer.writer.write(answer)

    async with serving(handle) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        transport = Transport()
        await refused(transport, f"https://vendor.example/{SECRET}", blobs)
        await transport.aclose()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_not_sent(
    scheme: str, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://127.0.0.1:{port}")
    transport = Transport()
    await refused(transport, f"{scheme}://vendor.example/", blobs)
    await transport.aclose()


async def test_a_proxy_that_is_silent_is_not_sent(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(peer: Peer) -> None:
        await peer.hung_up()
        gone.set()

    gone = asyncio.Event()
    async with serving(handle) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        transport = Transport(connect_seconds=0.2)
        await refused(transport, "https://vendor.example/", blobs)
        await gone.wait()
        await transport.aclose()


def test_all_failures_are_of_one_kind() -> None:
    assert all(issubclass(each, TransportError) for each in (NotSent, Broken, TooLate))
