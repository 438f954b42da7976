"""Pictures that outlive an outage: the spool, with the real client and the emulated store."""

import asyncio
import os
import resource
import stat
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.pictures.blob import PIECE_BYTES, Blobs
from app.pictures.picture import Picture
from app.pictures.work_folder import WorkFolder
from app.providers.transport import Transport
from app.storage.gcs import Gcs
from app.storage.spool import Spool
from tests.cloud_storage import CloudStorage
from tests.storage.conftest import BUCKET, Draw, client, png, sink

pytestmark = pytest.mark.anyio

EVERY_SECONDS = 0.01


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "spool"


@pytest.fixture
def spool(folder: Path, work: WorkFolder) -> Spool:
    return Spool(folder, work)


@pytest.fixture
def red(drawn: Draw) -> Picture:
    return drawn("red")


@pytest.fixture
def hasty(store: CloudStorage, transport: Transport) -> Gcs:
    """A client that gives up soon."""
    return client(transport, store.url, timeout_seconds=0.3)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def test_a_picture_lands_under_its_promised_url_when_the_store_is_back(
    store: CloudStorage, gcs: Gcs, hasty: Gcs, spool: Spool, folder: Path, work: WorkFolder, red: Picture
) -> None:
    name = "images/ü 1.png"
    store.troubles.set("storage-down")
    with pytest.raises(UpstreamUnavailable):
        await hasty.save(name, red)
    await spool.keep(name, red, BUCKET)
    assert await spool.drain(hasty) == 0
    assert len(files(folder)) == 1

    store.troubles.clear()
    assert await Spool(folder, work).drain(gcs) == 1  # as after a restart
    assert files(folder) == []
    async with httpx.AsyncClient() as browser:
        seen = await browser.get(f"{store.url}/public/{BUCKET}/images/%C3%BC%201.png")
    assert (seen.status_code, seen.content, seen.headers["content-type"]) == (200, png("red"), "image/png")
    assert seen.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_what_is_kept_is_for_the_owner_only(spool: Spool, folder: Path, red: Picture) -> None:
    await spool.keep("a.png", red, BUCKET)
    (file,) = files(folder)
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (folder, file)]
    assert modes == [0o700, 0o600]


async def test_the_bucket_that_was_asked_for_is_remembered(
    store: CloudStorage, gcs: Gcs, spool: Spool, red: Picture
) -> None:
    await spool.keep("a.png", red, "their-bucket")
    assert await spool.drain(gcs) == 1
    assert [resource["name"] for resource in store.objects.list("their-bucket")] == ["a.png"]


async def test_the_oldest_goes_first(store: CloudStorage, gcs: Gcs, spool: Spool, red: Picture) -> None:
    names = ["c.png", "a.png", "b.png"]
    for name in names:
        await spool.keep(name, red, BUCKET)
    assert await spool.drain(gcs) == 3
    assert [call.body["resource"]["name"] for call in store.calls.list()] == names


async def test_what_had_arrived_after_all_is_removed(
    store: CloudStorage, gcs: Gcs, spool: Spool, red: Picture
) -> None:
    await gcs.save("a.png", red)
    await spool.keep("a.png", red, BUCKET)
    assert await spool.drain(gcs) == 1
    assert await spool.drain(gcs) == 0
    assert store.statuses() == [("objects.insert", 200), ("objects.insert", 412)]


async def test_one_that_is_refused_does_not_stop_the_rest(
    store: CloudStorage, gcs: Gcs, spool: Spool, folder: Path, red: Picture
) -> None:
    store.troubles.set("answer", vendor="gcs", times=1, arg={"status": 403, "body": {}})
    for name in ("a.png", "b.png"):
        await spool.keep(name, red, BUCKET)
    with capture_logs() as logs:
        assert await spool.drain(gcs) == 1
    assert [entry["log_level"] for entry in logs] == ["warning", "info"]
    assert [resource["name"] for resource in store.objects.list(BUCKET)] == ["b.png"]
    assert len(files(folder)) == 1
    assert await spool.drain(gcs) == 1


