"""Pictures that only the gateway reads, in a folder and in a bucket of the emulated store."""

import asyncio
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image
from structlog.testing import capture_logs

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.emulator.travel import Travel
from app.emulator.trouble import Kind
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import Picture, recognise
from app.pictures.room import NoRoom
from app.pictures.work_folder import WorkFolder
from app.providers.transport import Transport
from app.storage import gcs_objects
from app.storage.gcs import Gcs
from app.storage.private import PrivateStore
from tests.storage.conftest import client, png
from tests.support.cloud_storage import CloudStorage
from tests.support.server_process import ROOT

pytestmark = pytest.mark.anyio

PRIVATE = "our-bucket-private"
PLACES = ["folder", f"gs://{PRIVATE}/a/prefix", f"gs://{PRIVATE}"]
STEM, OTHER = "0123456789abcdef" * 2, "0123456789abcdee" * 2


@pytest.fixture(params=PLACES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "deep" / "private") if request.param == "folder" else str(request.param)


@pytest.fixture
def private(where: str, gcs: Gcs) -> PrivateStore:
    return PrivateStore(where, gcs)


@pytest.fixture
def folder(tmp_path: Path, gcs: Gcs) -> tuple[PrivateStore, Path]:
    return PrivateStore(str(tmp_path / "private"), gcs), tmp_path / "private"


@pytest.fixture
def bucket(gcs: Gcs) -> PrivateStore:
    return PrivateStore(f"gs://{PRIVATE}", gcs)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little of it."""
    monkeypatch.setattr(gcs_objects, "_SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(gcs_objects, "_AGAIN_SECONDS", 0.3)


def encoded(format: str, side: int = 8) -> bytes:
    """Noise, which no format makes much smaller."""
    file = BytesIO()
    Image.frombytes("RGB", (side, side), Random(7).randbytes(3 * side * side)).save(file, format)
    return file.getvalue()


def bytes_of(picture: Picture) -> bytes:
    return b"".join(picture.blob.pieces())


async def found(private: PrivateStore, blobs: Blobs, stem: str = STEM) -> list[bytes]:
    return [bytes_of(picture) for picture in (await private.find(stem, blobs)).values()]


async def test_what_is_kept_is_found_whole_and_in_order(private: PrivateStore, blobs: Blobs) -> None:
    kept = {
        f"{STEM}-10.gif": ("image/gif", encoded("GIF")),
        f"{STEM}-0.png": ("image/png", encoded("PNG", 700)),
        f"{STEM}-2.jpg": ("image/jpeg", encoded("JPEG")),
        f"{STEM}-1.webp": ("image/webp", encoded("WEBP")),
        f"{OTHER}-0.png": ("image/png", png("red")),
    }
    assert await private.find(STEM, blobs) == {}
    for name, (_, data) in kept.items():
        await private.keep(name, recognise(blobs.of(data)))
    with blobs.another() as mine:
        pictures = list((await private.find(STEM, mine)).values())
        assert [picture.blob.in_memory for picture in pictures] == [False, True, True, True]
        assert {picture.blob.scope for picture in pictures} == {mine}
        assert [(picture.mime_type, bytes_of(picture)) for picture in pictures] == [
            kept[f"{STEM}-{name}"] for name in ("0.png", "1.webp", "2.jpg", "10.gif")
        ]
        assert await found(private, mine, "f" * 32) == []
    assert len(await private.find(STEM, blobs)) == 4  # blobs were copies


async def test_keeping_again_is_success(private: PrivateStore, blobs: Blobs) -> None:
    red = recognise(blobs.of(encoded("PNG", 300)))
    await asyncio.gather(*(private.keep(f"{STEM}-0.png", red) for _ in range(8)))
    await private.keep(f"{STEM}-0.png", red)
    assert await found(private, blobs) == [encoded("PNG", 300)]


async def test_what_is_removed_is_gone(private: PrivateStore, blobs: Blobs) -> None:
    for name in (f"{STEM}-0.png", f"{STEM}-1.png", f"{OTHER}-0.png"):
        await private.keep(name, recognise(blobs.of(png("red"))))
    for _ in range(2):  # removing again is success
        await private.remove(STEM)
        assert await found(private, blobs) == []
    assert await found(private, blobs, OTHER) == [png("red")]


@pytest.mark.parametrize(
    "wrong",
    ["", "*", "..", "/etc", STEM[:-1], f"{STEM}0", f"{STEM}\n", STEM.upper(), f"../{STEM}", f"{STEM}/.."],
)
async def test_other_names_and_stems_are_refused(private: PrivateStore, blobs: Blobs, wrong: str) -> None:
    picture = recognise(blobs.of(png("red")))
    names = [f"{wrong}-0.png", f"{STEM}-{wrong}.png", f"{STEM}-0.{wrong}", f"{wrong}/{STEM}-0.png"]
    for step in (
        private.find(wrong, blobs),
        private.remove(wrong),
        *(private.keep(n, picture) for n in names),
    ):
        with pytest.raises(ValueError, match="private picture"):
            await step


async def test_what_is_old_is_swept(private: PrivateStore, blobs: Blobs) -> None:
    for stem in (STEM, OTHER):
        await private.keep(f"{stem}-0.png", recognise(blobs.of(png("red"))))
    assert await private.sweep(3600) == 0
    assert len(await private.find(STEM, blobs)) == 1
    await asyncio.sleep(0.01)  # a time of files and objects has milliseconds
    assert await private.sweep(0) == 2
    assert await private.sweep(0) == 0
    assert await found(private, blobs) == await found(private, blobs, OTHER) == []


# ── a process that dies, and one that is told to end ─────────────────────────────────────────────────────

KEEPER = """
import asyncio, sys, time
from pathlib import Path
from app.pictures.blob import Blob
from app.pictures.picture import recognise
from app.pictures.work_folder import WorkFolder
from app.providers.transport import Transport
from app.storage.private import PrivateStore
from tests.storage.conftest import client

