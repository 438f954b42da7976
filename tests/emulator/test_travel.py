"""Orders for how an answer travels, as http.client, httpx and a bare socket see them."""

import base64
import contextlib
import gzip
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from tests.support.vertex_client import PARENT, Json, ask_grpc, opened, upload

IMAGEN = "imagen-4.0-generate-001:predict"
ASKED: Json = {
    "instances": [{"prompt": "a pear"}],
    "parameters": {"sampleCount": 1, "seed": 7, "addWatermark": False},
}
SAID: Json = {"b": {"url": "https://a/b?c=d", "n": 1}, "a": [{"y": 1, "x": "A+/w=="}]}
"""The body of an ordered answer."""
TEXT = json.dumps(SAID, separators=(",", ":")).encode()


def order(emulator: Emulator, *, status: int | None = None, times: int = 1, **travel: Any) -> None:
    """Orders a travel. With a `status` the answer is SAID; without one it is the service's own."""
    wanted: Json = {"travel": travel, "times": times}
    if status is not None:
        wanted |= {"kind": "answer", "arg": {"status": status, "body": SAID}}
    httpx.post(f"{emulator.http_url}/__emulator/trouble", json=wanted).raise_for_status()


def address(emulator: Emulator) -> tuple[str, int]:
    host, _, port = emulator.http_url.removeprefix("http://").partition(":")
    return host, int(port)


def request() -> bytes:
    body = json.dumps(ASKED).encode()
    head = f"POST /v1/{PARENT}/{IMAGEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.fixture
def connection(emulator: Emulator) -> Iterator[socket.socket]:
    with socket.create_connection(address(emulator), timeout=20) as connected:
        yield connected


