"""What is paid for is stored or spooled, whatever the store does and whoever has left."""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.contract.errors import StorageDown, UpstreamFailed, UpstreamUnavailable
from app.contract.gen import GenRequest, read_gen
from app.contract.image import ImageRequest, TextToImage
from app.contract.models import Model, load_catalogue
from app.pictures.picture import Picture
from app.pictures.work_folder import WorkFolder
from app.ports import Call, Generation
from app.services.budget import Budget
from app.services.chain import Chain
from app.services.gallery import Gallery
from app.services.gen import Gen
from app.services.image import Images

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
MODEL = CATALOGUE["imagen-3.0-generate-001"]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[WorkFolder]:
    """Nothing is left in it at the end."""
    with WorkFolder(tmp_path, blob_memory_bytes=1000) as work:
        yield work
        assert held(work) == (0, 0, 0)


@pytest.fixture
def call(work: WorkFolder) -> Iterator[Call]:
    with work.blobs() as blobs:
        yield Call("ann", "1", answer_by=math.inf, store_by=math.inf, blobs=blobs)


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
        return self.url(name, bucket=bucket or "ours")

    async def aclose(self) -> None: ...


class Shelf:
    """A spool. If `failure` is set, it accepts no picture."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.kept: list[tuple[str, str]] = []
        self.bytes_kept = 0

    async def keep(self, name: str, picture: Picture, bucket: str, /) -> None:
        if self.failure:
            raise self.failure
        self.bytes_kept += sum(map(len, picture.blob.pieces()))
        self.kept.append((bucket, name))

    async def ready(self) -> None:
        if self.failure:
            raise OSError from self.failure


@pytest.mark.parametrize(
    "failure", [UpstreamUnavailable(), UpstreamFailed(), RuntimeError("a bug")], ids=repr
)
async def test_whatever_fails_the_picture_is_kept(failure: Exception, call: Call) -> None:
    store, shelf = Store(failure), Shelf()
    store.go.set()
    with pytest.raises(StorageDown) as down:
        await Gallery(store, shelf, "ours").store(
            (drawn(call),), "text-to-image", MODEL, call, "gs://theirs/folder"
        )
    ((bucket, name),) = shelf.kept
    assert (bucket, name.startswith("folder/20")) == ("theirs", True)
    (pending,) = down.value.pending
    assert pending.url == f"https://store/theirs/{name}"
    assert (f"folder/{pending.filename}", pending.mime_type) == (name, "image/png")


async def test_what_is_slow_is_pending_and_kept(call: Call) -> None:
    store, shelf = Store(slow=1), Shelf()
    store.go.set()
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    slow, fast = await gallery.store((drawn(call), drawn(call)), "text-to-image", MODEL, call)
    assert (slow.pending, fast.pending) == (True, False)
    assert (shelf.kept, store.saved) == ([("ours", slow.name)], [fast.name])
    await gallery.aclose()


async def test_without_a_spool_a_slow_upload_goes_on(call: Call) -> None:
    store, shelf = Store(), Shelf(UpstreamFailed("full"))
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    with pytest.raises(StorageDown) as down:
        await gallery.store((drawn(call),), "text-to-image", MODEL, call)
    store.go.set()
    await gallery.aclose()
    assert [name.endswith(down.value.pending[0].filename) for name in store.saved] == [True]


async def test_a_slow_upload_that_fails_in_the_end_is_kept(call: Call) -> None:
    """Its caller was told the URL when the spool was full; meanwhile there is room again."""
    store, shelf = Store(UpstreamUnavailable()), Shelf(UpstreamFailed("full"))
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    with pytest.raises(StorageDown) as down:
        await gallery.store((drawn(call),), "text-to-image", MODEL, call)
    shelf.failure = None
    store.go.set()
    await gallery.aclose()
    assert [name.endswith(down.value.pending[0].filename) for _, name in shelf.kept] == [True]


async def test_a_slow_upload_that_nobody_could_save_is_told_in_the_log(call: Call) -> None:
    store, shelf = Store(UpstreamUnavailable()), Shelf(UpstreamFailed("full"))
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    with capture_logs() as said:
        with pytest.raises(StorageDown) as down:
            await gallery.store((drawn(call),), "text-to-image", MODEL, call)
        store.go.set()
        await gallery.aclose()
    assert said[-1]["event"] == "a paid picture is lost"
    assert said[-1]["object"].endswith(down.value.pending[0].filename)


async def test_nothing_is_sold_that_could_not_be_kept() -> None:
    shelf = Shelf(UpstreamFailed("full"))
    gallery = Gallery(Store(), shelf, "ours", retry_after=7)
    with pytest.raises(StorageDown) as down:
        await gallery.check()
    assert (down.value.pending, down.value.retry_after) == ((), 7)
    shelf.failure = None
    await gallery.check()


class Seller:
    """A vendor whose pictures cost money."""

    sold = 0

    async def run(self, _request: ImageRequest | GenRequest, _model: Model, call: Call, /) -> Generation:
        self.sold += 1
        return Generation((drawn(call),))


class Silent:
    """A Claude whom nobody asks."""

    async def rewrite(
        self, prompt: str, model: Model, call: Call, /, *, language: str | None, characters: int
    ) -> str:
        raise AssertionError


@pytest.mark.parametrize("route", ["image", "gen"])
async def test_who_waited_for_a_turn_is_sold_nothing_that_could_not_be_kept(
    monkeypatch: pytest.MonkeyPatch, call: Call, route: str
) -> None:
    monkeypatch.setattr("app.services.gallery._CHECK_SECONDS", 0)
    seller, shelf, budget, chain = Seller(), Shelf(), Budget(1, 1), Chain(CATALOGUE)
    gallery = Gallery(Store(), shelf, "ours")
    images = Images({"google": seller}, gallery, chain, budget, CATALOGUE, ())
    gen = Gen({"aws": seller}, Silent(), gallery, chain, chain, budget, budget, CATALOGUE)
    wish = {"mode": "text2img", "prompt": "a cat", "response_format": "url"}

    async def make() -> None:
        if route == "image":
            await images.make(TextToImage(prompt="a cat"), call)
        else:
            await gen.make(read_gen(wish, call.blobs, text=False), call)

    async with budget.hold(1):
        caller = asyncio.create_task(make())
        for _ in range(10):
            await asyncio.sleep(0)  # until it waits for its turn
        assert budget._waiting
        shelf.failure = UpstreamFailed("full")
    with pytest.raises(StorageDown):
        await caller
    assert seller.sold == 0


@pytest.mark.parametrize("size", [pytest.param(900, id="in memory"), pytest.param(2000, id="on disk")])
@pytest.mark.parametrize("store_fails", [False, True])
async def test_storing_goes_on_when_the_caller_has_left(
    call: Call, work: WorkFolder, size: int, store_fails: bool
) -> None:
    store, shelf = Store(UpstreamUnavailable() if store_fails else None), Shelf()
    gallery = Gallery(store, shelf, "ours")
    two = (drawn(call, size), drawn(call, size))
    caller = asyncio.create_task(gallery.store(two, "text-to-image", MODEL, call))
    await store.asked.wait()
    caller.cancel()
    await asyncio.wait((caller,))
    call.blobs.close()  # as at the end of the request
    assert held(work) == ((2 * size, 0, 0) if size < 1000 else (0, 2 * size, 2))
    store.go.set()
    await gallery.aclose()
    assert caller.cancelled()
    assert (len(store.saved), len(shelf.kept)) == ((0, 2) if store_fails else (2, 0))
    assert store.bytes_saved + shelf.bytes_kept == 2 * size
    assert held(work) == (0, 0, 0)


async def test_a_caller_who_leaves_before_storing_has_begun_takes_nothing_away(call: Call) -> None:
    store = Store()
    store.go.set()
    gallery = Gallery(store, Shelf(), "ours")
    storing = gallery.store((drawn(call),), "text-to-image", MODEL, call)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await storing
    call.blobs.close()
    await gallery.aclose()
    assert (len(store.saved), store.bytes_saved) == (1, 3)


async def test_what_the_call_says_is_observed(call: Call) -> None:
    """Its failure to rehearse, and its time."""
    store, shelf = Store(slow=1), Shelf()
    gallery = Gallery(store, shelf, "ours", wait_seconds=60)
    late = replace(call, trouble="429=7", store_by=asyncio.get_running_loop().time())
    with pytest.raises(StorageDown):
        await gallery.store((drawn(late),), "text-to-image", MODEL, late)
    assert (store.troubles, len(shelf.kept)) == ({"429=7"}, 1)


async def test_a_stored_picture_is_deleted_before_its_slow_neighbour(call: Call, work: WorkFolder) -> None:
    store, shelf = Store(slow=1), Shelf()
    store.go.set()
    gallery = Gallery(store, shelf, "ours", wait_seconds=60)
    storing = asyncio.create_task(
        gallery.store((drawn(call, 5), drawn(call, 7)), "text-to-image", MODEL, call)
    )
    while not store.saved:  # noqa: ASYNC110 - the event would come before the deletion
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert held(work) == (5, 0, 0)
    store.go_slowly.set()
    slow, fast = await storing
    assert (slow.pending, fast.pending) == (False, False)
