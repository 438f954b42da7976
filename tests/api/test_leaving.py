"""Callers who leave, and a gateway that is asked to stop: what is paid is kept, nothing more is sent."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.emulator.calls import Call
from app.emulator.server import Emulator
from tests.api.conftest import SECRET, Start, token
from tests.support.server_process import UVICORN, Serving, bare, free_port, serving

IMAGE = "/api/v1/image/text-to-image"
SLOW = "a lighthouse #trouble:slow=1"
STORED = [
    pytest.param(IMAGE, {"prompt": SLOW}, id="text-to-image"),
    pytest.param(IMAGE, {"prompt": SLOW, "model": "gemini-2.5-flash-image", "sampleCount": 2}, id="Gemini"),
    pytest.param("/gen", {"mode": "text2img", "prompt": SLOW, "response_format": "url"}, id="gen"),
]
NOT_STORED = [
    pytest.param(IMAGE, {"prompt": SLOW, "responseFormat": "b64_json"}, id="text-to-image"),
    pytest.param("/gen", {"mode": "text2img", "prompt": SLOW}, id="gen"),
]


@contextmanager
def asked(url: str, path: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """Send a request. The caller leaves at the end of the `with` block."""
    address = urlsplit(url)
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token()}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head.encode() + text)
        yield connection


def received(connection: socket.socket) -> tuple[int, Any]:
    """Status and body of the answer."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


def to_models(calls: tuple[Call, ...]) -> list[Call]:
    return [call for call in calls if call.vendor in ("vertex", "bedrock")]


def stored(calls: tuple[Call, ...]) -> int:
    return sum(call.method == "objects.insert" and call.status == 200 for call in calls)


@pytest.mark.parametrize(("path", "body"), STORED)
def test_what_was_sent_is_stored_when_the_caller_leaves(
    gateway_url: str, emulator: Emulator, path: str, body: dict[str, Any]
) -> None:
    pictures = body.get("sampleCount", 1)
    with asked(gateway_url, path, body):
        emulator.calls.wait_for(lambda calls: len(to_models(tuple(calls))) == pictures)
    emulator.calls.wait_for(lambda calls: stored(tuple(calls)) == pictures, 20)
    assert emulator.calls.paid == pictures


@pytest.mark.parametrize(("path", "body"), NOT_STORED)
def test_what_nobody_would_see_is_cancelled(
    gateway_url: str, emulator: Emulator, path: str, body: dict[str, Any]
) -> None:
    with asked(gateway_url, path, body):
        emulator.calls.wait_for(lambda calls: len(calls) == 1)
    emulator.calls.wait_for(lambda calls: [call.cancelled for call in calls] == [True])
    assert emulator.calls.paid == 0


def test_a_refused_call_is_not_repeated_for_a_caller_who_has_left(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("503", vendor="vertex", times=1)
    with start(retry_pause_seconds=1) as url, asked(url, IMAGE, {"prompt": "a lighthouse"}):
        emulator.calls.wait_for(lambda calls: [call.status for call in calls] == [503])
    assert [call.status for call in emulator.calls.list()] == [503]


def test_the_deadline_ends_the_wait_and_not_the_picture(start: Start, emulator: Emulator) -> None:
    """The upload outlives the deadline: the caller is told where the picture will be."""
    emulator.troubles.set("slow", vendor="gcs", arg=3, times=1)
    with start(request_timeout_seconds=2) as url:
        with asked(url, IMAGE, {"prompt": "a lighthouse"}) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")
        emulator.calls.wait_for(lambda calls: stored(tuple(calls)) == 1, 20)
    assert emulator.calls.paid == 1


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def process(cloud: Emulator, emulator: Emulator, tmp_path: Path) -> Iterator[tuple[Serving, str]]:
    """A gateway in a process of its own, with one second of grace."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = bare(tmp_path) | {
        "VERTEX_ENDPOINT": cloud.http_url,
        "STORAGE_EMULATOR_HOST": cloud.http_url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": cloud.http_url,
        "ANTHROPIC_BASE_URL": cloud.http_url,
        "PUBLIC_BASE_URL": cloud.http_url,
        "JWT_SECRET": SECRET,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'gateway.db'}",
        "DATA_DIR": str(tmp_path),
        "SPOOL_DIR": str(tmp_path / "spool"),
    }
    command = [*UVICORN, f"--port={port}", "--timeout-graceful-shutdown=1"]
    with serving(command, f"{url}/health", environment=environment, folder=tmp_path) as started:
        yield started, url


def test_what_was_sent_is_stored_although_the_gateway_is_asked_to_stop(
    process: tuple[Serving, str], emulator: Emulator
) -> None:
    """The model takes longer than the grace."""
    started, url = process
    with asked(url, IMAGE, {"prompt": "a lighthouse #trouble:slow=3", "sampleCount": 2}) as connection:
        emulator.calls.wait_for(lambda calls: len(calls) == 1)
        started.process.send_signal(signal.SIGTERM)
        status, told = received(connection)
        assert told.pop("receiptId")
        assert (status, told) == (504, {"statusCode": 504, "message": "Gateway Timeout"})
        emulator.calls.wait_for(lambda calls: stored(tuple(calls)) == 2, 20)
    assert started.process.wait(30) == -signal.SIGTERM
    assert not [path for path in (started.log.parent / "spool").rglob("*") if path.suffix == ".png"]


def test_a_stopping_gateway_says_that_nothing_was_sent(
    process: tuple[Serving, str], emulator: Emulator
) -> None:
    """The rewrite is not the picture."""
    started, url = process
    body = {"mode": "text2img", "prompt": "a lighthouse", "regen_prompt": True}
    emulator.troubles.set("hang", vendor="claude")
    with asked(url, "/gen", body) as connection:
        emulator.calls.wait_for(lambda calls: len(calls) == 1)
        started.process.send_signal(signal.SIGTERM)
        status, answer = received(connection)
        assert (status, answer["error"]) == (503, "Service Unavailable")
    assert [call.vendor for call in emulator.calls.list()] == ["claude"]


def test_a_second_signal_ends_the_gateway_at_once(process: tuple[Serving, str], emulator: Emulator) -> None:
    started, url = process
    with asked(url, IMAGE, {"prompt": "a lighthouse #trouble:hang"}):
        emulator.calls.wait_for(lambda calls: len(calls) == 1)
        started.process.send_signal(signal.SIGTERM)
        assert started.says("stopping")
        started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(30) in (-signal.SIGTERM, -signal.SIGINT, 0)
    assert started.says("stopping at once")