def half(blob):
    with blob.open() as file:
        yield file.read(blob.length // 2)
    print("half", flush=True)
    time.sleep(600)

async def main():
    where, endpoint, name, work = sys.argv[1:]
    blob = WorkFolder(Path(work)).blobs().new(crc32c=True)
    blob.write(sys.stdin.buffer.read())
    blob.seal()
    Blob.pieces = half
    await PrivateStore(where, client(Transport(), endpoint)).keep(name, recognise(blob))

asyncio.run(main())
"""


async def test_a_kill_while_it_is_kept_leaves_nothing(
    private: PrivateStore, where: str, store: CloudStorage, blobs: Blobs, tmp_path: Path
) -> None:
    name, data = f"{STEM}-0.png", encoded("PNG", 700)
    await asyncio.to_thread(kill_half_way, data, where, store.url, name, str(tmp_path / "their-work"))
    assert await found(private, blobs) == []
    await private.keep(name, recognise(blobs.of(data)))
    assert await found(private, blobs) == [data]
    if not where.startswith("gs://"):
        await asyncio.sleep(0.01)
        assert await private.sweep(0) == 2  # with what was half written
        assert [path for path in Path(where).rglob("*") if path.is_file()] == []


def kill_half_way(data: bytes, *arguments: str) -> None:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{KEEPER}", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdin
        assert keeper.stdout
        keeper.stdin.write(data)
        keeper.stdin.close()
        assert keeper.stdout.readline() == b"half\n"
        keeper.kill()


async def test_a_cancelled_keep_has_ended_when_it_returns(
    folder: tuple[PrivateStore, Path], blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the blob's file may then be written over."""
    private, path = folder
    half_way, go_on = threading.Event(), threading.Event()

    def slow(blob: Blob) -> Iterator[bytes]:
        yield png("red")[:10]
        half_way.set()
        go_on.wait()
        yield png("red")[10:]

    monkeypatch.setattr(Blob, "pieces", slow)
    keeping = asyncio.create_task(private.keep(f"{STEM}-0.png", Picture(blobs.of(b"."), "image/png", (8, 8))))
    await asyncio.to_thread(half_way.wait)
    keeping.cancel()
    await asyncio.sleep(0)
    assert not keeping.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert [one.name for one in (path / STEM[:2]).iterdir()] == [f"{STEM}-0.png"]


# ── in a folder ──────────────────────────────────────────────────────────────────────────────────────────


async def test_files_are_for_the_owner_only_and_spread(
    folder: tuple[PrivateStore, Path], blobs: Blobs
) -> None:
    private, path = folder
    await private.ready()
    await private.keep(f"{STEM}-0.png", recognise(blobs.of(png("red"))))
    await private.keep(f"{OTHER}-0.png", recognise(blobs.of(png("red"))))
    seen = {str(one.relative_to(path)): one.stat().st_mode & 0o777 for one in [path, *path.rglob("*")]}
    files = {f"01/{STEM}-0.png": 0o600, f"01/{OTHER}-0.png": 0o600}
    assert seen == {".": 0o700, "01": 0o700, **files}


async def test_a_sweep_is_bounded_and_leaves_foreign_files_alone(folder: tuple[PrivateStore, Path]) -> None:
    private, path = folder
    for number in range(250):
        name = f"{number:032x}-0.png"
        (path / name[:2]).mkdir(parents=True, exist_ok=True)
        (path / name[:2] / name).touch()
    foreign = [path / "notes.txt", path / "00" / "notes.txt"]
    for one in foreign:
        one.touch()
    for one in path.rglob("*"):
        os.utime(one, (0, time.time() - 7200))
    assert [await private.sweep(3600) for _ in range(3)] == [200, 50, 0]
    assert sorted(one for one in path.rglob("*") if one.is_file()) == sorted(foreign)


async def test_what_is_damaged_is_left_out(folder: tuple[PrivateStore, Path], blobs: Blobs) -> None:
    private, _ = folder
    for index, data in enumerate((b"", png("red")[:-9], png("blue"))):
        await private.keep(f"{STEM}-{index}.png", Picture(blobs.of(data), "image/png", (8, 8)))
    with capture_logs() as logs:
        assert await found(private, blobs) == [png("blue")]
    assert [line["name"] for line in logs] == [f"{STEM}-0.png", f"{STEM}-1.png"]
    await private.keep(f"{STEM}-0.png", recognise(blobs.of(png("red"))))  # which mends it
    assert await found(private, blobs) == [png("red"), png("blue")]


async def test_a_folder_that_cannot_be_used_is_told(folder: tuple[PrivateStore, Path], blobs: Blobs) -> None:
    private, path = folder
    path.write_text("no folder")
    picture = recognise(blobs.of(png("red")))
    steps = (private.keep(f"{STEM}-0.png", picture), private.find(STEM, blobs), private.sweep(0))
    for step in steps:
        with pytest.raises(UpstreamUnavailable) as caught:
            await step
        assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(OSError, match="File exists"):
        await private.ready()


async def test_a_large_picture_is_never_whole_in_memory(
    folder: tuple[PrivateStore, Path], blobs: Blobs
) -> None:
    private, _ = folder
    data = encoded("PNG", 1200)
    picture = recognise(blobs.of(data))
    tracemalloc.start()
    await private.keep(f"{STEM}-0.png", picture)
    kept = list((await private.find(STEM, blobs)).values())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000 < len(data)  # of which one million is the blob's first pieces
    assert bytes_of(kept[0]) == data


# ── in a bucket ──────────────────────────────────────────────────────────────────────────────────────────


async def test_objects_are_kept_out_of_caches(
    bucket: PrivateStore, store: CloudStorage, blobs: Blobs
) -> None:
    await bucket.keep(f"{STEM}-0.png", recognise(blobs.of(png("red"))))
    (resource,) = store.objects.list(PRIVATE)
    assert (resource["name"], resource["cacheControl"]) == (f"{STEM}-0.png", "private, no-store")


async def test_a_bucket_is_swept_page_by_page_and_foreign_objects_are_left_alone(
    gcs: Gcs, store: CloudStorage
) -> None:
    private = PrivateStore(f"gs://{PRIVATE}/a", gcs)
    for name in ("a/notes.txt", "b/notes.txt", *(f"a/{number:032x}-0.png" for number in range(230))):
        store.objects.put(PRIVATE, {"name": name}, b"")
    await asyncio.sleep(0.01)
    store.troubles.set("answer", vendor="gcs", arg={"status": 403, "body": {}})
    with pytest.raises(UpstreamFailed):
        await private.sweep(0)
    assert [await private.sweep(0) for _ in range(3)] == [200, 30, 0]
    assert [one["name"] for one in store.objects.list(PRIVATE)] == ["a/notes.txt", "b/notes.txt"]


@pytest.mark.parametrize(
    ("kind", "arg", "error", "code"),
    [
        ("storage-down", None, UpstreamUnavailable, None),
        ("hang", None, UpstreamUnavailable, None),
        ("answer", {"status": 403, "body": {}}, UpstreamFailed, "403"),
        ("answer", {"status": 404, "body": {}}, UpstreamFailed, "404"),
    ],
)
@pytest.mark.parametrize("step", ["find", "remove", "sweep", "names", "ready"])
@pytest.mark.usefixtures("patience")
async def test_what_the_store_refuses_is_told(
    store: CloudStorage,
    gcs: Gcs,
    bucket: PrivateStore,
    blobs: Blobs,
    kind: Kind,
    arg: Any,
    error: type[UpstreamFailed],
    code: str | None,
    step: str,
) -> None:
    store.troubles.set(kind, vendor="gcs", arg=arg)
    steps: dict[str, Callable[[], Any]] = {
        "find": lambda: bucket.find(STEM, blobs),
        "remove": lambda: bucket.remove(STEM),
        "sweep": lambda: bucket.sweep(0),
        "names": lambda: gcs.names(PRIVATE, STEM),
        "ready": bucket.ready,
    }
    with pytest.raises(error) as caught:
        await steps[step]()
    assert caught.value.vendor_code == code


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param({"kind": "storage-down"}, id="503"),
        pytest.param({"travel": Travel(cut="before", reset=True)}, id="reset"),
        pytest.param({"travel": Travel(cut=100_000)}, id="cut off in the middle"),
    ],
)
async def test_a_download_goes_on_after_a_failure(
    store: CloudStorage, bucket: PrivateStore, blobs: Blobs, trouble: Any
) -> None:
    name, data = f"{STEM}-0.png", encoded("PNG", 300)
    await bucket.keep(name, recognise(blobs.of(data)))
    store.calls.clear()
    store.troubles.set(**trouble, vendor="gcs", model=name, times=1)
    assert await found(bucket, blobs) == [data]
    assert [call.method for call in store.calls.list()] == ["objects.list", "objects.get", "objects.get"]


