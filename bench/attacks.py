"""`python -m bench.attacks` measures how much hostile callers disturb other callers and the process.

Each attack runs against a new gateway in front of the emulator. A row shows the highest growth of its
resident memory, the slowest of the /health requests that are sent every 10 ms, and the result.
`bench.hostile` measures hostile picture files.
"""

import base64
import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
from PIL import Image

from bench.health import HealthWatch
from tools.rig.bodies import encoded
from tools.rig.processes import Started, forget_peak, gateway_and_emulator, resident_mb

TEXT_TO_IMAGE = "/api/v1/image/text-to-image"
WISH = {"prompt": "a lighthouse"}
HANG_UPS = 1000
UNREAD = 34


def head(gateway: Started, path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {gateway.token}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@contextlib.contextmanager
def connected(gateway: Started) -> Iterator[socket.socket]:
    address = urlsplit(gateway.url)
    with socket.create_connection((address.hostname, address.port), timeout=120) as connection:
        yield connection


def another(gateway: Started) -> str:
    """Returns status and time of an ordinary request of another caller."""
    started = time.perf_counter()
    headers = {"Authorization": f"Bearer {gateway.token}"}
    answer = httpx.post(gateway.url + TEXT_TO_IMAGE, json=WISH, headers=headers, timeout=150)
    return f"another's text-to-image: {answer.status_code} after {time.perf_counter() - started:.1f} s"


def hang_ups(gateway: Started) -> str:
    """Send a request and hang up, a thousand times."""
    body = json.dumps(WISH).encode()
    for _ in range(HANG_UPS):
        with connected(gateway) as connection:
            connection.sendall(head(gateway, TEXT_TO_IMAGE, len(body)) + body)
    return another(gateway)


def drips(gateway: Started) -> str:
    """Two bodies that declare 64 MB and send 17 KB a second."""
    with connected(gateway) as one, connected(gateway) as two:
        for connection in (one, two):
            connection.sendall(
                head(gateway, "/api/v1/image/image-edit", 64 * 1024 * 1024) + b"{" + b" " * 17_000
            )
        return another(gateway)


def endless_header(gateway: Started) -> str:
    """65 MB of one header, without a token."""
    sent = 0
    with connected(gateway) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: gateway\r\nX: ")
        while sent < 65_000_000:
            connection.sendall(b"a" * 100_000)
            sent += 100_000
    return f"{sent / 1e6:.1f} MB sent before it was closed"


def half_a_head(gateway: Started) -> str:
    with connected(gateway) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        started = time.perf_counter()
        connection.recv(1)
        return f"closed after {time.perf_counter() - started:.1f} s"


def deep_json(gateway: Started) -> str:
    """Lists in lists, 4 million deep."""
    started = time.perf_counter()
    headers = {"Authorization": f"Bearer {gateway.token}", "Content-Type": "application/json"}
    answer = httpx.post(
        f"{gateway.url}{TEXT_TO_IMAGE}", content=b"[" * 4_000_000, headers=headers, timeout=120
    )
    return f"{answer.status_code} after {time.perf_counter() - started:.2f} s"


def endless_prompt(gateway: Started) -> str:
    """A prompt of 30 MB."""
    body = json.dumps({"prompt": "a" * 30_000_000}).encode()
    headers = {"Authorization": f"Bearer {gateway.token}", "Content-Type": "application/json"}
    answer = httpx.post(gateway.url + TEXT_TO_IMAGE, content=body, headers=headers, timeout=60)
    return f"{answer.status_code} {answer.json()['message'][0][:60]}"


def unread_answers(gateway: Started) -> str:
    """34 answers with upscaled pictures of 12 MB that are not read, and the memory after the callers hung
    up."""
    noise = encoded(Image.effect_noise((1000, 1000), 90).convert("RGB"))
    body = json.dumps({"image": base64.b64encode(noise).decode()}).encode()
    before = resident_mb(gateway.pid)
    with contextlib.ExitStack() as held:
        for _ in range(UNREAD):
            connection = held.enter_context(connected(gateway))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head(gateway, "/api/v1/image/image-upscale", len(body)) + body)
            connection.recv(1)  # the answer has begun
        time.sleep(5)
        unread = resident_mb(gateway.pid) - before
    time.sleep(2)
    left = resident_mb(gateway.pid) - before
    return f"5 s later {unread:.0f} MB more than before, {left:.0f} MB when they had left"


def storage_down(gateway: Started) -> str:
    httpx.post(f"{gateway.storage}/__emulator/trouble", json={"kind": "storage-down"}).raise_for_status()
    started = time.perf_counter()
    headers = {"Authorization": f"Bearer {gateway.token}"}
    answer = httpx.post(gateway.url + TEXT_TO_IMAGE, json=WISH, headers=headers, timeout=150)
    result = f"{answer.status_code} after {time.perf_counter() - started:.1f} s, Retry-After "
    return result + f"{answer.headers.get('retry-after')}, {len(answer.json().get('pending', []))} pending"


ATTACKS: tuple[Callable[[Started], str], ...] = (
    hang_ups,
    drips,
    endless_header,
    half_a_head,
    deep_json,
    endless_prompt,
    unread_answers,
    storage_down,
)


def main() -> None:
    """Run all attacks, or those that the command line names."""
    for attack in ATTACKS:
        if sys.argv[1:] and attack.__name__ not in sys.argv[1:]:
            continue
        with gateway_and_emulator() as gateway:
            before = resident_mb(gateway.pid)
            forget_peak(gateway.pid)
            watch = HealthWatch(gateway.url, every_seconds=0.01)
            result = attack(gateway)
            longest = watch.end()
            grown = resident_mb(gateway.pid, peak=True) - before
        sys.stdout.write(f"{attack.__name__:15} | {grown:+5.0f} MB | /health {longest:5.0f} ms | {result}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
