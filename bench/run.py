"""`make bench`: what the gateway adds to the vendors' own clients, in one run on this machine.

The emulator runs alone in canned mode (pictures of 1.5 MB made beforehand). For each load the same number of
requests goes through the gateway and through `bare.py`. CPU is the process's own, user and system.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
from jose import jwt

ROOT = Path(__file__).parents[1]
LOADS = [(samples, in_flight) for samples in (1, 4) for in_flight in (1, 16, 64)]
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "16777216",
    "MALLOC_ARENA_MAX": "2",
}
"""For the emulator and the bare script, what the gateway sets itself (app/process.py)."""
SECRET = secrets.token_hex(32)
WANTED = "wanted: CPU at most 1.5 x bare, RSS under 400 MB, /health never above 100 ms, ready within 5 s"


@dataclass
class Row:
    cpu_ms: float
    p50: float
    p99: float
    peak_mb: float
    health_ms: float


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, no two of them alike."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(listener.getsockname()[1]) for listener in listeners]


@contextlib.contextmanager
def running(
    arguments: list[str], url: str, environment: dict[str, str], niceness: int = 0
) -> Iterator[tuple[int, float]]:
    """Start a process and wait until the URL answers; give its id and the seconds that took.

    The cloud is not on the gateway's machine: what plays it here steps back (`niceness`) for the gateway.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url)
                break
            if process.poll() is not None:
                raise SystemExit(f"{arguments} ended with {process.returncode}")
            time.sleep(0.02)
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
    """Its resident set, now or at its highest since `forget_peak`, in millions of bytes."""
    name = "VmHWM:" if peak else "VmRSS:"
    kibibytes = Path(f"/proc/{pid}/status").read_text().partition(name)[2].split()[0]
    return int(kibibytes) * 1024 / 1e6


class HealthWatch:
    """Asks /health again and again, from a process of its own, and keeps the longest wait in milliseconds."""

    def __init__(self, url: str, every_seconds: float = 0.05) -> None:
        self._pause = every_seconds
        self._ended = multiprocessing.Event()
        self._longest = multiprocessing.Value("d", 0.0)
        self._process = multiprocessing.Process(target=self._run, args=(url,))
        self._process.start()

    def _run(self, url: str) -> None:
        with httpx.Client() as client:
            while not self._ended.wait(self._pause):
                started = time.perf_counter()
                client.get(f"{url}/health").raise_for_status()
                self._longest.value = max(self._longest.value, (time.perf_counter() - started) * 1000)

    def end(self) -> float:
        self._ended.set()
        self._process.join()
        return float(self._longest.value)


async def load(url: str, token: str, samples: int, in_flight: int, requests: int) -> list[float]:
    body = {"prompt": "a lighthouse", "sampleCount": samples}
    limits = httpx.Limits(max_connections=in_flight)
    left = iter(range(requests))
    took: list[float] = []
    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token}"}, timeout=120, limits=limits
    ) as client:

        async def caller() -> None:
            for _ in left:
                started = time.perf_counter()
                answer = await client.post(f"{url}/api/v1/image/text-to-image", json=body)
                took.append((time.perf_counter() - started) * 1000)
                assert answer.status_code == 200, answer.text
                assert len(answer.json()["images"]) == samples

        await asyncio.gather(*(caller() for _ in range(in_flight)))
    return sorted(took)


def through_the_gateway(pid: int, url: str, token: str, samples: int, in_flight: int, requests: int) -> Row:
    asyncio.run(load(url, token, samples, 1, 2))
    forget_peak(pid)
    watch = HealthWatch(url)
    before = cpu_seconds(pid)
    took = asyncio.run(load(url, token, samples, in_flight, requests))
    cpu = (cpu_seconds(pid) - before) * 1000 / requests
    return Row(
        cpu, took[len(took) // 2], took[int(len(took) * 0.99)], resident_mb(pid, peak=True), watch.end()
    )


def bare(endpoint: str, storage: str, samples: int, in_flight: int, requests: int) -> dict[str, float]:
    arguments = [endpoint, storage, *(str(number) for number in (samples, in_flight, requests))]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/bare.py"), *arguments],
        env={**os.environ, **MALLOC},
        check=True,
        capture_output=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


class Started(NamedTuple):
    """A gateway in front of an emulator. `seconds` until it answered."""

    pid: int
    url: str
    token: str
    endpoint: str
    storage: str
    seconds: float


@contextlib.contextmanager
def gateway_and_emulator(*flags: str) -> Iterator[Started]:
    """Start both, each in a process of its own. `flags` are the emulator's."""
    grpc_port, http_port, port = free_ports(3)
    endpoint, storage, url = (
        f"127.0.0.1:{grpc_port}",
        f"http://127.0.0.1:{http_port}",
        f"http://127.0.0.1:{port}",
    )
    claims = {"sub": "bench", "exp": int(time.time()) + 3600}
    token = jwt.encode(claims, SECRET, "HS256")
    with tempfile.TemporaryDirectory() as folder:
        emulator = ["-m", "app.emulator", *flags, "--data-dir", folder]
        emulator += ["--grpc-port", str(grpc_port), "--http-port", str(http_port)]
        environment = {
            "VERTEX_ENDPOINT": endpoint,
            "STORAGE_EMULATOR_HOST": storage,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": storage,
            "ANTHROPIC_BASE_URL": storage,
            "JWT_SECRET": SECRET,
            "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
            "SPOOL_DIR": f"{folder}/spool",
            "DATA_DIR": folder,
            "RATE_LIMIT": "",
            "LOG_LEVEL": "info",
        }
        gateway = ["-m", "uvicorn", "app.main:app", "--port", str(port), "--no-access-log"]
        with (
            running(emulator, f"{storage}/__emulator/calls", MALLOC, niceness=19),
            running(gateway, f"{url}/health", environment) as (pid, seconds),
        ):
            while httpx.get(f"{url}/health/ready").status_code != 200:
                time.sleep(0.1)  # Claude's package is imported in the background
            yield Started(pid, url, token, endpoint, storage, seconds)


def main() -> None:
    with gateway_and_emulator("--canned") as (pid, url, token, endpoint, storage, seconds):
        fresh = resident_mb(pid)
        sys.stdout.write(f"ready after {seconds:.1f} s, fresh process {fresh:.0f} MB\n{WANTED}\n\n")
        sys.stdout.write("samples in-flight | CPU ms: gateway   bare  ratio | p50 ms  p99 ms | ")
        sys.stdout.write("peak RSS MB | longest /health ms\n")
        for samples, in_flight in LOADS:
            requests = max(200, in_flight * 4)  # the kernel counts CPU in hundredths of a second
            row = through_the_gateway(pid, url, token, samples, in_flight, requests)
            mark = bare(endpoint, storage, samples, in_flight, requests)["cpu_ms"]
            sys.stdout.write(
                f"{samples:7} {in_flight:9} | {row.cpu_ms:15.1f} {mark:6.1f} {row.cpu_ms / mark:6.2f} | "
                f"{row.p50:6.0f} {row.p99:7.0f} | {row.peak_mb:11.0f} | {row.health_ms:6.0f}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
