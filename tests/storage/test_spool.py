"""Pictures that outlive an outage and their process: the spool, with the real client and the emulated one."""

import asyncio
import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import google_crc32c
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.pictures.blob import Blob, Blobs
from app.pictures.pieces import PIECE_BYTES
from app.pictures.process_folder import ProcessFolder
from app.pictures.room import NoRoom
from app.pictures.work_folder import WorkFolder
from app.providers.transport import Transport
from app.storage import spool as module
from app.storage import spool_files
from app.storage.gcs import Gcs
from app.storage.spool import DiskSpool
from app.storage.spool_paths import object_of, relative
from tests.storage.conftest import BUCKET, client, png, sink
from tests.support.cloud_storage import CloudStorage
from tests.support.server_process import ROOT

pytestmark = pytest.mark.anyio

EVERY_SECONDS = 0.01


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[DiskSpool]:
    spool = DiskSpool(folder)
    yield spool
    spool.close()


@pytest.fixture
def hasty(store: CloudStorage, transport: Transport) -> Gcs:
    """A client that gives up soon."""
    return client(transport, store.url, timeout_seconds=0.3)


def files(folder: Path) -> list[Path]:
    """The pictures that have landed."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size and path.suffix != ".part"
    )


def partial(folder: Path) -> list[Path]:
    """Files that are being written, or wait to be written over."""
    return sorted(folder.rglob("*.part"))


def written(blobs: Blobs, data: bytes) -> Blob:
    blob = blobs.new()
    for at in range(0, len(data), 1000):
        blob.write(data[at : at + 1000])
    blob.seal()
    return blob


def checksum(data: bytes) -> bytes:
    value: int = google_crc32c.value(data)
    return value.to_bytes(4, "big")


async def landed(spool: DiskSpool, name: str, bucket: str = BUCKET, data: bytes = b"") -> Path:
    with spool.blobs(None) as blobs:
        return await spool.land(written(blobs, data or png("red")), bucket, name)


async def kept(spool: DiskSpool, name: str, bucket: str = BUCKET) -> Path:
    """A picture whose upload has failed."""
    path = await landed(spool, name, bucket)
    spool.release(path)
    return path


def names(store: CloudStorage, bucket: str = BUCKET) -> list[str]:
    return [resource["name"] for resource in store.objects.list(bucket)]


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────

FOLDERS = (
    st.just("")
    | st.text().map(lambda text: f"{text}/")
    | st.text("./%é", min_size=190, max_size=230).map(lambda text: f"{text}/")
)


@given(bucket=st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"])), folder=FOLDERS)
async def test_a_path_tells_bucket_and_name(bucket: str, folder: str) -> None:
    name = f"{folder}20260101_000000_img3_text-to-image_0f.png"
    path = relative(bucket, name, b"\0\1\xfe\xff")
    assert object_of(path) == (bucket, name, b"\0\1\xfe\xff")
    assert len(path.parts) > 1
    assert all(0 < len(os.fsencode(part)) <= 200 for part in path.parts)
    assert not {".", "..", ".lock"}.intersection(path.parts)


@pytest.mark.parametrize(
    "path",
    [
        "a.png",
        "b%2F/a.png",
        "b%2F/-a.png",
        "b%2F/00-a.png",
        "b%2F/0001FEFF-a.png",
        "b%2F/00 01 fe ff-a.png",
        "b%2F/0001feff-a.txt",
        "b%2F/.lock",
        "b/0001feff-a.png",
        "b%2f/0001feff-a.png",
        "b%2F/../0001feff-a.png",
        "notes/mine.png",
        "b%2F/x.part",
    ],
)
async def test_other_paths_are_no_pictures(path: str) -> None:
    assert object_of(Path(path)) is None


# ── landing ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_arrives_is_partial_until_it_lands(spool: DiskSpool, folder: Path) -> None:
    with spool.blobs(None) as blobs:
        blob = blobs.new()
        blob.write(b"half")
        (half,) = partial(folder)
        assert half.read_bytes() == b"half"
        blob.write(b" and half")
        blob.seal()
        path = await spool.land(blob, BUCKET, "images/a.png")
        assert (files(folder), partial(folder)) == ([path], [])
        assert b"".join(blob.pieces()) == path.read_bytes() == b"half and half"
    assert files(folder) == [path]  # it stays when its scope is closed
    inner = path.relative_to(folder)
    assert object_of(Path(*inner.parts[1:])) == (BUCKET, "images/a.png", blob.crc32c())
    spool.remove(path)
    spool.remove(path)
    assert files(folder) == []


async def test_what_never_lands_is_deleted(spool: DiskSpool, folder: Path) -> None:
    with spool.blobs(None) as blobs:
        blobs.new().write(b"half")
        blobs.of(b"whole")
        assert len(partial(folder)) == 2
    assert partial(folder) == []


async def test_files_are_written_over(spool: DiskSpool, folder: Path) -> None:
    """What is shorter than the picture before it ends where it ends."""
    first = await landed(spool, "a.png", data=png("red") + bytes(10_000))
    spool.remove(first)
    (used,) = partial(folder)
    node = used.stat().st_ino
    second = await landed(spool, "b.png", data=png("blue"))
    assert (second.read_bytes(), second.stat().st_ino, partial(folder)) == (png("blue"), node, [])


async def test_few_files_wait_to_be_written_over_and_not_for_long(
    spool: DiskSpool, folder: Path, hasty: Gcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_used(self: ProcessFolder) -> None:
        delete(self)
        deleted.set()

    paths = [await landed(spool, f"{number}.png") for number in range(40)]
    large = await landed(spool, "large.png", data=bytes(4_000_001))
    monkeypatch.setattr(module, "in_thread", lambda step: step())
    for path in (large, *paths):
        spool.remove(path)
    assert len(partial(folder)) == 32
    delete, deleted = ProcessFolder.delete_used, threading.Event()
    monkeypatch.setattr(ProcessFolder, "delete_used", delete_used)
    running = asyncio.create_task(spool.run(hasty, EVERY_SECONDS))
    await asyncio.to_thread(deleted.wait)
    assert partial(folder) == []
    running.cancel()
    await asyncio.wait((running,))


async def test_before_the_disk_is_called_full_used_files_are_deleted(
    spool: DiskSpool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(own: ProcessFolder, min_free_bytes: int) -> None:
        if partial(folder):
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("app.storage.spool.try_to_write", write)
    spool.remove(await landed(spool, "a.png"))
    assert await spool.ready() is None


async def test_a_picture_from_elsewhere_is_copied(spool: DiskSpool, folder: Path, blobs: Blobs) -> None:
    in_memory, on_disk = blobs.of(png("red")), blobs.of(png("blue", 1_500_000))
    for number, blob in enumerate((in_memory, on_disk)):
        path = await spool.land(blob, BUCKET, f"{number}.png")
        assert path.read_bytes() == b"".join(blob.pieces())
    assert len(files(folder)) == 2


async def test_files_are_for_the_owner_only(spool: DiskSpool, folder: Path) -> None:
    path = await landed(spool, "a.png")
    own = folder / path.relative_to(folder).parts[0]
    assert [stat.S_IMODE(os.stat(one).st_mode) for one in (folder, own, path)] == [0o700, 0o700, 0o600]


async def test_with_fsync_files_and_folders_are_synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = DiskSpool(folder, fsync=True)
    synced: list[Path] = []
    sync = spool_files.sync

    def note(*paths: Path) -> None:
        synced.extend(paths)
        sync(*paths)

    monkeypatch.setattr(module, "sync", note)
    path = await landed(spool, "a.png")
    assert synced[0].suffix == ".part"
    assert synced[1:] == [path.parent, path.parent.parent, folder]
    spool.close()


async def test_a_caller_who_leaves_during_fsync_takes_nothing_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(self: DiskSpool, *paths: Path) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(DiskSpool, "_synced", hang)
    spool = DiskSpool(folder, fsync=True)
    caller = asyncio.create_task(landed(spool, "a.png"))
    await begun.wait()
    caller.cancel()
    await asyncio.wait((caller,))
    (path,) = files(folder)
    assert path.name.endswith("-a.png")
    spool.close()


# ── uploads ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_picture_lands_under_its_promised_url_when_the_store_is_back(
    store: CloudStorage, gcs: Gcs, hasty: Gcs, spool: DiskSpool, folder: Path
) -> None:
    store.troubles.set("storage-down")
    await kept(spool, "images/ü 1.png")
    assert await spool.drain(hasty) == 0
    assert len(files(folder)) == 1

    store.troubles.clear()
    assert await spool.drain(gcs) == 1
    assert files(folder) == []
    async with httpx.AsyncClient() as browser:
        seen = await browser.get(f"{store.url}/public/{BUCKET}/images/%C3%BC%201.png")
    assert (seen.status_code, seen.content, seen.headers["content-type"]) == (200, png("red"), "image/png")
    assert seen.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_the_bucket_that_was_asked_for_is_remembered(
    store: CloudStorage, gcs: Gcs, spool: DiskSpool
) -> None:
    await kept(spool, "a.png", "their-bucket")
    assert await spool.drain(gcs) == 1
    assert names(store, "their-bucket") == ["a.png"]


async def test_the_oldest_goes_first(
    store: CloudStorage, gcs: Gcs, folder: Path, spool: DiskSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UPLOADS", 1)
    wanted = ["c.png", "a.png", "b.png"]
    for name in wanted:
        await kept(spool, name)
    assert await spool.drain(gcs) == 3
    assert [call.body["resource"]["name"] for call in store.calls.list()] == wanted


async def test_what_had_arrived_after_all_is_removed(
    store: CloudStorage, gcs: Gcs, spool: DiskSpool, folder: Path
) -> None:
    for _ in range(2):
        await kept(spool, "a.png")
        assert await spool.drain(gcs) == 1
    assert files(folder) == []
    assert store.statuses() == [("objects.insert", 200), ("objects.insert", 412)]


async def test_refused_ones_stop_nobody_and_are_tried_less_and_less(
    store: CloudStorage, gcs: Gcs, spool: DiskSpool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UPLOADS", 1)
    store.troubles.set("answer", vendor="gcs", times=20, arg={"status": 403, "body": {}})
    for number in range(20):
        await kept(spool, f"{number:02}.png")
    await kept(spool, "good.png")
    assert await spool.drain(gcs, 10) == 1
    assert await spool.drain(gcs, 10) == 0  # not due
    assert (names(store), len(files(folder)), len(store.calls.list())) == (["good.png"], 20, 21)

    store.troubles.set("answer", vendor="gcs", times=1000, arg={"status": 403, "body": {}})
    pauses = []
    for _ in range(10):
        pauses.append({one.pause for one in spool._waiting.values()})
        for one in spool._waiting.values():
            one.due = 0
        await spool.drain(gcs, 10)
    assert pauses == [{min(10 * 2**number, 3600)} for number in range(10)]


async def test_while_storage_is_down_few_are_tried(
    store: CloudStorage, gcs: Gcs, hasty: Gcs, spool: DiskSpool
) -> None:
    store.troubles.set("storage-down")
    for number in range(40):
        await kept(spool, f"{number:02}.png")
    assert await spool.drain(hasty) == 0
    assert len({call.body["resource"]["name"] for call in store.calls.list()}) < 20
    store.troubles.clear()
    assert await spool.drain(gcs) == 40


async def test_a_damaged_picture_is_not_uploaded(store: CloudStorage, gcs: Gcs, spool: DiskSpool) -> None:
    """A power cut may leave a file shorter than it was, or with the picture that was in it before."""
    for name, data in (("empty.png", b""), ("half.png", png("red")[:40]), ("another.png", png("blue"))):
        path = await kept(spool, name)
        path.write_bytes(data)
    await kept(spool, "good.png")
    assert await spool.drain(gcs) == 1
    assert names(store) == ["good.png"]


async def test_a_large_picture_is_never_whole_in_memory(
    folder: Path, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = DiskSpool(folder)
    async with sink() as (endpoint, heads):
        gcs = client(transport, endpoint)
        await kept(spool, "warm.png")
        await spool.drain(gcs)
        tracemalloc.start()
        try:
            with spool.blobs(None) as blobs:
                blob = blobs.new()
                blob.write(png("red"))
                for _ in range(320):
                    blob.write(bytes(PIECE_BYTES))
                blob.seal()
                spool.release(await spool.land(blob, BUCKET, "a.png"))
            assert await spool.drain(gcs) == 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (len(heads), files(folder)) == (2, [])
    assert peak < 2_000_000
    spool.close()


async def test_run_uploads_when_the_store_is_back_and_ends_when_cancelled(
    store: CloudStorage, hasty: Gcs, spool: DiskSpool
) -> None:
    store.troubles.set("storage-down")
    await kept(spool, "a.png")
    running = asyncio.create_task(spool.run(hasty, EVERY_SECONDS))
    await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.finished for call in calls))
    store.troubles.clear()
    await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.status == 200 for call in calls))

    await kept(spool, "b.png")  # it goes on
    await asyncio.to_thread(
        store.calls.wait_for, lambda calls: sum(call.status == 200 for call in calls) == 2
    )
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert names(store) == ["a.png", "b.png"]


async def test_pictures_that_cannot_be_uploaded_are_told_until_they_are(
    store: CloudStorage, hasty: Gcs, spool: DiskSpool
) -> None:
    store.troubles.set("storage-down")
    await kept(spool, "a.png")
    assert await spool.ready() is None
    await spool.drain(hasty, 10)
    assert await spool.ready() == "pictures wait that cannot be uploaded"
    store.troubles.clear()
    for one in spool._waiting.values():
        one.due = 0
    await spool.drain(hasty, 10)
    assert await spool.ready() is None


async def test_a_folder_that_is_away_may_come_back(
    store: CloudStorage, gcs: Gcs, spool: DiskSpool, folder: Path
) -> None:
    await kept(spool, "a.png")
    away = folder.with_name("away")
    os.rename(folder, away)
    with pytest.raises(NoRoom, match=str(folder)):
        await landed(spool, "b.png")
    assert await spool.drain(gcs) == 0
    os.rename(away, folder)
    assert await spool.drain(gcs) == 1


async def test_a_folder_that_was_deleted_is_made_again(
    store: CloudStorage, gcs: Gcs, spool: DiskSpool, folder: Path
) -> None:
    await kept(spool, "a.png")
    shutil.rmtree(folder)
    await spool.ready()
    await kept(spool, "b.png")
    assert await spool.drain(gcs) == 1
    assert (names(store), files(folder)) == (["b.png"], [])


# ── other processes ──────────────────────────────────────────────────────────────────────────────────────

HOLDER = """
import asyncio, sys
from pathlib import Path
from app.storage.spool import DiskSpool

