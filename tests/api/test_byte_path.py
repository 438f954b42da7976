"""Pictures on their way: however they travel they arrive as they are, and nothing of them is left behind."""

import base64
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

import httpx
import pytest
from PIL import Image

from app.emulator.server import Emulator
from app.emulator.travel import Travel
from app.emulator.trouble import Vendor
from tests.api.conftest import SECRET, Client, Start, client_of, token
from tests.api.watched import WatchedFolder, watched
from tests.support.server_process import UVICORN, bare, free_port, serving
from tools.rig.bodies import as_form, as_json, encoded, opened, path, picture, without_receipt

Json = dict[str, Any]


def noise(size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    """A PNG that no encoder makes smaller."""
    pixels = Random(size[0]).randbytes(size[0] * size[1] * len(mode))
    return encoded(Image.frombytes(mode, size, pixels), **options)


MADE = noise((150, 120))
SMALL = noise((64, 64))
BASE64 = base64.b64encode(MADE).decode()


class Door(NamedTuple):
    """A way in: how a client asks, which vendor draws, and the vendor's answer with MADE in it.

    `stored` finds the URL of the picture in our answer. `broken` and `late` are our bodies for a 500 and a
    504.
    """

    ask: Callable[[Client], httpx.Response]
    vendor: Vendor
    answer: Json
    stored: Callable[[Json], str]
    broken: Json
    late: Json


def _of_nest(body: Json) -> str:
    (image,) = body["images"]
    return str(image["url"])


_NEST: tuple[Callable[[Json], str], Json, Json] = (
    _of_nest,
    {"statusCode": 500, "message": "Terjadi kesalahan internal"},
    {"statusCode": 504, "message": "Gateway Timeout"},
)
_PREDICTION: Json = {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": BASE64}]}
_INLINE = {"mimeType": "image/png", "data": BASE64}
DOORS = {
    "Imagen": Door(lambda client: client.text_to_image("a lighthouse"), "vertex", _PREDICTION, *_NEST),
    "Gemini": Door(
        lambda client: client.text_to_image("a lighthouse", model="gemini-2.5-flash-image"),
        "vertex",
        {
            "candidates": [
                {"content": {"role": "model", "parts": [{"inlineData": _INLINE}]}, "finishReason": "STOP"}
            ]
        },
        *_NEST,
    ),
    "upscale": Door(
        lambda client: client.http.post(
            path("image-upscale"), files=list(as_form({"image": SMALL, "responseFormat": "url"}))
        ),
        "vertex",
        _PREDICTION,
        *_NEST,
    ),
    "gen": Door(
        lambda client: client.post(
            "/gen", {"mode": "text2img", "prompt": "a harbour", "response_format": "url"}
        ),
        "bedrock",
        {"result": "success", "artifacts": [{"seed": 1, "base64": BASE64, "finishReason": "SUCCESS"}]},
        lambda body: str(body["image_url"]),
        {
            "status": "error",
            "error": "Internal Server Error",
            "details": "The picture could not be made; try again later",
        },
        {
            "status": "error",
            "error": "Gateway Timeout",
            "details": "The picture was not ready in time; it is not known whether it was made",
        },
    ),
}
ALL_DOORS = pytest.mark.parametrize("door", DOORS.values(), ids=list(DOORS))


class Gateway(NamedTuple):
    """A client of a gateway that keeps all blobs in files, and the folder with these."""

    client: Client
    folder: WatchedFolder


@contextmanager
def client_and_folder(start: Start, **settings: Any) -> Iterator[Gateway]:
    with watched(start, **settings) as (url, folder):
        client = client_of(url)
        yield Gateway(client, folder)
        client.http.close()


@pytest.fixture(scope="module")
def on_disk(start: Start) -> Iterator[Gateway]:
    with client_and_folder(start) as gateway:
        yield gateway
        assert gateway.folder.made  # or an empty folder says nothing


@pytest.fixture
def gateway(on_disk: Gateway, emulator: Emulator) -> Iterator[Gateway]:
    """In the end its work folder is empty."""
    yield on_disk
    on_disk.folder.wait_until_empty()


@pytest.fixture(scope="module")
def hasty_on_disk(start: Start) -> Iterator[Gateway]:
    with client_and_folder(start, request_timeout_seconds=2, call_seconds=2) as gateway:
        yield gateway


@pytest.fixture
def hasty(hasty_on_disk: Gateway, emulator: Emulator) -> Iterator[Gateway]:
    """A gateway with a short deadline, also for calls that go on. In the end its work folder is empty."""
    yield hasty_on_disk
    hasty_on_disk.folder.wait_until_empty()


def drawn(emulator: Emulator) -> list[Json]:
    """The bodies of all calls to models."""
    return [call.body for call in emulator.calls.list() if call.vendor != "gcs"]


def uploads(emulator: Emulator) -> int:
    return sum(call.vendor == "gcs" for call in emulator.calls.list())


# ── However an answer travels ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "travel",
    [
        pytest.param({"piece": 100_000}, id="plain"),
        pytest.param({"gzip": True}, id="gzipped"),
        pytest.param({"chunked": True, "piece": 1000}, id="chunked"),
        pytest.param({"reordered": True}, id="keys the other way round"),
        pytest.param({"indented": True}, id="indented"),
        pytest.param({"escaped": True}, id="escapes inside base64"),
        pytest.param({"piece": 1}, id="byte by byte"),
        pytest.param({"piece": 5, "escaped": True}, id="escapes cut in two"),
        pytest.param(
            {
                "gzip": True,
                "chunked": True,
                "piece": 7,
                "reordered": True,
                "indented": True,
                "escaped": True,
            },
            id="all at once",
        ),
        pytest.param({"cut": "after"}, id="cut after it"),
        pytest.param({"cut": "after", "reset": True}, id="reset after it"),
        pytest.param({"delay": 0.3}, id="late"),
    ],
)
@ALL_DOORS
def test_the_picture_in_the_bucket_is_the_vendor_s(
    gateway: Gateway, emulator: Emulator, door: Door, travel: Json
) -> None:
    emulator.troubles.set("answer", vendor=door.vendor, arg={"status": 200, "body": door.answer})
    emulator.troubles.set(travel=Travel(**travel), vendor=door.vendor, times=1)
    told = door.ask(gateway.client)
    assert (told.status_code, len(drawn(emulator))) == (200, 1), told.text
    assert httpx.get(door.stored(told.json())).content == MADE


CUTS = [0, 1, 40, 3000, 30_000, -100, -1]
"""Bytes of the body after which it is cut; negative ones count from its end."""


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("place", ["before", *CUTS])
@ALL_DOORS
def test_a_cut_answer_is_a_500_and_is_not_asked_for_again(
    gateway: Gateway, emulator: Emulator, door: Door, place: int | str, reset: bool
) -> None:
    length = len(json.dumps(door.answer, separators=(",", ":")))
    cut = place if isinstance(place, str) else place % length
    emulator.troubles.set("answer", vendor=door.vendor, arg={"status": 200, "body": door.answer})
    emulator.troubles.set(travel=Travel(cut=cut, reset=reset), vendor=door.vendor)
    told = door.ask(gateway.client)
    assert (told.status_code, without_receipt(told)) == (500, door.broken)
    assert (len(drawn(emulator)), uploads(emulator)) == (1, 0)


@pytest.mark.parametrize(
    ("travel", "status"),
    [
        pytest.param({"cut": 5000, "gzip": True}, 500, id="gzipped and cut"),
        pytest.param({"cut": 5000, "chunked": True}, 500, id="chunked and cut"),
        pytest.param({"length": 10}, 500, id="shorter than declared"),
        pytest.param({"length": -10}, 500, id="longer than declared"),
        pytest.param({"timed_out": True}, 504, id="a front end's 408"),
    ],
)
@ALL_DOORS
def test_an_unknown_outcome_is_told_and_paid_once(
    gateway: Gateway, emulator: Emulator, door: Door, travel: Json, status: int
) -> None:
    emulator.troubles.set(travel=Travel(**travel), vendor=door.vendor)
    told = door.ask(gateway.client)
    assert (told.status_code, without_receipt(told)) == (status, door.broken if status == 500 else door.late)
    assert (len(drawn(emulator)), emulator.calls.paid, uploads(emulator)) == (1, 1, 0)


@pytest.mark.parametrize(
    "travel",
    [
        pytest.param({"delay": 60}, id="no head in time"),
        pytest.param({"drip": 2000}, id="a picture in drips"),
        pytest.param({"drip": 2000, "gzip": True}, id="gzipped drips"),
    ],
)
@ALL_DOORS
def test_an_answer_that_is_not_whole_in_time_is_a_504_and_paid_once(
    hasty: Gateway, emulator: Emulator, door: Door, travel: Json
) -> None:
    emulator.troubles.set(travel=Travel(**travel), vendor=door.vendor)
    told = door.ask(hasty.client)
    assert (told.status_code, without_receipt(told)) == (504, door.late)
    assert (len(drawn(emulator)), emulator.calls.paid, uploads(emulator)) == (1, 1, 0)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_an_endless_answer_is_given_up_and_paid_once(
    gateway: Gateway, emulator: Emulator, packed: bool
) -> None:
    emulator.troubles.set(travel=Travel(endless=True, gzip=packed), vendor="vertex")
    assert gateway.client.text_to_image("a lighthouse").status_code == 500
    assert (emulator.calls.paid, uploads(emulator)) == (1, 0)


# ── Whatever happens, no file is left ────────────────────────────────────────────────────────────────────


def test_an_answer_leaves_no_file(gateway: Gateway) -> None:
    told = gateway.client.text_to_image("a lighthouse", sampleCount=4, responseFormat="b64_json")
    assert (told.status_code, len(told.json()["predictions"])) == (200, 4)


def test_a_refused_body_leaves_no_file(gateway: Gateway, emulator: Emulator) -> None:
    wish = {"image": picture()[:-20] + bytes(20)}
    form = gateway.client.http.post(path("image-upscale"), files=list(as_form(dict(wish))))
    text = gateway.client.post(path("image-upscale"), as_json(wish | {"prompt": "a" * 40_000}))
    assert (form.status_code, text.status_code, drawn(emulator)) == (400, 400, [])


def test_a_broken_picture_from_the_vendor_leaves_no_file(gateway: Gateway, emulator: Emulator) -> None:
    half = base64.b64encode(MADE[: len(MADE) // 2]).decode()
    answer = {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": half}]}
    emulator.troubles.set("answer", vendor="vertex", arg={"status": 200, "body": answer})
    assert gateway.client.text_to_image("a lighthouse").status_code == 500


def test_a_picture_that_waits_for_storage_leaves_no_file(start: Start, emulator: Emulator) -> None:
    """It is on the spool then, which keeps it as a file of its own."""
    emulator.troubles.set("storage-down")
    with client_and_folder(start, upload_seconds=1, spool_seconds=0.2) as (client, folder):
        told = client.text_to_image("a lighthouse")
        assert (told.status_code, len(told.json()["pending"])) == (503, 1)
        folder.wait_until_empty()
        emulator.troubles.clear()
        emulator.calls.wait_for(lambda calls: any(call.status == 200 for call in calls[1:]), 30)
        folder.wait_until_empty()
    assert httpx.get(told.json()["pending"][0]["url"]).status_code == 200


@contextmanager
def connected(client: Client) -> Iterator[socket.socket]:
    """A connection whose kernel takes little before it is read."""
    address = client.http.base_url
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect((address.host, address.port))
        yield connection


def request_of(body: bytes, media: str, route: str = path("image-upscale")) -> bytes:
    head = (
        f"POST {route} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token()}\r\n"
        f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def in_json(image: bytes) -> bytes:
    return request_of(json.dumps(as_json({"image": image})).encode(), "application/json")


def in_form(image: bytes) -> bytes:
    sent = httpx.Request("POST", "http://gateway", files={"image": ("a.png", image)})
    return request_of(sent.read(), sent.headers["content-type"])


SPELLINGS = pytest.mark.parametrize("spelled", [in_json, in_form], ids=["JSON", "form"])


@SPELLINGS
def test_a_caller_who_leaves_while_uploading_leaves_no_file(
    gateway: Gateway, emulator: Emulator, spelled: Callable[[bytes], bytes]
) -> None:
    request, before = spelled(noise((500, 400))), gateway.folder.made
    with connected(gateway.client) as connection:
        connection.sendall(request[:-1000])
        gateway.folder.wait_for_files(before + 1)
        assert gateway.folder.files
    gateway.folder.wait_until_empty()
    assert drawn(emulator) == []


def test_a_caller_who_stops_uploading_leaves_no_file(start: Start) -> None:
    with (
        client_and_folder(start, body_idle_seconds=0.5) as (client, folder),
        connected(client) as connection,
    ):
        connection.sendall(in_form(noise((500, 400)))[:-1000])
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        folder.wait_until_empty()
        assert folder.made


def test_a_caller_who_leaves_in_the_middle_of_the_answer_leaves_no_file(gateway: Gateway) -> None:
    with connected(gateway.client) as connection:
        connection.sendall(in_form(noise((1000, 1000))))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert gateway.folder.files
    gateway.folder.wait_until_empty()


def test_a_caller_who_never_reads_leaves_no_file(start: Start) -> None:
    with (
        client_and_folder(start, answer_idle_seconds=0.5) as (client, folder),
        connected(client) as connection,
    ):
        connection.sendall(in_form(noise((1000, 1000))))
        folder.wait_for_files(2)  # what came, and what was made of it
        folder.wait_until_empty()


def test_a_caller_who_leaves_while_the_vendor_answers_leaves_no_file(
    gateway: Gateway, emulator: Emulator
) -> None:
    emulator.troubles.set(travel=Travel(drip=20_000), vendor="vertex")
    before = gateway.folder.made
    with connected(gateway.client) as connection:
        connection.sendall(
            request_of(
                b'{"prompt":"a pear","responseFormat":"b64_json"}',
                "application/json",
                route=path("text-to-image"),
            )
        )
        gateway.folder.wait_for_files(before + 1)
    gateway.folder.wait_until_empty()
    assert (emulator.calls.paid, uploads(emulator)) == (1, 0)


def test_files_of_a_killed_process_are_removed_at_the_next_start(tmp_path: Any) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = bare(tmp_path) | {"JWT_SECRET": SECRET, "DATA_DIR": str(tmp_path / "data")}
    command = [*UVICORN, f"--port={port}"]
    work = tmp_path / "data" / "work"

    def files() -> set[str]:
        return {str(path) for path in work.glob("work-*/*") if path.name != ".lock"}

    with serving(command, f"{url}/health", environment=environment, folder=tmp_path) as gateway:
        client = client_of(url)
        with connected(client) as connection:
            connection.sendall(in_form(noise((1900, 1780)))[:-1000])  # over 10 MB: it goes to disk
            ends = time.monotonic() + 60
            while not files() and time.monotonic() < ends:  # another process's files: there is no event
                time.sleep(0.05)
            gateway.process.kill()
            gateway.process.wait()
        client.http.close()
    assert len(files()) == 1
    with serving(command, f"{url}/health", environment=environment, folder=tmp_path):
        assert files() == set()
        assert len(list(work.glob("work-*"))) == 1


# ── Large pictures ───────────────────────────────────────────────────────────────────────────────────────


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep(side: int) -> bytes:
    """A PNG of 16-bit colours, not compressed: its left half is dark and noisy, its right half bright."""
    half = side // 2
    random = Random(side)
    rows = (b"\0" + random.randbytes(half * 6).translate(_DARK) + b"\xf0" * 6 * half for _ in range(side))
    header = struct.pack(">IIBBBBB", 2 * half, side, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(rows), 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


_DARK = bytes(value // 4 for value in range(256))


@pytest.mark.parametrize("kept", ["in memory", "on disk"])
def test_20_megabytes_are_enlarged_whichever_way_they_come(
    request: pytest.FixtureRequest, emulator: Emulator, kept: str
) -> None:
    client = (
        request.getfixturevalue("gateway").client if kept == "on disk" else request.getfixturevalue("client")
    )
    image = deep(1820)
    assert 19_000_000 < len(image) <= 20 * 1024 * 1024
    text = client.post(path("image-upscale"), as_json({"image": image}))
    form = client.http.post(path("image-upscale"), files={"image": ("a.png", image)})
    assert (text.status_code, form.status_code) == (200, 200)
    made = text.json()["predictions"][0]["bytesBase64Encoded"]
    assert made == form.json()["predictions"][0]["bytesBase64Encoded"]
    one, other = (body["instances"][0]["image"] for body in drawn(emulator))
    assert one == other
    enlarged = opened(made)
    assert enlarged.size == (3640, 3640)
    dark, bright = (enlarged.getpixel((x, 1800)) for x in (900, 2700))
    assert isinstance(dark, tuple)
    assert isinstance(bright, tuple)
    assert max(dark) < 90
    assert min(bright) > 230


@SPELLINGS
def test_what_the_vendor_takes_reaches_it_unchanged(
    gateway: Gateway, emulator: Emulator, spelled: Callable[[bytes], bytes]
) -> None:
    image = noise((1500, 1500))
    with connected(gateway.client) as connection:
        connection.sendall(spelled(image).replace(b"Host: gateway", b"Host: gateway\r\nConnection: close"))
        said = b"".join(iter(lambda: connection.recv(1024 * 1024), b""))
    head, _, body = said.partition(b"\r\n\r\n")
    (asked,) = drawn(emulator)
    assert asked["instances"][0]["image"]["bytesBase64Encoded"]["bytes"] == len(image)
    assert head.startswith(b"HTTP/1.1 200 ")
    made = opened(json.loads(body)["predictions"][0]["bytesBase64Encoded"])
    assert made.size == (3000, 3000)


# ── No room ──────────────────────────────────────────────────────────────────────────────────────────────

TEN_MEGABYTES = noise((1900, 1780), compress_level=0)


_WISH = {"mode": "img2img", "prompt": "a harbour", "init_image": TEN_MEGABYTES}
_BUSY = {"statusCode": 503, "message": "Service Unavailable"}
_GEN_BUSY = {
    "status": "error",
    "error": "Service Unavailable",
    "details": "The service is busy: wait and try again",
}


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        pytest.param(
            lambda client: client.post(path("image-upscale"), as_json({"image": TEN_MEGABYTES})),
            _BUSY,
            id="upscale JSON",
        ),
        pytest.param(
            lambda client: client.http.post(path("image-upscale"), files={"image": TEN_MEGABYTES}),
            _BUSY,
            id="upscale form",
        ),
        pytest.param(  # ten megabytes in JSON are too large a body for /gen
            lambda client: client.http.post("/gen", files=list(as_form(dict(_WISH)))),
            _GEN_BUSY,
            id="gen form",
        ),
    ],
)
def test_an_upload_without_room_on_disk_is_a_503(
    start: Start, emulator: Emulator, ask: Callable[[Client], httpx.Response], said: Json
) -> None:
    """The pictures of a body over 10 MB go to disk."""
    with start(work_bytes=1_000_000) as url:
        client = client_of(url)
        told = ask(client)
        assert (told.status_code, told.json()) == (503, said)
        assert (told.headers["X-Error-Code"], told.headers["Retry-After"]) == ("busy", "5")
        assert drawn(emulator) == []
        small = client.text_to_image("a lighthouse")
        assert small.status_code == 200, small.text
        client.http.close()
