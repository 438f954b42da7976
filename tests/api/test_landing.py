"""Pictures that are to be stored are safe on disk when they are whole, whatever happens then."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.emulator.calls import Call
from app.emulator.server import Emulator
from app.emulator.travel import Travel
from tests.api.conftest import SECRET, Client, Start, client_of
from tests.support.server_process import UVICORN, bare, free_port, serving
from tests.support.small_disk import small_disk
from tools.rig.bodies import as_json, path
from tools.rig.bodies import body as body_of

GEMINI = "gemini-2.5-flash-image"


def files(spool: Path) -> list[Path]:
    """The pictures that have landed."""
    return [path for path in spool.rglob("*") if path.suffix in (".png", ".jpg", ".webp")]


def inserts(emulator: Emulator, status: int = 200) -> list[Call]:
    return [
        call for call in emulator.calls.list() if call.method == "objects.insert" and call.status == status
    ]


def wait_for_inserts(emulator: Emulator, number: int) -> None:
    emulator.calls.wait_for(
        lambda calls: sum(call.method == "objects.insert" and call.status == 200 for call in calls) == number,
        30,
    )


def wait_until_empty(spool: Path) -> None:
    ends = time.monotonic() + 30
    while files(spool) and time.monotonic() < ends:  # of files there is no event
        time.sleep(0.05)
    assert files(spool) == []


@contextmanager
def spooling(start: Start, tmp_path: Path, **settings: Any) -> Iterator[tuple[Client, Path]]:
    """A gateway, and its spool's folder."""
    spool = tmp_path / "spool"
    with start(spool_dir=spool, **settings) as url:
        client = client_of(url)
        yield client, spool
        client.http.close()


@pytest.mark.parametrize("fsync", [False, True])
@pytest.mark.parametrize("model", ["imagen-3.0-generate-001", GEMINI])
def test_nothing_is_left_of_what_was_stored(
    start: Start, emulator: Emulator, tmp_path: Path, model: str, fsync: bool
) -> None:
    with spooling(start, tmp_path, spool_fsync=fsync) as (client, spool):
        answer = client.text_to_image("a lighthouse", model=model, sampleCount=3)
        assert (answer.status_code, len(answer.json()["images"]), files(spool)) == (200, 3, [])
    assert [path.name for path in spool.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param({"kind": "storage-down"}, id="storage-down"),
        pytest.param({"kind": "slow", "arg": 3}, id="slow"),
        pytest.param({"kind": "hang"}, id="hang"),
        pytest.param({"kind": "drop"}, id="drop"),
        pytest.param({"kind": "answer", "times": 1000, "arg": {"status": 401, "body": {}}}, id="401"),
        pytest.param({"travel": Travel(cut="before", reset=True)}, id="reset"),
    ],
)
def test_whatever_the_store_does_the_picture_arrives_later(
    start: Start, emulator: Emulator, tmp_path: Path, trouble: dict[str, Any]
) -> None:
    emulator.troubles.set(vendor="gcs", **trouble)
    with spooling(start, tmp_path, upload_wait_seconds=0.5, upload_seconds=1, spool_seconds=0.1) as (
        client,
        spool,
    ):
        answer = client.text_to_image("a lighthouse", sampleCount=2)
        if trouble.get("kind") == "drop" or "travel" in trouble:  # the objects may have landed
            told = answer.json().get("pending", []) + answer.json().get("images", [])
        else:
            assert answer.status_code == 503
            told = answer.json()["pending"]
        assert len(told) == 2
        emulator.troubles.clear()
        wait_until_empty(spool)
    assert {httpx.get(one["url"]).status_code for one in told} == {200}
    names = {
        call.body["resource"]["name"] for call in emulator.calls.list() if call.method == "objects.insert"
    }
    assert names == {one["url"].partition("/image-gateway/")[2] for one in told}
    assert emulator.calls.paid == 2