def read_to_end(connection: socket.socket) -> tuple[bytes, str]:
    """Returns everything that arrives, and how the connection ended."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        return received, "reset"
    return received, "closed"


def ask(emulator: Emulator) -> httpx.Response:
    return httpx.post(f"{emulator.http_url}/v1/{PARENT}/{IMAGEN}", json=ASKED, timeout=20)


# ── Another form, the same answer ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("travel", "body"),
    [
        ({"indented": True}, json.dumps(SAID, indent=2).encode()),
        ({"reordered": True}, b'{"a":[{"x":"A+/w==","y":1}],"b":{"n":1,"url":"https://a/b?c=d"}}'),
        ({"escaped": True}, TEXT.replace(b"/", rb"\/").replace(b"=", rb"\u003d")),
    ],
)
def test_json_is_rewritten(travel: Json, body: bytes, emulator: Emulator) -> None:
    order(emulator, status=200, **travel)
    answer = ask(emulator)
    assert (answer.content, answer.json()) == (body, SAID)
    assert answer.headers["content-length"] == str(len(body))


def test_chunked_answer_has_no_length(emulator: Emulator) -> None:
    order(emulator, status=200, chunked=True)
    answer = ask(emulator)
    assert answer.content == TEXT
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


def test_gzipped_answer_says_so_and_has_its_own_length(connection: socket.socket, emulator: Emulator) -> None:
    order(emulator, status=200, gzip=True)
    connection.sendall(request())
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.headers["Content-Encoding"] == "gzip"
    squeezed = answer.read()
    assert answer.headers["Content-Length"] == str(len(squeezed))
    assert gzip.decompress(squeezed) == TEXT


def test_one_byte_pieces_are_one_byte_chunks(connection: socket.socket, emulator: Emulator) -> None:
    order(emulator, status=200, chunked=True, piece=1, cut="after")
    connection.sendall(request())
    received, end = read_to_end(connection)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in TEXT)
    assert (received.partition(b"\r\n\r\n")[2], end) == (chunks + b"0\r\n\r\n", "closed")


def test_all_forms_at_once_still_hold_the_picture(emulator: Emulator) -> None:
    plain = ask(emulator).json()
    forms = dict.fromkeys(("chunked", "gzip", "reordered", "indented", "escaped"), True)
    order(emulator, **forms, piece=1000)
    answer = ask(emulator)
    assert answer.json() == plain
    assert list(answer.json()) == list(reversed(plain))
    assert opened(answer.json()["predictions"][0]["bytesBase64Encoded"]).size == (1024, 1024)


def test_connection_is_kept_after_a_whole_answer(emulator: Emulator) -> None:
    order(emulator, status=200, gzip=True, chunked=True, piece=10, times=2)
    connection = http.client.HTTPConnection(*address(emulator), timeout=20)
    for _ in range(2):
        connection.request("POST", f"/v1/{PARENT}/{IMAGEN}", json.dumps(ASKED))
        held = connection.sock
        assert gzip.decompress(connection.getresponse().read()) == TEXT
        assert connection.sock is held
    connection.close()


# ── Slowly ───────────────────────────────────────────────────────────────────────────────────────────


def test_delayed_answer_is_late(connection: socket.socket, emulator: Emulator) -> None:
    order(emulator, status=200, delay=0.5)
    begun = time.monotonic()
    connection.sendall(request())
    assert connection.recv(12) == b"HTTP/1.1 200"
    assert time.monotonic() - begun >= 0.5


def test_delay_is_after_the_work_and_before_the_head(connection: socket.socket, emulator: Emulator) -> None:
    order(emulator, delay=600)
    connection.sendall(request())
    emulator.calls.wait_for(lambda calls: any(call.finished for call in calls))
    assert emulator.calls.paid == 1
    assert select.select([connection], [], [], 0.1)[0] == []


def test_dripping_answer_takes_its_time(connection: socket.socket, emulator: Emulator) -> None:
    order(emulator, status=200, drip=200, cut="after")
    connection.sendall(request())
    begun = time.monotonic()
    received, _ = read_to_end(connection)
    assert received.endswith(TEXT)
    assert time.monotonic() - begun >= len(TEXT) / 200 * 0.9


# ── Cut ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("reset", "end"), [(False, "closed"), (True, "reset")])
@pytest.mark.parametrize(
    ("cut", "body"), [("before", None), (0, b""), (10, TEXT[:10]), (10_000, TEXT), ("after", TEXT)]
)
def test_connection_ends_where_the_order_says(
    cut: Any, body: bytes | None, reset: bool, end: str, connection: socket.socket, emulator: Emulator
) -> None:
    order(emulator, status=200, cut=cut, reset=reset)
    connection.sendall(request())
    received, ended = read_to_end(connection)
    head, _, arrived = received.partition(b"\r\n\r\n")
    assert (arrived if head else None, ended) == (body, end)
    if head:
        assert f"content-length: {len(TEXT)}".encode() in head
        assert b"connection: close" not in head.lower()
    [call] = emulator.calls.list()
    assert (call.status, call.finished) == (200 if head else None, True)


@pytest.mark.parametrize("reset", [False, True])
def test_all_bytes_before_a_cut_arrive(reset: bool, connection: socket.socket, emulator: Emulator) -> None:
    """This holds for more bytes than the sockets can buffer, and for a client that begins to read late."""
    order(emulator, cut=1_500_000, reset=reset)
    ask = ASKED | {"parameters": ASKED["parameters"] | {"sampleCount": 4}}
    body = json.dumps(ask).encode()
    connection.sendall(
        f"POST /v1/{PARENT}/imagen-4.0-ultra-generate-001:predict HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    emulator.calls.wait_for(lambda calls: any(call.finished for call in calls), timeout=30)
    received, _ = read_to_end(connection)
    whole = int(received.partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert len(received.partition(b"\r\n\r\n")[2]) == min(whole, 1_500_000)


def test_chunked_answer_is_cut_without_its_last_chunk(connection: socket.socket, emulator: Emulator) -> None:
    order(emulator, status=200, chunked=True, cut=10_000)
    connection.sendall(request())
    received, _ = read_to_end(connection)
    assert received.endswith(b"%x\r\n%s\r\n" % (len(TEXT), TEXT))


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("drip", [None, 1000])
def test_connection_that_was_ended_takes_no_further_call(
    drip: int | None, reset: bool, connection: socket.socket, emulator: Emulator
) -> None:
    """With a `drip` the connection stays open for a moment after the last byte."""
    order(emulator, status=200, cut="after", reset=reset, drip=drip)
    connection.sendall(request())
    received = b""
    while not received.endswith(TEXT):
        received += connection.recv(65536)
    with contextlib.suppress(OSError):
        connection.sendall(request())
    assert read_to_end(connection)[0] == b""
    assert len(emulator.calls.list()) == 1


# ── Lies ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("off", [-5, 5])
def test_length_may_be_wrong(off: int, connection: socket.socket, emulator: Emulator) -> None:
    order(emulator, status=200, length=off)
    connection.sendall(request())
    received, _ = read_to_end(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(TEXT) + off}".encode() in head
    assert body == TEXT


def test_answer_may_have_no_end(emulator: Emulator) -> None:
    order(emulator, endless=True)
    received = b""
    with httpx.stream("POST", f"{emulator.http_url}/v1/{PARENT}/{IMAGEN}", json=ASKED, timeout=20) as answer:
        for data in answer.iter_raw():
            received += data
            if len(received) > 20_000_000:
                break
    assert received.startswith(b'{"predictions":[{')
    assert received.endswith(b"A" * 15_000_000)


def test_endless_answer_gzipped_is_a_bomb(emulator: Emulator) -> None:
    order(emulator, endless=True, gzip=True)
    told = inflated = 0
    with httpx.stream("POST", f"{emulator.http_url}/v1/{PARENT}/{IMAGEN}", json=ASKED, timeout=20) as answer:
        for data in answer.iter_bytes():
            inflated += len(data)
            told = answer.num_bytes_downloaded
            if inflated > 50_000_000:
                break
    assert told < 5_000_000


def test_endless_answer_ends_with_its_client_and_the_emulator_goes_on(emulator: Emulator) -> None:
    order(emulator, endless=True, drip=100)
    with httpx.stream("POST", f"{emulator.http_url}/v1/{PARENT}/{IMAGEN}", json=ASKED, timeout=20):
        pass
    assert ask(emulator).status_code == 200


def test_front_end_may_time_out_after_the_work_is_paid(emulator: Emulator) -> None:
    order(emulator, timed_out=True)
    answer = ask(emulator)
    assert (answer.status_code, answer.headers["content-type"]) == (408, "text/html; charset=utf-8")
    [call] = emulator.calls.list()
    assert (call.status, call.paid) == (408, 1)


# ── Whose answers, and with what they say ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v1/{PARENT}/{IMAGEN}"),
        ("POST", "/model/stability.stable-diffusion-xl-v1/invoke"),
        ("POST", "/model/anthropic.claude-haiku-4-5-20251001-v1:0/invoke"),
        ("POST", "/v1/messages"),
        ("GET", "/storage/v1/b/my-bucket"),
    ],
)
def test_every_http_front_plays_travel(method: str, path: str, emulator: Emulator) -> None:
    order(emulator, cut=5)
    with pytest.raises(httpx.RemoteProtocolError, match="received 5 bytes"):
        httpx.request(method, emulator.http_url + path, json={} if method == "POST" else None)
    assert httpx.request(method, emulator.http_url + path, json={} if method == "POST" else None).content


def test_stored_bytes_are_not_rewritten(emulator: Emulator) -> None:
    data = base64.b64decode("AAECAy8vPT0=")
    upload(emulator, "my-bucket", "a.bin", data)
    order(emulator, escaped=True, indented=True, chunked=True)
    url = f"{emulator.http_url}/storage/v1/b/my-bucket/o/a.bin"
    assert httpx.get(url, params={"alt": "media"}).content == data


def test_an_order_can_have_a_kind_and_a_travel(emulator: Emulator) -> None:
    """The failure is ordered, or named by the prompt."""
    for kind, prompt in (("503", "a pear"), (None, "#trouble:503")):
        wanted = {"travel": {"gzip": True}, "times": 1} | ({"kind": kind} if kind else {})
        httpx.post(f"{emulator.http_url}/__emulator/trouble", json=wanted).raise_for_status()
        asked = {"instances": [{"prompt": prompt}]}
        answer = httpx.post(f"{emulator.http_url}/v1/{PARENT}/{IMAGEN}", json=asked)
        assert (answer.status_code, answer.headers["content-encoding"]) == (503, "gzip")
        assert answer.json()["error"]["status"] == "UNAVAILABLE"


def test_two_orders_for_one_call_both_hold(emulator: Emulator) -> None:
    order(emulator, gzip=True, times=1)
    httpx.post(f"{emulator.http_url}/__emulator/trouble", json={"kind": "500", "times": 1}).raise_for_status()
    answer = ask(emulator)
    assert (answer.status_code, answer.headers["content-encoding"]) == (500, "gzip")
    assert "content-encoding" not in (plain := ask(emulator)).headers
    assert plain.status_code == 200


def test_grpc_answers_travel_as_always(emulator: Emulator) -> None:
    order(emulator, cut="before", times=1)
    assert ask_grpc(emulator, IMAGEN, ASKED).status == 200


@pytest.mark.parametrize(
    "travel",
    [
        {},
        {"smoke": 1},
        {"delay": -1},
        {"drip": 0},
        {"piece": 0},
        {"cut": -1},
        {"cut": "somewhere"},
        {"reset": True},
        {"length": 1, "chunked": True},
        {"endless": True, "cut": 5},
    ],
)
def test_journey_that_makes_no_sense_is_refused(travel: Json, emulator: Emulator) -> None:
    response = httpx.post(f"{emulator.http_url}/__emulator/trouble", json={"travel": travel})
    assert (response.status_code, list(response.json())) == (400, ["errors"])
    assert ask(emulator).status_code == 200
