"""Pictures on their way to Cloud Storage: the real transport against the emulated store."""

import asyncio
import socket
from typing import Any

import google.api_core.exceptions
import google_crc32c
import httpx
import pytest

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.emulator.travel import Travel
from app.emulator.trouble import Kind
from app.pictures.blob import Blobs
from app.pictures.picture import Picture
from app.pictures.work_folder import WorkFolder
from app.providers.transport import NotSent, Transport
from app.storage.gcs import Gcs
from tests.storage.conftest import BUCKET, Draw, client, png, sink
from tests.support.cloud_storage import CloudStorage

pytestmark = pytest.mark.anyio

NAME = "images/generated/text-to-image/20260101_000000_imagen4_text-to-image_0f ü~.png"
INSERT = "objects.insert"
UPLOADS = 16
SIZES = [
    pytest.param(0, id="in memory"),
    pytest.param(9 * 1024 * 1024, id="on disk"),
]


def stored(store: CloudStorage, bucket: str = BUCKET) -> dict[str, bytes]:
    """What is in a bucket: names and bytes."""
    names = [resource["name"] for resource in store.objects.list(bucket)]
    objects = {name: store.objects.get(bucket, name) for name in names}
    return {name: found.data for name, found in objects.items() if found}


@pytest.fixture
def red(drawn: Draw) -> Picture:
    return drawn("red")


@pytest.mark.parametrize("size", SIZES)
async def test_save_returns_a_url_that_shows_the_picture(
    store: CloudStorage, gcs: Gcs, drawn: Draw, size: int
) -> None:
    red = drawn("red", size)
    assert red.blob.in_memory == (size == 0)
    url = await gcs.save(NAME, red)
    assert url == (
        f"{store.url}/public/{BUCKET}/images/generated/text-to-image/"
        "20260101_000000_imagen4_text-to-image_0f%20%C3%BC~.png"
    )
    async with httpx.AsyncClient() as browser:
        seen = await browser.get(url)
    assert (seen.status_code, seen.content) == (200, png("red", size))
    assert seen.headers["content-type"] == "image/png"
    assert seen.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_save_is_one_request_that_gives_the_checksum(
    store: CloudStorage, gcs: Gcs, drawn: Draw
) -> None:
    await gcs.save(NAME, drawn("red", 9 * 1024 * 1024))
    (call,) = store.calls.list()
    assert (call.method, call.status) == (INSERT, 200)
    assert {key: call.body[key] for key in ("bucket", "uploadType", "ifGenerationMatch")} == {
        "bucket": BUCKET,
        "uploadType": "multipart",
        "ifGenerationMatch": "0",
    }
    assert set(call.body["resource"]) == {"name", "cacheControl", "contentType", "crc32c"}
    assert (await gcs.save(NAME, drawn("red"), again=True)).endswith("0f%20%C3%BC~.png")


async def test_a_picture_that_is_damaged_on_its_way_is_not_stored(
    store: CloudStorage, gcs: Gcs, blobs: Blobs
) -> None:
    blob = blobs.new(crc32c=True)
    blob.write(png("red"))
    blob._crc32c = google_crc32c.value(png("blue"))
    blob.seal()
    with pytest.raises(UpstreamFailed) as caught:
        await gcs.save(NAME, Picture(blob, "image/png", (8, 8)))
    assert caught.value.vendor_code == "400"
    assert (stored(store), store.statuses()) == ({}, [(INSERT, 400)])


async def test_save_takes_another_bucket(store: CloudStorage, gcs: Gcs, red: Picture) -> None:
    url = await gcs.save("a.png", red, bucket="their-bucket")
    assert url == f"{store.url}/public/their-bucket/a.png"
    assert (stored(store), stored(store, "their-bucket")) == ({}, {"a.png": png("red")})


async def test_save_again_keeps_the_first(store: CloudStorage, gcs: Gcs, drawn: Draw) -> None:
    assert await gcs.save(NAME, drawn("red")) == await gcs.save(NAME, drawn("blue"), again=True)
    assert stored(store) == {NAME: png("red")}
    assert store.statuses() == [(INSERT, 200), (INSERT, 412)]


async def test_a_name_that_is_taken_at_a_first_try_is_no_success(
    store: CloudStorage, gcs: Gcs, drawn: Draw
) -> None:
    await gcs.save(NAME, drawn("red"))
    with pytest.raises(UpstreamFailed) as caught:
        await gcs.save(NAME, drawn("blue"))
    assert caught.value.vendor_code == "412"


async def test_a_precondition_other_than_the_name_is_no_success(
    store: CloudStorage, gcs: Gcs, red: Picture
) -> None:
    errors = [{"reason": "orgPolicy"}]
    store.troubles.set("answer", arg={"status": 412, "body": {"error": {"code": 412, "errors": errors}}})
    with pytest.raises(UpstreamFailed):
        await gcs.save(NAME, red, again=True)