async def main():
    spool = DiskSpool(Path(sys.argv[1]))
    blobs = spool.blobs(None)
    for name in sys.argv[2:]:
        blob = blobs.of(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
        await spool.land(blob, "our-bucket", name)
    blobs.new().write(b"half a picture")
    print("ready", flush=True)
    sys.stdin.buffer.read()

asyncio.run(main())
"""


@contextmanager
def process(folder: Path, *wanted: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process in whose hands these pictures are, and one of which a half has arrived."""
    command = [sys.executable, "-c", HOLDER, str(folder), *wanted]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as running:
        assert running.stdin
        assert running.stdout
        data = png("red")
        for _ in wanted:
            running.stdin.write(b"%d\n" % len(data) + data)
        running.stdin.flush()
        assert running.stdout.readline() == b"ready\n"
        try:
            yield running
        finally:
            running.kill()


async def test_what_a_killed_process_has_left_is_uploaded(
    store: CloudStorage, gcs: Gcs, spool: DiskSpool, folder: Path
) -> None:
    with process(folder, "a.png", "there/ü.png") as other:
        assert await spool.take_over() == 0  # it is alive
        (folder / "notes.txt").write_text("mine")
        own = next(path for path in folder.iterdir() if len(files(path)) > 1)
        (own / "notes.txt").write_text("mine, too")
        assert (len(files(folder)), len(partial(own))) == (4, 1)
        other.kill()
        other.wait()
        assert await spool.take_over() == 2
        assert await spool.take_over() == 0
        assert await spool.drain(gcs) == 2
    assert names(store) == ["a.png", "there/ü.png"]
    assert files(folder) == sorted([folder / "notes.txt", own / "notes.txt"])
    (own / "notes.txt").unlink()
    await spool.take_over()
    assert not own.exists()


async def test_what_a_start_finds_is_uploaded_at_once(store: CloudStorage, gcs: Gcs, folder: Path) -> None:
    first = DiskSpool(folder)
    await kept(first, "kept.png")
    first.close()
    second = DiskSpool(folder)
    running = asyncio.create_task(second.run(gcs, 3600))
    await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.status == 200 for call in calls))
    running.cancel()
    await asyncio.wait((running,))
    second.close()