@pytest.mark.usefixtures("patience")
async def test_what_fails_half_way_holds_nothing(
    store: CloudStorage, bucket: PrivateStore, blobs: Blobs, work: WorkFolder
) -> None:
    with blobs.another() as mine:
        for index in range(2):
            await bucket.keep(f"{STEM}-{index}.png", recognise(mine.of(png("red"))))
    store.troubles.set("answer", vendor="gcs", model=f"{STEM}-1.png", arg={"status": 403, "body": {}})
    with pytest.raises(UpstreamFailed):
        await bucket.find(STEM, blobs)
    assert (work.memory_used, work.disk_used) == (0, 0)


async def test_a_find_that_takes_too_long_is_given_up(
    store: CloudStorage, transport: Transport, blobs: Blobs, work: WorkFolder
) -> None:
    hasty = PrivateStore(f"gs://{PRIVATE}", client(transport, store.url, timeout_seconds=0.5))
    name = f"{STEM}-0.png"
    store.objects.put(PRIVATE, {"name": name}, encoded("PNG", 300))
    store.troubles.set(vendor="gcs", model=name, travel=Travel(drip=50_000))
    with pytest.raises(UpstreamUnavailable):
        await hasty.find(STEM, blobs)
    assert (work.memory_used, work.disk_used) == (0, 0)


