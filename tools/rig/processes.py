"""Runs gateways and emulators in separate processes, and reads their memory from the kernel."""

import contextlib
import os
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from jose import jwt

from app import db

ROOT = Path(__file__).parents[2]
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "16777216",
    "MALLOC_ARENA_MAX": "2",
}
"""For the emulator, what the gateway sets itself (app/process.py)."""
SECRET = secrets.token_hex(32)
UVICORN = "import sys; sys.modules['rich'] = None; import uvicorn; uvicorn.main()"
"""As in production: structlog loads rich, 4 MB, where the development tools have brought it."""
LIVE = {
    "CLOUD": "live",
    "GOOGLE_CLOUD_PROJECT": "bench-project",
    "GCS_BUCKET": "image-gateway",
    "ANTHROPIC_API_KEY": "none",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}


def free_ports(number: int) -> list[int]:
    """Returns different free ports."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(listener.getsockname()[1]) for listener in listeners]


def status(url: str) -> int | None:
    """Returns the status of the response, or None without a response."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("GET", address.path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


@contextlib.contextmanager
def running(
    arguments: list[str], url: str, environment: dict[str, str], niceness: int = 0
) -> Iterator[tuple[int, float]]:
    """Run a process and wait until the URL responds. Yields its id and the seconds that the start took.

    `niceness` lowers the priority of the cloud's processes, which are on other machines in production.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
    try:
        while status(url) is None:
            if process.poll() is not None:
                raise SystemExit(f"{arguments} ended with {process.returncode}")
            time.sleep(0.01)
        yield process.pid, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(20)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def resident_mb(pid: int, *, peak: bool = False) -> float:
    """Returns the resident memory in millions of bytes: now, or the highest since `forget_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    kibibytes = Path(f"/proc/{pid}/status").read_text().partition(name)[2].split()[0]
    return int(kibibytes) * 1024 / 1e6


class Emulated(NamedTuple):
    """The URL of the vendors, and the folder for their files and the gateway's."""

    url: str
    folder: Path

    @property
    def database(self) -> dict[str, str]:
        return {"DATABASE_URL": f"sqlite:///{self.folder}/gateway.db"}


class Started(NamedTuple):
    """A gateway in front of an emulator, whose address is `storage`. `seconds` until it answered."""

    pid: int
    url: str
    token: str
    storage: str
    seconds: float


@contextlib.contextmanager
def emulator(*flags: str) -> Iterator[Emulated]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "app.emulator", *flags, "--data-dir", folder]
        arguments += ["--grpc-port", "0", "--http-port", str(port)]
        with running(arguments, f"{url}/__emulator/calls", MALLOC, niceness=19):
            yield Emulated(url, Path(folder))


def made_token() -> str:
    return str(jwt.encode({"sub": "bench", "exp": int(time.time()) + 3600}, SECRET, "HS256"))


def gateway_environment(emulated: Emulated, more: dict[str, str]) -> dict[str, str]:
    return {
        **emulated.database,
        "VERTEX_ENDPOINT": emulated.url,
        "STORAGE_EMULATOR_HOST": emulated.url,
        "PUBLIC_BASE_URL": emulated.url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": emulated.url,
        "ANTHROPIC_BASE_URL": emulated.url,
        "JWT_SECRET": SECRET,
        "SPOOL_DIR": f"{emulated.folder}/spool",
        "DATA_DIR": str(emulated.folder),
        "RATE_LIMIT": "",
        "LOG_LEVEL": "info",
        **more,
    }


@contextlib.contextmanager
def gateway(emulated: Emulated, more: dict[str, str], program: str = UVICORN) -> Iterator[Started]:
    """Run a gateway with `more` in its environment. Yields it when /health/ready returns 200."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = gateway_environment(emulated, more)
    arguments = ["-c", program, "app.main:app", "--port", str(port), "--no-access-log"]
    with running(arguments, f"{url}/health", environment) as (pid, seconds):
        ends = time.monotonic() + 30
        while status(f"{url}/health/ready") != 200:
            if time.monotonic() > ends:
                raise SystemExit(httpx.get(f"{url}/health/ready").text)
            time.sleep(0.1)
        yield Started(pid, url, made_token(), emulated.url, seconds)


@contextlib.contextmanager
def gateway_and_emulator(*flags: str) -> Iterator[Started]:
    """Run a gateway and an emulator, each in its own process. `flags` are the emulator's."""
    with emulator(*flags) as emulated, gateway(emulated, {}) as started:
        yield started


def migrate(emulated: Emulated) -> None:
    """Make the tables: a live gateway does not."""
    db.migrate(f"sqlite+aiosqlite:///{emulated.folder}/gateway.db")


def raise_descriptors() -> None:
    """Raise the limit of open files: each connection takes one descriptor per end."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
