"""What is paid for is stored or spooled, whatever the store does and whoever has left."""

import asyncio
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from structlog.testing import capture_logs

from app.contract.errors import StorageDown, UpstreamFailed, UpstreamUnavailable
from app.contract.gen import GenRequest, read_gen
from app.contract.image import ImageRequest, TextToImage
from app.contract.models import Model, load_catalogue
from app.pictures.blob import Blob
from app.pictures.picture import Picture
from app.pictures.room import NoRoom
from app.pictures.work_folder import WorkFolder
from app.ports import Call, Generation
from app.services.chain import Chain
from app.services.gallery import Gallery, Landing
from app.services.gen import Gen
from app.services.image import Images
from app.services.made import Stored
from app.storage.spool import DiskSpool
from tests.support.fake_wish import NotedWish, no_finder

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
MODEL = CATALOGUE["imagen-3.0-generate-001"]
CALL = f"{7:032x}"


@pytest.fixture
def work(tmp_path: Path) -> Iterator[WorkFolder]:
    """Nothing is left in it at the end."""
    with WorkFolder(tmp_path / "work", blob_memory_bytes=1000) as work:
        yield work
        assert held(work) == (0, 0, 0)


@pytest.fixture
def call(work: WorkFolder) -> Iterator[Call]:
    with work.blobs() as blobs:
        yield Call(
            "ann", "1", answer_by=math.inf, store_by=math.inf, ends=math.inf, blobs=blobs, wish=NotedWish()
        )


def drawn(call: Call, size: int = 3) -> Picture:
    return Picture(call.blobs.of(bytes(size)), "image/png", (1, 1))


def held(work: WorkFolder) -> tuple[int, int, int]:
    """Bytes in memory, bytes on disk, and files."""
    return work.memory_used, work.disk_used, len(list(work.path.glob("*.part")))


class Store:
    """Saves after `go`, or fails with `failure`. `slow`: how many pictures wait for `go_slowly` first."""

    def __init__(self, failure: Exception | None = None, *, slow: int = 0) -> None:
        self.failure = failure
        self.slow = slow
        self.asked, self.go, self.go_slowly = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.saved: list[str] = []
        self.saved_one = asyncio.Event()
        self.troubles: set[str | None] = set()
        self.bytes_saved = 0

    def url(self, name: str, /, *, bucket: str) -> str:
        return f"https://store/{bucket}/{name}"

    async def save(
        self,
        name: str,
        picture: Picture,
        /,
        *,
        bucket: str | None = None,
        again: bool = False,
        trouble: str | None = None,
    ) -> str:
        self.asked.set()
        self.troubles.add(trouble)
        if self.slow:
            self.slow -= 1
            await self.go_slowly.wait()
        await self.go.wait()
        if self.failure:
            raise self.failure
        self.bytes_saved += sum(map(len, picture.blob.pieces()))
        self.saved.append(name)
        self.saved_one.set()
        return self.url(name, bucket=bucket or "ours")

    async def aclose(self) -> None: ...


class Full(DiskSpool):
    """A spool on a full disk, until `full` is false."""

    full = True

    async def ready(self) -> str | None:
        if self.full:
            raise OSError(28, "No space left on device", "here")
        return None

    async def land(self, blob: Blob, bucket: str, name: str, /) -> Path:
        if self.full:
            raise NoRoom("No space left on device")
        return await super().land(blob, bucket, name)

    def create(self) -> tuple[Path, BinaryIO]:
        if self.full:
            raise NoRoom("No space left on device")
        return super().create()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[DiskSpool]:
    spool = DiskSpool(tmp_path / "spool")
    yield spool
    spool.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Full]:
    spool = Full(tmp_path / "spool")
    yield spool
    spool.close()


def files(tmp_path: Path) -> list[Path]:
    """Pictures on the spool."""
    return [path for path in (tmp_path / "spool").rglob("*.*") if path.suffix in (".png", ".jpg")]


def filename(path: Path) -> str:
    """The object's, of a file on the spool."""
    return path.name.partition("-")[2]