async def test_without_room_for_the_bytes_it_is_told(
    store: CloudStorage, private: PrivateStore, blobs: Blobs, tmp_path: Path
) -> None:
    data = encoded("PNG", 300)
    await private.keep(f"{STEM}-0.png", recognise(blobs.of(data)))
    with (
        WorkFolder(tmp_path / "small", memory_bytes=1000, max_bytes=1000) as small,
        small.blobs() as full,
        pytest.raises(NoRoom),
    ):
        await private.find(STEM, full)


async def test_ready_needs_four_permissions(gcs: Gcs, private: PrivateStore) -> None:
    await private.ready()
    with pytest.raises(UpstreamFailed, match=r"storage\.objects\.delete not granted on our-bucket"):
        await PrivateStore("gs://our-bucket/a", gcs).ready()


async def test_names_are_found_by_their_stem(gcs: Gcs, store: CloudStorage) -> None:
    for name in ("a/1-0.png", "a/1-1.png", "a/2-0.png", "b/1-0.png"):
        store.objects.put(PRIVATE, {"name": name}, b"")
    assert await gcs.names(PRIVATE, "a/1") == ["a/1-0.png", "a/1-1.png"]
    assert await gcs.names(PRIVATE, "c") == []
    for number in range(70):
        store.objects.put(PRIVATE, {"name": f"c/{number:02}"}, b"")
    store.calls.clear()
    assert await gcs.names(PRIVATE, "c/") == [f"c/{number:02}" for number in range(64)]
    assert len(store.calls.list()) == 1


async def test_without_a_store_it_is_unavailable(transport: Transport) -> None:
    with pytest.raises(UpstreamUnavailable):
        await client(transport, "http://127.0.0.1:1", timeout_seconds=0.3).names(PRIVATE, STEM)