async def test_files_that_are_not_ours_are_left_alone(
    store: CloudStorage, gcs: Gcs, spool: Spool, folder: Path, red: Picture
) -> None:
    await spool.keep("first.png", red, BUCKET)
    (whole,) = (file.read_bytes() for file in files(folder))
    broken = {
        "0-empty.picture": b"",
        "0-no-json.picture": b"{\n",
        "0-foreign.picture": b'{"a": 1}\n',
        "0-endless.picture": b"x" * 100_000,
        "0-cut.picture": whole[:-1],
        "0-longer.picture": whole + b"x",
        "notes.txt": b"mine",
        ".unfinished": whole[:20],
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    (folder / "0-folder.picture").mkdir()
    (folder / "0-link.picture").symlink_to("/dev/zero")
    with capture_logs() as logs:
        assert await spool.drain(gcs) == 1
    warned = {entry["file"] for entry in logs if entry["log_level"] == "warning"}
    assert warned == {name for name in broken if name.startswith("0-")}
    assert {file.name for file in files(folder)} == {*broken, "0-folder.picture", "0-link.picture"}
    assert [resource["name"] for resource in store.objects.list(BUCKET)] == ["first.png"]


async def test_processes_that_share_a_folder_do_not_trip_over_each_other(
    store: CloudStorage, gcs: Gcs, folder: Path, work: WorkFolder, red: Picture
) -> None:
    spools = [Spool(folder, work) for _ in range(4)]
    names = [f"{n:02}.png" for n in range(12)]
    await asyncio.gather(*(spools[n % 4].keep(name, red, BUCKET) for n, name in enumerate(names)))
    with capture_logs() as logs:
        arrived = await asyncio.gather(*(spool.drain(gcs) for spool in spools))
    assert sum(arrived) == len(names)
    assert {entry["log_level"] for entry in logs} == {"info"}
    assert [resource["name"] for resource in store.objects.list(BUCKET)] == names
    assert files(folder) == []


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow over 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_picture_that_cannot_be_kept_is_told(spool: Spool, folder: Path, red: Picture) -> None:
    with full_disk(), pytest.raises(UpstreamFailed) as caught:
        await spool.keep("a.png", red, BUCKET)
    assert isinstance(caught.value.__cause__, OSError)
    assert files(folder) == []


async def test_a_large_picture_is_kept_and_uploaded_without_being_whole_in_memory(
    folder: Path, tmp_path: Path, transport: Transport
) -> None:
    with WorkFolder(tmp_path / "work", blob_memory_bytes=PIECE_BYTES) as work, work.blobs() as blobs:
        blob = blobs.new()
        for _ in range(320):
            blob.write(bytes(PIECE_BYTES))
        blob.seal()
        spool, large = Spool(folder, work), Picture(blob, "image/png", (8, 8))
        async with sink() as (endpoint, heads):
            gcs = client(transport, endpoint)
            await gcs.save("warm.png", large)
            tracemalloc.start()
            try:
                await spool.keep("a.png", large, BUCKET)
                assert await spool.drain(gcs) == 1
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert len(heads) == 2
        assert blob.length == 320 * PIECE_BYTES
        assert peak < 2_000_000
        blobs.close()
        assert (work.memory_used, work.disk_used, files(folder)) == (0, 0, [])


async def test_no_copy_is_left_when_an_upload_fails(
    store: CloudStorage, hasty: Gcs, spool: Spool, work: WorkFolder, blobs: Blobs, red: Picture
) -> None:
    store.troubles.set("storage-down")
    await spool.keep("a.png", red, BUCKET)
    blobs.close()
    assert await spool.drain(hasty) == 0
    assert (work.memory_used, work.disk_used) == (0, 0)


async def test_without_room_for_a_copy_the_picture_stays(
    store: CloudStorage, gcs: Gcs, folder: Path, tmp_path: Path, red: Picture
) -> None:
    with WorkFolder(tmp_path / "full", memory_bytes=0, max_bytes=10) as full:
        spool = Spool(folder, full)
        await spool.keep("a.png", red, BUCKET)
        assert await spool.drain(gcs) == 0
    assert (len(files(folder)), len(store.calls.list())) == (1, 0)


async def test_run_uploads_when_the_store_is_back_and_ends_when_cancelled(
    store: CloudStorage, hasty: Gcs, spool: Spool, folder: Path, red: Picture
) -> None:
    store.troubles.set("storage-down")
    await spool.keep("a.png", red, BUCKET)
    running = asyncio.create_task(spool.run(hasty, EVERY_SECONDS))
    await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.finished for call in calls))
    store.troubles.clear()
    await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.status == 200 for call in calls))

    await spool.keep("b.png", red, BUCKET)  # it goes on
    await asyncio.to_thread(
        store.calls.wait_for, lambda calls: sum(call.status == 200 for call in calls) == 2
    )
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [resource["name"] for resource in store.objects.list(BUCKET)] == ["a.png", "b.png"]


async def test_run_outlives_a_folder_that_is_away(
    store: CloudStorage, gcs: Gcs, spool: Spool, folder: Path, red: Picture
) -> None:
    away = folder.with_name("away")
    os.rename(folder, away)
    with capture_logs() as logs:
        running = asyncio.create_task(spool.run(gcs, EVERY_SECONDS))
        while not logs:  # noqa: ASYNC110 - a log is no event
            await asyncio.sleep(EVERY_SECONDS)
        os.rename(away, folder)
        await spool.keep("a.png", red, BUCKET)
        await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.status == 200 for call in calls))
        running.cancel()
    assert logs[0]["event"] == "the spool cannot be read"