async def sold(landing: Landing, *, size: int = 3) -> Picture:
    """A picture that has landed."""
    blob = landing.blobs.of(bytes(size))
    picture = Picture(blob, "image/png", (1, 1))
    await landing.land(picture, landing.place(MODEL, CALL))
    return picture


async def stored(gallery: Gallery, call: Call, *sizes: int, uri: str | None = None) -> tuple[Stored, ...]:
    with gallery.landing("text-to-image", call, uri) as landing:
        pictures = [await sold(landing, size=size) for size in sizes or (3,)]
        return await gallery.store(tuple(pictures), landing)


async def test_a_stored_picture_leaves_nothing(call: Call, spool: DiskSpool, tmp_path: Path) -> None:
    store = Store()
    store.go.set()
    (one,) = await stored(Gallery(store, spool, "ours"), call)
    assert re.fullmatch(
        r"images/generated/text-to-image/\d{8}_\d{6}_img3_text-to-image_0{31}7-0\.png", one.name
    )
    assert (one.bucket, one.pending, store.saved, store.bytes_saved) == ("ours", False, [one.name], 3)
    assert (files(tmp_path), spool._waiting) == ([], {})


@pytest.mark.parametrize(
    "failure", [UpstreamUnavailable(), UpstreamFailed(), RuntimeError("a bug")], ids=repr
)
async def test_whatever_fails_the_picture_is_kept(
    failure: Exception, call: Call, spool: DiskSpool, tmp_path: Path
) -> None:
    store = Store(failure)
    store.go.set()
    with pytest.raises(StorageDown) as down:
        await stored(Gallery(store, spool, "ours"), call, uri="gs://theirs/folder")
    (path,) = files(tmp_path)
    (pending,) = down.value.pending
    assert pending.url == f"https://store/theirs/folder/{filename(path)}"
    assert (pending.filename, pending.mime_type) == (filename(path), "image/png")
    assert list(spool._waiting) == [path]


async def test_what_is_slow_is_pending_and_goes_on(call: Call, spool: DiskSpool, tmp_path: Path) -> None:
    store = Store(slow=1)
    store.go.set()
    gallery = Gallery(store, spool, "ours", wait_seconds=0.01)
    slow, fast = await stored(gallery, call, 3, 3)
    assert (slow.pending, fast.pending, store.saved) == (True, False, [fast.name])
    assert [filename(path) for path in files(tmp_path)] == [slow.name.rpartition("/")[2]]
    assert spool._waiting == {}  # not uploaded twice at a time
    store.go_slowly.set()
    await gallery.aclose()
    assert (store.saved, files(tmp_path)) == ([fast.name, slow.name], [])


async def test_nobody_waits_beyond_the_calls_store_by(call: Call, spool: DiskSpool) -> None:
    store, soon = Store(), asyncio.get_running_loop().time() + 0.05
    gallery = Gallery(store, spool, "ours", wait_seconds=60)
    async with asyncio.timeout(5):
        with pytest.raises(StorageDown) as told:
            await stored(gallery, replace(call, store_by=soon))
    assert len(told.value.pending) == 1
    store.go.set()
    await gallery.aclose()


async def test_at_the_end_nobody_waits_for_what_is_on_the_spool(
    call: Call, spool: DiskSpool, tmp_path: Path
) -> None:
    gallery = Gallery(Store(), spool, "ours", wait_seconds=0.01)
    with pytest.raises(StorageDown):
        await stored(gallery, call)
    await gallery.aclose()
    assert len(files(tmp_path)) == 1


async def test_what_is_in_no_answer_is_kept(call: Call, spool: DiskSpool, tmp_path: Path) -> None:
    """The caller has left, or another sample has failed."""
    gallery = Gallery(Store(), spool, "ours")
    with capture_logs() as logs, gallery.landing("image-edit", call) as landing:
        await sold(landing)
        landing.blobs.of(b"half an answer")
    assert logs[0]["event"] == "a picture that is in no answer is stored"
    assert list(spool._waiting) == files(tmp_path)
    assert len(files(tmp_path)) == 1


