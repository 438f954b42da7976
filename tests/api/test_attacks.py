"""What a hostile caller sends: odd HTTP, bodies that cost much to refuse, and money that could be lost."""

import base64
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of, token
from tools.rig.bodies import as_json, encoded, path

TEXT_TO_IMAGE = "/api/v1/image/text-to-image"
BODY = '{"prompt": "a lighthouse"}'


def exchange(url: str, request: str) -> tuple[int, str]:
    """Send bytes as they are; the answer's status and body. `$TOKEN` is a good token."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request.replace("$TOKEN", token()).encode("latin-1"))
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def post(*headers: str, body: str = BODY, path: str = TEXT_TO_IMAGE) -> str:
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: gateway",
        "Connection: close",
        "Authorization: Bearer $TOKEN",
        "Content-Type: application/json",
        *headers,
    )
    return "\r\n".join(lines) + "\r\n\r\n" + body


CHUNKED = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(
            post(f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"), 400, id="length and chunks"
        ),
        pytest.param(post(f"Content-Length: {len(BODY)}", "Content-Length: 3"), 400, id="two lengths"),
        pytest.param(post("Content-Length: \xb2"), 400, id="a length that is no number"),
        pytest.param(post("Transfer-Encoding: xchunked", body=CHUNKED), 400, id="unknown transfer encoding"),
        pytest.param(
            post("Transfer-Encoding: chunked", body=CHUNKED + "Authorization: Bearer x\r\n\r\n"),
            200,
            id="a token in the trailers is not looked at",
        ),
        pytest.param(
            post("Authorization: Bearer x", f"Content-Length: {len(BODY)}"), 200, id="the first token counts"
        ),
        pytest.param("OPTIONS * HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n", 404, id="OPTIONS *"),
        pytest.param(
            "GET /docs/assets/%2e%2e/%2e%2e/main.py HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
            404,
            id="out of the assets",
        ),
        pytest.param(
            "GET /%00%ff HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n", 404, id="bytes in a path"
        ),
        pytest.param(
            f"GET /nope?{'a' * 60_000} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
            404,
            id="an endless query",
        ),
    ],
)
def test_oddities_of_http(gateway_url: str, emulator: Emulator, request_: str, status: int) -> None:
    assert exchange(gateway_url, request_)[0] == status


def test_a_small_body_gets_no_huge_answer(client: Client) -> None:
    answer = client.post("/api/v1/image/image-edit", {"referenceImages": [{}] * 10_000})
    assert answer.status_code == 400
    assert len(answer.content) < 100_000


def test_an_endless_boundary_is_a_400(client: Client) -> None:
    answer = client.http.post(
        "/api/v1/image/image-upscale",
        content=b"x",
        headers={"Content-Type": f"multipart/form-data; boundary={'b' * 300}"},
    )
    assert answer.status_code == 400


def test_bodies_that_drip_hold_nobody_up(client: Client, gateway_url: str, emulator: Emulator) -> None:
    """Two bodies declare more than there is room for. Only the bytes that have arrived count."""
    address = urlsplit(gateway_url)
    with socket.socket() as one, socket.socket() as two:
        for dripping in (one, two):
            dripping.connect((address.hostname, address.port))
            head = post(f"Content-Length: {64 * 1024 * 1024}", body='{"prompt": "', path=path("image-edit"))
            dripping.sendall(head.replace("$TOKEN", token()).encode())
        assert client.text_to_image("a lighthouse").status_code == 200
        upscale = client.post(path("image-upscale"), as_json({"image": encoded(Image.new("L", (64, 64)))}))
        assert upscale.status_code == 200


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan, of a few bytes, is there `count` times more."""
    file = BytesIO()
    Image.new("L", (64, 64)).save(file, "JPEG", progressive=True)
    data, end = file.getvalue()[:-2], file.getvalue()[-2:]
    return data + data[data.rindex(b"\xff\xda") :] * count + end


def test_a_jpeg_of_endless_scans_is_not_decoded(client: Client) -> None:
    answer = client.http.post("/api/v1/image/image-upscale", files={"image": scans(1000)})
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        ["image must be a PNG, JPEG, WebP or GIF image"],
    )


@pytest.mark.parametrize("folder", ["é" * 800, ".well-known/acme-challenge"])
def test_a_folder_that_the_store_refuses_costs_nothing(
    client: Client, emulator: Emulator, folder: str
) -> None:
    answer = client.text_to_image("a lighthouse", storageUri=f"gs://image-gateway/{folder}")
    assert (answer.status_code, emulator.calls.paid) == (400, 0)


POLICY = {"error": {"code": 412, "message": "violates constraint constraints/gcp.restrictNonCmekServices"}}


def test_a_412_at_the_first_try_is_no_success(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("answer", vendor="gcs", arg={"status": 412, "body": POLICY})
    with start() as url:
        client = client_of(url)
        answer = client.text_to_image("a lighthouse")
        client.http.close()
    assert (answer.status_code, answer.json()["message"]) == (503, "Service Unavailable")
    assert len(answer.json()["pending"]) == 1


SAMPLES: dict[str, Any] = {"model": "gemini-2.5-flash-image", "sampleCount": 4}


def inserted(emulator: Emulator) -> int:
    return sum(call.method == "objects.insert" and call.status == 200 for call in emulator.calls.list())


def test_samples_that_are_ready_are_answered_after_a_slow_body(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("slow", vendor="vertex", times=1, arg=30)
    body = json.dumps({"prompt": "a lighthouse", **SAMPLES})

    def late() -> Iterator[bytes]:
        yield body[:5].encode()
        threading.Event().wait(1)
        yield body[5:].encode()

    with start(request_timeout_seconds=3) as url:
        client = client_of(url)
        answer = client.http.post(TEXT_TO_IMAGE, content=late(), headers={"Content-Type": "application/json"})
        client.http.close()
    assert (answer.status_code, inserted(emulator)) == (200, 3)


class _Waiting(logging.Handler):
    """Sets `seen` when a line of the log holds the words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in str(record.msg):
            self.seen.set()


@contextmanager
def logged(words: str) -> Iterator[threading.Event]:
    waiting = _Waiting(words)
    logger = logging.getLogger("app.api.answers")
    logger.addHandler(waiting)
    try:
        yield waiting.seen
    finally:
        logger.removeHandler(waiting)


@contextmanager
def slow_reader(url: str) -> Iterator[socket.socket]:
    """Asks for a large answer and does not read it."""
    noise = encoded(Image.effect_noise((1500, 1500), 90))
    wish = json.dumps(as_json({"image": noise}))
    request = post(f"Content-Length: {len(wish)}", body=wish, path=path("image-upscale"))
    address = urlsplit(url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect((address.hostname, address.port))
        connection.sendall(request.replace("$TOKEN", token()).encode())
        yield connection


def test_an_answer_that_nobody_reads_is_given_up(start: Start) -> None:
    with (
        logged("answer given up: not read in time") as given_up,
        start(answer_idle_seconds=0.5) as url,
        slow_reader(url) as connection,
    ):
        assert given_up.wait(20)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    declared = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) < declared


def test_an_answer_that_is_read_late_is_whole(gateway_url: str) -> None:
    with slow_reader(gateway_url) as connection:
        assert connection.recv(1).startswith(b"H")
        threading.Event().wait(1)
        received = b"H" + b"".join(iter(lambda: connection.recv(65536), b""))
    made = json.loads(received.partition(b"\r\n\r\n")[2])["predictions"][0]["bytesBase64Encoded"]
    assert Image.open(BytesIO(base64.b64decode(made))).size == (3000, 3000)
