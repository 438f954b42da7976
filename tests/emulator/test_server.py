"""Starting, stopping, and running alone."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from google.api_core.exceptions import DeadlineExceeded, GoogleAPICallError

from app.contract.models import load_catalogue
from app.emulator.server import Emulator, Listen
from tests.support.vertex_client import Json, ask_grpc, ask_rest, opened

ROOT = Path(__file__).parents[2]
IMAGEN = "imagen-4.0-generate-001:predict"
GEMINI = "gemini-2.5-flash-image:generateContent"


def asking(prompt: str, samples: int = 1) -> Json:
    return {"instances": [{"prompt": prompt}], "parameters": {"sampleCount": samples}}


@contextmanager
def started(data_dir: Path, *, canned: bool = False) -> Iterator[Emulator]:
    emulator = Emulator(catalogue=load_catalogue(), data_dir=data_dir, canned=canned)
    emulator.start()
    try:
        yield emulator
    finally:
        emulator.stop()


def test_stopping_ends_calls_that_hang(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        hanging = [threading.Thread(target=failing, args=(ask, emulator)) for ask in (ask_rest, ask_grpc)]
        for thread in hanging:
            thread.start()
        emulator.calls.wait_for(lambda calls: len(calls) == 2)
    for thread in hanging:
        thread.join(timeout=5)
        assert not thread.is_alive()


def failing(ask: object, emulator: Emulator) -> None:
    assert callable(ask)
    with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError, GoogleAPICallError)) as failure:
        ask(emulator, IMAGEN, asking("#trouble:hang"))
    assert not isinstance(failure.value, DeadlineExceeded)  # the end of the client's own patience


def test_stopped_ports_are_free_again(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        addresses = [emulator.grpc_address, emulator.http_url.removeprefix("http://")]
    for address in addresses:
        host, _, port = address.partition(":")
        socket.create_server((host, int(port))).close()


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    with started(tmp_path) as emulator:
        port = int(emulator.http_url.rpartition(":")[2])
        second = Emulator(catalogue=load_catalogue(), data_dir=tmp_path, listen=Listen(http_port=port))
        with pytest.raises(OSError, match="in use"):
            second.start()


def test_canned_answers_are_pictures_of_a_photographs_weight(tmp_path: Path) -> None:
    with started(tmp_path, canned=True) as emulator:
        imagen = ask_grpc(emulator, IMAGEN, asking("a pear", samples=3))
        gemini = ask_grpc(emulator, GEMINI, {"contents": [{"parts": [{"text": "a pear"}]}]})
        assert [(call.model, call.paid) for call in emulator.calls.list()] == [
            ("imagen-4.0-generate-001", 3),
            ("gemini-2.5-flash-image", 1),
        ]
    shown = [each["bytesBase64Encoded"] for each in imagen.body["predictions"]]
    shown.append(gemini.body["candidates"][0]["content"]["parts"][0]["inlineData"]["data"])
    assert [opened(each).size for each in shown] == [(1024, 1024)] * 4
    assert all(1_300_000 < len(each) * 3 // 4 < 1_800_000 for each in shown)
    assert len(set(shown)) == 3


def test_it_runs_alone_and_stops_on_sigterm(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "app.emulator",
        "--grpc-port=0",
        "--http-port=0",
        f"--data-dir={tmp_path}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        told = dict(process.stdout.readline().strip().split("=", 1) for _ in range(4))
        alone = Emulator(catalogue=load_catalogue(), data_dir=tmp_path)
        alone.grpc_address = process.stdout.readline().strip().rpartition(" ")[2]
        alone.http_url = told["VERTEX_ENDPOINT"]
        assert ask_grpc(alone, IMAGEN, asking("a pear")).status == 200
        assert httpx.get(f"{told['ANTHROPIC_BASE_URL']}/__emulator/calls").json()["paid"] == 1
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
