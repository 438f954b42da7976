"""What a gateway in a process of its own holds: during a request with a picture of 20 MB (issue 3), and while
nobody reads its answers."""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tools.rig.bodies import as_json, encoded, path
from tools.rig.large_requests import measure
from tools.rig.processes import Started, gateway_and_emulator, resident_mb

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.parametrize(
    ("case", "form", "successor"),
    [
        pytest.param("image-upscale", True, False, id="the largest answer"),
        pytest.param("product-recontext", False, False, id="JSON"),
        pytest.param("image-edit", True, True, id="composed under a mask"),
    ],
)
def test_memory_stays_under_four_times_the_pictures(case: str, form: bool, successor: bool) -> None:
    assert measure(case, form=form, successor=successor).times < 4


UNREAD = 24
BLOBS_MB = 64
"""What all blobs of a process may hold in memory."""


@contextmanager
def unread(gateway: Started, body: bytes) -> Iterator[int]:
    """Ask for a large answer and read its first bytes only. Yields the length of its body."""
    address = urlsplit(gateway.url)
    head = (
        f"POST {path('image-upscale')} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect((address.hostname, address.port))
        connection.sendall(head.encode() + body)
        answered = connection.recv(2000).lower()
        assert answered.startswith(b"http/1.1 200 ")
        yield int(answered.partition(b"content-length: ")[2].split()[0])


def test_unread_answers_do_not_pile_up_in_memory() -> None:
    """Each is a picture of several megabytes: some stay in memory, the rest waits on disk."""
    body = json.dumps(as_json({"image": encoded(Image.effect_noise((1200, 1200), 90))})).encode()
    with gateway_and_emulator() as gateway, ExitStack() as waiting:
        waiting.enter_context(unread(gateway, body))
        before = resident_mb(gateway.pid)
        lengths = [waiting.enter_context(unread(gateway, body)) for _ in range(UNREAD)]
        growth = resident_mb(gateway.pid) - before
    assert sum(lengths) > 2 * BLOBS_MB * 1e6  # or the test says nothing
    assert growth < 1.5 * BLOBS_MB, f"{UNREAD} answers of {lengths[0]} bytes: {growth:.0f} MB"