async def test_two_processes_never_work_on_one_file(store: CloudStorage, gcs: Gcs, folder: Path) -> None:
    wanted = [f"{number:02}.png" for number in range(12)]
    with process(folder, *wanted) as other:
        other.kill()
        other.wait()
    spools = [DiskSpool(folder) for _ in range(4)]
    found = await asyncio.gather(*(spool.take_over() for spool in spools))
    with capture_logs() as logs:
        arrived = await asyncio.gather(*(spool.drain(gcs) for spool in spools))
    assert (sum(found), found) == (len(wanted), arrived)
    assert {entry["log_level"] for entry in logs} == {"info"}
    assert store.statuses() == [("objects.insert", 200)] * len(wanted)
    for spool in spools:
        spool.close()
    assert names(store) == wanted
    assert [path.name for path in folder.iterdir()] == [".lock"]


async def test_what_is_left_at_the_end_is_for_the_next_one(
    store: CloudStorage, gcs: Gcs, folder: Path
) -> None:
    first = DiskSpool(folder)
    await landed(first, "released.png")
    await kept(first, "kept.png")
    first.close()
    second = DiskSpool(folder)
    assert await second.take_over() == 2
    assert await second.drain(gcs) == 2
    second.close()
    assert [path.name for path in folder.iterdir()] == [".lock"]


