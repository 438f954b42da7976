"""A request's head is limited in size and time, however the gateway is started."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.api import connections
from tests.api.conftest import token
from tests.support.server_process import UVICORN, bare, free_port, serving

LINE = b"GET /health HTTP/1.1\r\nHost: gateway\r\n"
REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json; charset=utf-8\r\n"
    b"x-error-code: payload_too_large\r\n"
    b"content-length: 62\r\n"
    b"connection: close\r\n\r\n"
    b'{"statusCode":431,"message":"Request Header Fields Too Large"}'
)
MANY = 65 * 1024 * 1024 // 1024
"""Pieces of one kilobyte, 65 MB together."""


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        yield connection


def told(connection: socket.socket, pieces: Iterator[bytes]) -> bytes:
    """Send until the gateway closes the connection. Returns what was received."""
    try:
        for piece in pieces:
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:  # it closed while more was on its way
        pass
    return received


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([LINE + b"x: " + b"a" * 66_000 + b"\r\n\r\n"], id="one header, at once"),
        pytest.param([LINE, *repeat(b"x: " + b"a" * 996 + b"\r\n", 70)], id="many headers"),
        pytest.param([b"GET /", *repeat(b"a" * 1024, 70)], id="an endless path"),
        pytest.param([*repeat(b"\r\n" * 1000, 40)], id="nothing but line ends"),
    ],
)
def test_a_head_over_64_kib_is_refused(gateway_url: str, pieces: list[bytes]) -> None:
    with connected(gateway_url) as connection:
        said = told(connection, iter(pieces))
    assert said in (REFUSAL, b"")  # b"": the kernel drops the answer if more bytes arrive


def test_a_head_of_64_kib_is_read(gateway_url: str) -> None:
    end = b"\r\nConnection: close\r\n\r\n"
    head = LINE + b"x: " + b"a" * (64 * 1024 - len(LINE) - 3 - len(end)) + end
    with connected(gateway_url) as connection:
        assert told(connection, iter([head])).startswith(b"HTTP/1.1 200 OK\r\n")
    with connected(gateway_url) as connection:
        assert told(connection, iter([head.replace(b"x: ", b"x: a")])) == REFUSAL


def test_a_head_of_65_mb_is_cut_off(gateway_url: str) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield LINE + b"x: "
        for piece in repeat(b"a" * 1024, MANY):
            yield piece
            sent += len(piece)

    with connected(gateway_url) as connection:
        told(connection, pieces())
    assert sent < 10 * 1024 * 1024  # the rest is in the kernel's buffers; the gateway read 64 KiB


CHUNKED = (
    b"POST /api/v1/image/text-to-image HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\nAuthorization: Bearer %s\r\n\r\n"
)


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        pytest.param(b"1\r\n{\r\n0\r\nx: ", b"a" * 1024, id="an endless trailer"),
        pytest.param(b"1\r\n{\r\n0\r\n", b"x: y\r\n" * 200, id="endless trailers"),
        pytest.param(b"1;x=", b"a" * 1024, id="an endless extension of a chunk"),
    ],
)
def test_what_is_neither_head_nor_body_is_bounded_too(gateway_url: str, first: bytes, piece: bytes) -> None:
    head = CHUNKED % token().encode()
    with connected(gateway_url) as connection:
        assert told(connection, iter([head, first, *repeat(piece, 140)])) == b""


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(LINE, id="half a head"),
        pytest.param(LINE + b"\r\n" + LINE, id="half a second head"),
        pytest.param(
            LINE.replace(b"GET", b"POST") + b"Content-Length: 99\r\n\r\n{", id="half a body, answered"
        ),
    ],
)
def test_a_slow_head_is_closed(gateway_url: str, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    with connected(gateway_url) as connection:
        connection.sendall(first)
        assert told(connection, iter([])).count(b"HTTP/1.1 ") == first.count(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_an_upgrade_is_declined_and_keeps_no_connection(gateway_url: str, method: str, protocol: str) -> None:
    head = f"{method} /health HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
    with connected(gateway_url) as connection:
        connection.sendall(head.encode() + b"Content-Length: 5\r\n\r\n")
        said = told(connection, iter([]))
    assert said.startswith(b"HTTP/1.1 200 OK\r\n" if method == "GET" else b"HTTP/1.1 404 Not Found\r\n")
    assert b"connection: close\r\n" in said


def test_a_stray_line_end_does_not_end_a_call_under_way(
    gateway_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SECONDS", 0.1)
    body = b'{"prompt": "a lighthouse #trouble:slow=1"}'
    head = CHUNKED.replace(b"Transfer-Encoding: chunked", b"Connection: close\r\nContent-Length: %d")
    with connected(gateway_url) as connection:
        connection.sendall(head % (len(body), token().encode()) + body + b"\r\n")
        assert told(connection, iter([])).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_caller_who_reads_nothing_does_not_keep_the_gateway_from_stopping(tmp_path: Path) -> None:
    """What stands in front of a reader who has stopped is never sent; uvicorn waits for it."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = bare(tmp_path) | {"ANSWER_IDLE_SECONDS": "0.5"}
    command = [*UVICORN, f"--port={urlsplit(url).port}"]
    with (
        serving(command, f"{url}/health", environment=environment, folder=tmp_path) as gateway,
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", urlsplit(url).port))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: gateway\r\n\r\n" * 40)
        assert gateway.says("/openapi.json")
        gateway.process.terminate()
        assert gateway.process.wait(30) == -signal.SIGTERM


def test_it_holds_for_plain_uvicorn() -> None:
    """`python -m uvicorn app.main:app` loads its protocol class before the application."""
    script = (
        "import asyncio, uvicorn; config = uvicorn.Config('app.main:app'); config.load(); "
        "server = uvicorn.server.ServerState(); loop = asyncio.new_event_loop(); "
        "made = config.http_protocol_class(config, server, app_state={}, _loop=loop); "
        "print(type(made).__module__)"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["app.api.connections"]