async def test_a_finished_picture_takes_the_place_of_the_raw_one(
    call: Call, spool: DiskSpool, tmp_path: Path
) -> None:
    gallery = Gallery(Store(), spool, "ours")
    with gallery.landing("image-edit", call) as landing:
        raw = await sold(landing)
        finished = Picture(call.blobs.of(b"finished"), "image/jpeg", (1, 1))
        await landing.replace(raw, finished)
        (path,) = files(tmp_path)
        assert (path.suffix, path.read_bytes()) == (".jpg", b"finished")
        broken = await sold(landing)
        landing.discard(broken)
        assert files(tmp_path) == [path]


async def test_without_a_spool_the_picture_is_uploaded_from_where_it_is(call: Call, full: Full) -> None:
    store = Store()
    store.go.set()
    (one,) = await stored(Gallery(store, full, "ours"), call)
    assert (one.pending, store.saved, store.bytes_saved) == (False, [one.name], 3)


async def test_what_neither_takes_is_tried_again(
    call: Call, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.gallery._AGAIN_SECONDS", 0)
    store = Store(UpstreamUnavailable())
    store.go.set()
    gallery = Gallery(store, full, "ours", wait_seconds=0.01)
    with pytest.raises(StorageDown) as down:
        await stored(gallery, call)
    call.blobs.close()  # as at the end of the request
    store.failure = None
    await store.saved_one.wait()
    assert store.saved[0].endswith(down.value.pending[0].filename)
    await gallery.aclose()


async def test_a_spool_that_has_room_again_takes_it(
    call: Call, full: Full, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.gallery._AGAIN_SECONDS", 0)
    store = Store(UpstreamUnavailable())
    gallery = Gallery(store, full, "ours", wait_seconds=0.01)
    with pytest.raises(StorageDown):
        await stored(gallery, call)
    full.full = False
    store.go.set()
    await gallery.aclose()
    assert list(full._waiting) == files(tmp_path)
    assert len(files(tmp_path)) == 1


async def test_a_picture_that_nobody_takes_until_the_end_is_told_in_the_log(call: Call, full: Full) -> None:
    store = Store(UpstreamUnavailable())
    store.go.set()
    gallery = Gallery(store, full, "ours", wait_seconds=0.01)
    with capture_logs() as said:
        with pytest.raises(StorageDown) as down:
            await stored(gallery, call)
        await gallery.aclose()
    assert said[-1]["event"] == "a paid picture is lost"
    assert said[-1]["object"].endswith(down.value.pending[0].filename)


async def test_nothing_is_sold_that_could_not_be_kept(full: Full) -> None:
    gallery = Gallery(Store(), full, "ours", retry_after=7)
    with capture_logs() as logs, pytest.raises(StorageDown) as down:
        await gallery.check()
    assert ((down.value.pending, down.value.retry_after), logs[0]["folder"]) == (((), 7), "here")
    full.full = False
    await gallery.check()


class Seller:
    """A vendor whose pictures cost money."""

    sold = 0

    async def run(self, _request: ImageRequest | GenRequest, _model: Model, call: Call, /) -> Generation:
        self.sold += 1
        return Generation((drawn(call),))

    async def ready(self) -> None: ...


class Claude:
    """Rewrites a prompt; meanwhile the spool becomes full."""

    def __init__(self, spool: Full) -> None:
        self._spool = spool

    async def rewrite(
        self, prompt: str, model: Model, call: Call, /, *, language: str | None, characters: int
    ) -> str:
        self._spool.full = True
        return "a better cat"


@pytest.mark.parametrize("route", ["image", "gen", "gen after a rewrite"])
async def test_a_picture_that_could_not_be_kept_is_not_made(
    monkeypatch: pytest.MonkeyPatch, call: Call, full: Full, route: str
) -> None:
    monkeypatch.setattr("app.services.gallery._CHECK_SECONDS", 0)
    full.full = route != "gen after a rewrite"
    seller, chain = Seller(), Chain(CATALOGUE)
    gallery = Gallery(Store(), full, "ours")
    images = Images({"google": seller}, gallery, chain, CATALOGUE, ())
    gen = Gen({"aws": seller}, Claude(full), gallery, chain, chain, CATALOGUE, no_finder(call.blobs))
    wish = {"mode": "text2img", "prompt": "a cat", "response_format": "url", "regen_prompt": not full.full}
    if route == "image":
        making = images.make(TextToImage(prompt="a cat"), call)
    else:
        making = gen.make(read_gen(wish, call.blobs, text=False), call)
    with pytest.raises(StorageDown):
        await making
    assert seller.sold == 0


@pytest.mark.parametrize("work_is_full", [False, True])
async def test_nothing_is_sold_that_the_work_folder_could_not_keep(
    tmp_path: Path, work_is_full: bool
) -> None:
    seller = Seller()
    images = Images(
        {"google": seller},
        Gallery(Store(), Full(tmp_path), "ours"),
        Chain(CATALOGUE),
        CATALOGUE,
        (),
    )
    request = TextToImage(prompt="a cat", response_format="b64_json")
    with WorkFolder(tmp_path / "work", max_bytes=0 if work_is_full else 10**6) as work, work.blobs() as blobs:
        call = Call(
            "ann", "1", answer_by=math.inf, store_by=math.inf, ends=math.inf, blobs=blobs, wish=NotedWish()
        )
        if work_is_full:
            with pytest.raises(NoRoom, match=str(work.path)):
                await images.make(request, call)
        else:
            await images.make(request, call)
    assert seller.sold == (0 if work_is_full else 1)


@pytest.mark.parametrize("store_fails", [False, True])
async def test_storing_goes_on_when_the_caller_has_left(
    call: Call, spool: DiskSpool, tmp_path: Path, store_fails: bool
) -> None:
    store = Store(UpstreamUnavailable() if store_fails else None)
    gallery = Gallery(store, spool, "ours")
    caller = asyncio.create_task(stored(gallery, call, 2000, 2000))
    await store.asked.wait()
    caller.cancel()
    await asyncio.wait((caller,))
    call.blobs.close()  # as at the end of the request
    assert len(files(tmp_path)) == 2
    store.go.set()
    await gallery.aclose()
    assert caller.cancelled()
    kept = 2 if store_fails else 0
    assert (len(store.saved), len(spool._waiting), len(files(tmp_path))) == (2 - kept, kept, kept)
    assert store.bytes_saved == 2000 * len(store.saved)


async def test_a_caller_who_leaves_before_storing_has_begun_takes_nothing_away(
    call: Call, spool: DiskSpool
) -> None:
    store = Store()
    store.go.set()
    gallery = Gallery(store, spool, "ours")
    with gallery.landing("text-to-image", call) as landing:
        storing = gallery.store((await sold(landing),), landing)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await storing
    call.blobs.close()
    await gallery.aclose()
    assert (len(store.saved), store.bytes_saved) == (1, 3)


async def test_what_the_call_says_is_observed(call: Call, spool: DiskSpool, tmp_path: Path) -> None:
    """Its failure to rehearse, and its time."""
    store = Store(slow=1)
    gallery = Gallery(store, spool, "ours", wait_seconds=60)
    late = replace(call, trouble="429=7", store_by=asyncio.get_running_loop().time())
    with pytest.raises(StorageDown):
        await stored(gallery, late)
    await store.asked.wait()
    assert (store.troubles, len(files(tmp_path))) == ({"429=7"}, 1)
    store.go.set()
    store.go_slowly.set()
    await gallery.aclose()


async def test_a_stored_picture_is_deleted_before_its_slow_neighbour(
    call: Call, spool: DiskSpool, tmp_path: Path
) -> None:
    store = Store(slow=1)
    store.go.set()
    gallery = Gallery(store, spool, "ours", wait_seconds=60)
    storing = asyncio.create_task(stored(gallery, call, 5, 7))
    await store.saved_one.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert [path.stat().st_size for path in files(tmp_path)] == [5]
    store.go_slowly.set()
    slow, fast = await storing
    assert (slow.pending, fast.pending) == (False, False)