async def test_ten_thousand_files_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = folder / "spool-dead"
    for number in range(10_000):
        path = dead / relative(BUCKET, f"images/{number % 10}/{number}.png", bytes(4))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a")
    spool = DiskSpool(folder)
    assert len(files(dead)) == 10_000  # a start does not wait for them
    await landed(spool, "images/7/7_0.png")
    touched: list[Path] = []
    for module_, name in ((os, "scandir"), (Blobs, "existing")):
        monkeypatch.setattr(module_, name, watched(getattr(module_, name), touched))
    assert await spool.find(BUCKET, "images/7/7_") == ["images/7/7_0.png"]
    monkeypatch.undo()
    (own,) = (one for one in folder.glob("spool-*") if one != dead)
    place = relative(BUCKET, "images/7/7_0.png", checksum(png("red")))
    once = [folder, dead / place.parent, own / place.parent, own / place]
    assert sorted(touched) == sorted(2 * once)  # neither further folders nor other files
    (own / place).unlink()
    assert await spool.take_over() == 10_000
    assert not dead.exists()
    spool.close()


def watched(step: Callable[..., Any], touched: list[Path]) -> Callable[..., Any]:
    def watched(*args: Any) -> Any:
        touched.append(Path(args[-1]))
        return step(*args)

    return watched