async def test_the_vendor_rehearses_the_trouble_that_was_asked_for(
    store: CloudStorage, transport: Transport, red: Picture
) -> None:
    hasty = client(transport, store.url, timeout_seconds=0.3)
    with pytest.raises(UpstreamUnavailable) as caught:
        await hasty.save(NAME, red, trouble="storage-down")
    assert caught.value.vendor_code == "503"
    assert stored(store) == {}


@pytest.mark.parametrize(
    ("kind", "arg", "first_try"),
    [
        pytest.param("drop", None, None, id="stored, answer lost"),
        pytest.param("storage-down", None, 503, id="503"),
        pytest.param("500", None, 500, id="500"),
        pytest.param("429", None, 429, id="429"),
        pytest.param("answer", {"status": 408, "body": {}}, 408, id="408"),
        pytest.param("answer", {"status": 502, "body": {}}, 502, id="502"),
        pytest.param("answer", {"status": 504, "body": {}}, 504, id="504"),
    ],
)
@pytest.mark.parametrize("size", SIZES)
async def test_save_tries_again_and_stores_once(
    store: CloudStorage, gcs: Gcs, drawn: Draw, kind: Kind, arg: Any, first_try: int | None, size: int
) -> None:
    store.troubles.set(kind, vendor="gcs", times=1, arg=arg)
    url = await gcs.save(NAME, drawn("red", size))
    assert stored(store) == {NAME: png("red", size)}
    assert store.statuses() == [(INSERT, first_try), (INSERT, 412 if kind == "drop" else 200)]
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(url)).content == png("red", size)


@pytest.mark.parametrize(
    "travel",
    [
        pytest.param(Travel(cut="before"), id="closed before the answer"),
        pytest.param(Travel(cut="before", reset=True), id="reset before the answer"),
        pytest.param(Travel(cut=10), id="closed in the answer"),
        pytest.param(Travel(timed_out=True), id="408 by the front end"),
    ],
)
async def test_an_answer_that_is_lost_after_storing_is_a_success_in_the_end(
    store: CloudStorage, gcs: Gcs, red: Picture, travel: Travel
) -> None:
    store.troubles.set(vendor="gcs", times=1, travel=travel)
    await gcs.save(NAME, red)
    assert stored(store) == {NAME: png("red")}
    assert len(store.calls.list()) == 2
    assert store.statuses()[-1] == (INSERT, 412)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409])
async def test_save_gives_up_at_once_when_another_try_is_of_no_use(
    store: CloudStorage, gcs: Gcs, red: Picture, status: int
) -> None:
    store.troubles.set("answer", vendor="gcs", arg={"status": status, "body": {"error": {"code": status}}})
    with pytest.raises(UpstreamFailed) as caught:
        await gcs.save(NAME, red)
    assert (caught.value.message, caught.value.vendor_code) == ("", str(status))
    assert store.statuses() == [(INSERT, status)]


@pytest.mark.parametrize("kind", ["storage-down", "hang"])
async def test_save_gives_up_when_its_time_is_over(
    store: CloudStorage, transport: Transport, red: Picture, kind: Kind
) -> None:
    hasty = client(transport, store.url, timeout_seconds=0.5)
    store.troubles.set(kind, vendor="gcs")
    with pytest.raises(UpstreamUnavailable) as caught:
        await hasty.save(NAME, red)
    assert caught.value.message == ""
    assert caught.value.__cause__ is not None
    assert stored(store) == {}