def test_the_first_of_several_samples_is_safe_while_others_run(
    start: Start, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.troubles.set("hang", vendor="vertex", times=1)
    with spooling(start, tmp_path, request_timeout_seconds=6) as (client, _):
        with pytest.raises(httpx.ReadTimeout):
            client.http.post(
                path("text-to-image"), json={"prompt": "pears", "model": GEMINI, "sampleCount": 4}, timeout=3
            )
        wait_for_inserts(emulator, 3)  # they are in no answer, and stored all the same
        assert emulator.calls.paid == 3


def test_a_picture_is_never_stored_before_it_is_under_the_mask(
    start: Start, emulator: Emulator, tmp_path: Path
) -> None:
    """Nor does it wait on the spool as the vendor made it."""
    emulator.troubles.set("storage-down")
    wish = as_json(body_of("image-edit", sampleCount=2, responseFormat="url"))
    with spooling(start, tmp_path, upload_wait_seconds=0.5, upload_seconds=1, spool_seconds=0.1) as (
        client,
        spool,
    ):
        answer = client.post(path("image-edit"), wish)
        assert (answer.status_code, len(answer.json()["pending"])) == (503, 2)
        assert len(files(spool)) == 2
        emulator.troubles.clear()
        wait_for_inserts(emulator, 2)


def test_a_picture_of_another_type_is_stored_once(start: Start, emulator: Emulator, tmp_path: Path) -> None:
    """Gemini makes PNGs: it is transcoded after it has landed."""
    with spooling(start, tmp_path) as (client, spool):
        answer = client.text_to_image("a pear", model=GEMINI, outputOptions={"mimeType": "image/jpeg"})
        (image,) = answer.json()["images"]
        assert (image["mimeType"], image["url"][-4:], files(spool)) == ("image/jpeg", ".jpg", [])
    assert len(inserts(emulator)) == 1
    assert Image.open(BytesIO(httpx.get(image["url"]).content)).format == "JPEG"


def test_a_broken_picture_is_not_stored(start: Start, emulator: Emulator, tmp_path: Path) -> None:
    emulator.troubles.set(
        "answer",
        vendor="vertex",
        arg={
            "status": 200,
            "body": {"predictions": [{"bytesBase64Encoded": "/9j/4AAQSkZJRgABAQAAAQABAAD/2w=="}]},
        },
    )
    with spooling(start, tmp_path) as (client, spool):
        assert client.text_to_image("a pear").status_code == 500
        assert files(spool) == []
    assert inserts(emulator) == []


def test_a_disk_that_fills_up_while_a_picture_arrives_loses_nothing(
    start: Start, emulator: Emulator, tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "spool", "256k"),
        spooling(start, tmp_path, spool_min_free_bytes=0) as (client, spool),
    ):
        answer = client.text_to_image("a lighthouse", sampleCount=2)
        assert (answer.status_code, len(answer.json()["images"]), files(spool)) == (200, 2, [])
        assert {httpx.get(one["url"]).status_code for one in answer.json()["images"]} == {200}


@pytest.mark.parametrize("stored", [True, False])
def test_on_a_full_disk_nothing_is_paid(
    start: Start, emulator: Emulator, tmp_path: Path, stored: bool
) -> None:
    with small_disk(tmp_path / "spool", "256k"):
        folders: dict[str, Any] = {} if stored else {"data_dir": tmp_path / "spool"}
        with spooling(start, tmp_path, **folders) as (client, _):
            answer = client.text_to_image("a lighthouse", responseFormat="url" if stored else "b64_json")
            assert (answer.status_code, emulator.calls.paid) == (503, 0)
            assert "retry-after" in answer.headers


def test_what_a_killed_gateway_has_left_is_stored_by_the_next(emulator: Emulator, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = bare(tmp_path) | {
        "VERTEX_ENDPOINT": emulator.http_url,
        "STORAGE_EMULATOR_HOST": emulator.http_url,
        "PUBLIC_BASE_URL": emulator.http_url,
        "JWT_SECRET": SECRET,
        "RATE_LIMIT": "",
        "SPOOL_DIR": str(tmp_path / "spool"),
    }
    command = [*UVICORN, f"--port={port}"]
    emulator.troubles.set("hang", vendor="gcs")
    with serving(command, f"{url}/health", environment=environment, folder=tmp_path) as running:
        client = client_of(url)

        def ask() -> None:
            with pytest.raises(httpx.HTTPError):
                client.text_to_image("a lighthouse", sampleCount=2)

        asking = threading.Thread(target=ask)
        asking.start()
        emulator.calls.wait_for(lambda calls: sum(call.method == "objects.insert" for call in calls) == 2, 30)
        os.kill(running.process.pid, signal.SIGKILL)
        asking.join()
        client.http.close()
    left = files(tmp_path / "spool")
    assert len(left) == 2
    emulator.troubles.clear()
    with serving(command, f"{url}/health", environment=environment, folder=tmp_path):
        wait_for_inserts(emulator, 2)
    assert sorted(call.body["resource"]["name"].rpartition("/")[2] for call in inserts(emulator)) == sorted(
        one.name.partition("-")[2] for one in left
    )
    assert files(tmp_path / "spool") == []