# ── found by the beginning of their names ────────────────────────────────────────────────────────────────

STEM = "images/generated/text-to-image/20260101_000000_imagen4_text-to-image_0f"


async def test_pictures_are_found_by_their_stem_in_every_process_s_folder(
    folder: Path, spool: DiskSpool
) -> None:
    sibling, dying = DiskSpool(folder), DiskSpool(folder)
    await landed(spool, f"{STEM}-0.png")
    await kept(sibling, f"{STEM}-1.png")
    await landed(dying, f"{STEM}-2.png")
    for name, bucket in (
        (f"{STEM}-3.png", "their-bucket"),
        ("other.png", BUCKET),
        (f"x/{STEM}-4.png", BUCKET),
    ):
        await landed(spool, name, bucket)
    spool.remove(await landed(spool, f"{STEM}-5.png"))
    (await landed(spool, f"{STEM}-6.png")).write_bytes(b"what a power cut has left")
    (folder / "spool-notes").write_text("no folder")
    dying.close()
    before = files(folder)
    assert await spool.find(BUCKET, STEM) == [f"{STEM}-0.png", f"{STEM}-1.png", f"{STEM}-2.png"]
    assert await spool.find(BUCKET, f"{STEM}-2") == [f"{STEM}-2.png"]
    assert await spool.find("no-bucket", STEM) == []
    assert files(folder) == before
    sibling.close()


@pytest.mark.parametrize("stem", ["é ü%/0f", "0f", f"{'deep/' * 100}0f"])
async def test_any_stem_is_found(spool: DiskSpool, stem: str) -> None:
    await landed(spool, f"{stem}-0.png")
    assert await spool.find(BUCKET, stem) == [f"{stem}-0.png"]