async def test_a_connection_on_which_nothing_moves_is_given_up(
    store: CloudStorage, gcs: Gcs, red: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.gcs._SILENCE_SECONDS", 0.5)
    store.troubles.set("hang", vendor="gcs", times=1)
    await gcs.save(NAME, red)
    assert stored(store) == {NAME: png("red")}
    assert len(store.calls.list()) == 2


async def test_a_slow_connection_on_which_something_moves_is_not_given_up(
    transport: Transport, drawn: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.gcs._SILENCE_SECONDS", 2.0)
    begun = asyncio.get_running_loop().time()
    async with sink(bytes_per_second=10_000_000) as (endpoint, heads):
        await client(transport, endpoint).save(NAME, drawn("red", 30_000_000))
    assert len(heads) == 1
    assert asyncio.get_running_loop().time() - begun > 2.5  # otherwise it shows nothing


async def test_save_without_a_store_is_unavailable(transport: Transport, red: Picture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    lonely = client(transport, endpoint, timeout_seconds=0.5)
    with pytest.raises(UpstreamUnavailable) as caught:
        await lonely.save(NAME, red)
    assert isinstance(caught.value.__cause__, UpstreamUnavailable)
    assert isinstance(caught.value.__cause__.__cause__, NotSent)
    assert caught.value.vendor_code == "NotSent"
    with pytest.raises(OSError, match="Connection refused"):
        await lonely.ready()


async def test_a_cancelled_save_ends_at_once_and_is_not_tried_again(
    store: CloudStorage, gcs: Gcs, drawn: Draw
) -> None:
    store.troubles.set("storage-down", vendor="gcs", times=1)
    saving = asyncio.create_task(gcs.save(NAME, drawn("red")))
    await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.finished for call in calls))
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await gcs.save("another.png", drawn("blue"))
    assert stored(store) == {"another.png": png("blue")}


async def test_at_most_sixteen_uploads_are_under_way(store: CloudStorage, gcs: Gcs, red: Picture) -> None:
    def all_under_way(calls: Any) -> bool:
        return len(calls) == UPLOADS and not any(call.finished for call in calls)

    store.troubles.set("hang", vendor="gcs")
    saving = [asyncio.create_task(gcs.save(f"{n}.png", red)) for n in range(UPLOADS + 1)]
    await asyncio.to_thread(store.calls.wait_for, all_under_way)
    assert gcs._slots.locked()
    store.troubles.clear()
    saving[0].cancel()
    assert (await saving[-1]).endswith(f"{UPLOADS}.png")
    for task in saving:
        task.cancel()
    await asyncio.wait(saving)


async def test_many_pictures_at_once_all_arrive(store: CloudStorage, gcs: Gcs, drawn: Draw) -> None:
    pictures = {f"{n}.png": f"rgb({n}, 0, 0)" for n in range(3 * UPLOADS)}
    urls = await asyncio.gather(*(gcs.save(name, drawn(colour)) for name, colour in pictures.items()))
    assert len(set(urls)) == len(pictures)
    assert stored(store) == {name: png(colour) for name, colour in pictures.items()}


async def test_nothing_is_held_after_an_upload(gcs: Gcs, drawn: Draw, blobs: Blobs, work: WorkFolder) -> None:
    await gcs.save("a.png", drawn("red"))
    await gcs.save("b.png", drawn("red", 2_000_000))
    blobs.close()
    assert (work.memory_used, work.disk_used) == (0, 0)


# The account


async def test_google_is_called_with_headers_of_the_account(
    store: CloudStorage, transport: Transport, red: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulator would be called without; so it plays Google."""
    async with sink() as (endpoint, heads):
        monkeypatch.setattr("app.storage.gcs._GOOGLE", endpoint)
        await account(transport, {"authorization": "Bearer a"}).save(NAME, red)
    (head,) = heads
    assert head.startswith(
        b"POST /upload/storage/v1/b/our-bucket/o?uploadType=multipart&ifGenerationMatch=0 "
    )
    assert b"\r\nauthorization: Bearer a\r\n" in head


@pytest.mark.parametrize("error", [UpstreamUnavailable(), UpstreamFailed()], ids=repr)
async def test_without_a_token_nothing_is_sent(
    transport: Transport, red: Picture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with sink() as (endpoint, heads):
        monkeypatch.setattr("app.storage.gcs._GOOGLE", endpoint)
        with pytest.raises(type(error)):
            await account(transport, error).save(NAME, red)
    assert heads == []


async def test_after_a_try_that_sent_nothing_a_taken_name_is_no_success(
    store: CloudStorage, transport: Transport, drawn: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.gcs._GOOGLE", store.url)
    away = UpstreamUnavailable()
    away.__cause__ = OSError()
    await account(transport, {}).save(NAME, drawn("red"))
    with pytest.raises(UpstreamFailed):
        await account(transport, away, {}, timeout_seconds=20).save(NAME, drawn("blue"))
    assert store.statuses() == [(INSERT, 200), (INSERT, 412)]


def account(transport: Transport, *headers: dict[str, str] | Exception, timeout_seconds: float = 0.3) -> Gcs:
    """The headers of one try after the other; the last ones are those of all further tries."""
    left = list(headers)

    async def credentials() -> dict[str, str]:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return found

    return Gcs(
        transport=transport,
        project="our-project",
        bucket=BUCKET,
        public_base_url="",
        endpoint=None,
        timeout_seconds=timeout_seconds,
        credentials=credentials,
    )


async def test_ready_asks_for_the_one_permission_it_needs(store: CloudStorage, gcs: Gcs) -> None:
    await gcs.ready()
    (call,) = store.calls.list()
    assert (call.method, call.body["permissions"]) == ("buckets.testIamPermissions", "storage.objects.create")


@pytest.mark.parametrize(
    "arg",
    [
        pytest.param({"status": 200, "body": {"permissions": []}}, id="not granted"),
        pytest.param({"status": 404, "body": {"error": {"code": 404}}}, id="no such bucket"),
        pytest.param({"status": 503, "body": {}}, id="down"),
    ],
)
async def test_ready_raises(store: CloudStorage, gcs: Gcs, arg: Any) -> None:
    store.troubles.set("answer", vendor="gcs", arg=arg)
    with pytest.raises((UpstreamFailed, google.api_core.exceptions.GoogleAPICallError)):
        await gcs.ready()
    assert len(store.calls.list()) == 1