async def test_what_is_taken_over_meanwhile_is_found(
    folder: Path, spool: DiskSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file moves from a folder that is looked into next to one that was looked into before."""
    old = DiskSpool(folder)
    await landed(old, f"{STEM}-0.png")
    old.close()
    (own, dead) = sorted(folder.glob("spool-*"), key=lambda one: bool(files(one)))
    place = relative(BUCKET, f"{STEM}-0.png", checksum(png("red")))
    real = os.scandir
    looked: list[Path] = []

    def move_late(path: Path) -> Any:
        if path == folder:
            return nullcontext(sorted(real(path), key=lambda entry: entry.path == str(dead)))
        if path == dead / place.parent and not looked:
            looked.append(path)
            (own / place).parent.mkdir(parents=True)
            (dead / place).rename(own / place)
        return real(path)

    monkeypatch.setattr(os, "scandir", move_late)
    assert await spool.find(BUCKET, STEM) == [f"{STEM}-0.png"]
    assert looked


async def test_without_the_spool_s_folder_nothing_can_be_said(folder: Path, spool: DiskSpool) -> None:
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        await spool.find(BUCKET, STEM)


# ── the first edition ────────────────────────────────────────────────────────────────────────────────────


def first_edition(name: str, data: bytes) -> bytes:
    label = '{"name":"%s","bucket":"%s","mime_type":"image/png","size":[8,8],"bytes":%d}\n'
    return (label % (name, BUCKET, len(data))).encode() + data


async def test_pictures_of_the_first_edition_are_uploaded_and_foreign_files_left_alone(
    store: CloudStorage, gcs: Gcs, folder: Path
) -> None:
    folder.mkdir(parents=True)
    whole = first_edition("first/a.png", png("blue"))
    left = {
        "0-empty.picture": b"",
        "0-no-json.picture": b"{\n",
        "0-foreign.picture": b'{"a": 1}\n',
        "0-endless.picture": b"x" * 100_000,
        "0-cut.picture": whole[:-1],
        "0-longer.picture": whole + b"x",
        "notes.txt": b"mine",
        ".unfinished": whole[:20],
    }
    for name, content in left.items():
        (folder / name).write_bytes(content)
    (folder / "0-folder.picture").mkdir()
    (folder / "0-link.picture").symlink_to("/dev/zero")
    (folder / "1.picture").write_bytes(whole)
    (folder / "2.picture").write_bytes(first_edition("b.png", png("red")))
    spool = DiskSpool(folder)
    assert await spool.take_over() == 2
    spool.close()  # as if killed before the upload

    spool = DiskSpool(folder)
    assert await spool.take_over() == 2
    assert await spool.drain(gcs) == 2
    spool.close()
    found = store.objects.get(BUCKET, "first/a.png")
    assert found
    assert (names(store), found.data) == (["b.png", "first/a.png"], png("blue"))
    assert {path.name for path in folder.iterdir()} == {*left, ".lock", "0-folder.picture", "0-link.picture"}


# ── full disks ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def full_disk(bytes_left: int = 100) -> Iterator[None]:
    """No file may grow over so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 999, 1000, 4321])
async def test_a_picture_that_finds_no_room_on_the_way_goes_on_elsewhere(
    tmp_path: Path, spool: DiskSpool, folder: Path, room: int
) -> None:
    data = png("red", 9000)
    with WorkFolder(tmp_path / "work") as work, work.blobs() as spare, spool.blobs(spare) as blobs:
        blob = blobs.new()
        with full_disk(room):
            for at in range(0, len(data), 1000):
                blob.write(data[at : at + 1000])
            blob.seal()
            assert files(folder) == []
            assert (blob.in_memory, b"".join(blob.pieces())) == (True, data)
            with pytest.raises(NoRoom, match="File too large"):
                await spool.land(blob, BUCKET, "a.png")
        path = await spool.land(blob, BUCKET, "a.png")  # there is room again
        assert path.read_bytes() == data
    assert (work.memory_used, work.disk_used, files(folder)) == (0, 0, [path])


async def test_without_any_room_it_is_told(tmp_path: Path, spool: DiskSpool, folder: Path) -> None:
    with WorkFolder(tmp_path / "work", memory_bytes=0, max_bytes=2000) as work:
        with work.blobs() as spare, spool.blobs(spare) as blobs, full_disk(1500):
            blob = blobs.new()
            blob.write(bytes(1400))
            with pytest.raises(NoRoom):
                blob.write(bytes(1400))
        assert (work.disk_used, files(folder), len(files(work.path))) == (0, [], 0)


async def test_ready_names_the_folder(folder: Path, spool: DiskSpool) -> None:
    await spool.ready()
    with full_disk(0), pytest.raises(OSError, match="File too large") as caught:
        await spool.ready()
    assert caught.value.filename == str(folder)
    assert files(folder) == []
    wanting = DiskSpool(folder, min_free_bytes=10**18)
    with pytest.raises(OSError, match="No space left") as caught:
        await wanting.ready()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(folder))
    wanting.close()
