"""What is paid for is stored or spooled, whatever the store does and whoever has left."""

import asyncio

import pytest
from structlog.testing import capture_logs

from app.contract.errors import StorageDown, UpstreamFailed, UpstreamUnavailable
from app.contract.gen import GenRequest, read_gen
from app.contract.image import ImageRequest, TextToImage
from app.contract.models import Model, load_catalogue
from app.contract.pictures import Picture
from app.ports import Generation
from app.services.budget import Budget
from app.services.chain import Chain
from app.services.gallery import Gallery
from app.services.gen import Gen
from app.services.image import Images

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
MODEL = CATALOGUE["imagen-3.0-generate-001"]
PICTURE = Picture(b"png", "image/png", (1, 1))


class Store:
    """Saves after it is released, or fails with `failure`. `slow`: how many pictures are never saved."""

    def __init__(self, failure: Exception | None = None, *, slow: int = 0) -> None:
        self.failure = failure
        self.slow = slow
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.saved: list[str] = []

    def url(self, name: str, /, *, bucket: str) -> str:
        return f"https://store/{bucket}/{name}"

    async def save(
        self, name: str, picture: Picture, /, *, bucket: str | None = None, again: bool = False
    ) -> str:
        self.asked.set()
        if self.slow:
            self.slow -= 1
            await asyncio.Event().wait()
        await self.go.wait()
        if self.failure:
            raise self.failure
        self.saved.append(name)
        return self.url(name, bucket=bucket or "ours")

    async def aclose(self) -> None: ...


class Shelf:
    """A spool. If `failure` is set, it accepts no picture."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.kept: list[tuple[str, str]] = []

    async def keep(self, name: str, picture: Picture, bucket: str, /) -> None:
        if self.failure:
            raise self.failure
        self.kept.append((bucket, name))

    async def ready(self) -> None:
        if self.failure:
            raise OSError from self.failure


@pytest.mark.parametrize(
    "failure", [UpstreamUnavailable(), UpstreamFailed(), RuntimeError("a bug")], ids=repr
)
async def test_whatever_fails_the_picture_is_kept(failure: Exception) -> None:
    store, shelf = Store(failure), Shelf()
    store.go.set()
    with pytest.raises(StorageDown) as down:
        await Gallery(store, shelf, "ours").store((PICTURE,), "text-to-image", MODEL, "gs://theirs/folder")
    ((bucket, name),) = shelf.kept
    assert (bucket, name.startswith("folder/20")) == ("theirs", True)
    (pending,) = down.value.pending
    assert pending.url == f"https://store/theirs/{name}"
    assert (f"folder/{pending.filename}", pending.mime_type) == (name, "image/png")


async def test_what_is_slow_is_pending_and_kept() -> None:
    store, shelf = Store(slow=1), Shelf()
    store.go.set()
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    slow, fast = await gallery.store((PICTURE, PICTURE), "text-to-image", MODEL)
    assert (slow.pending, fast.pending) == (True, False)
    assert (shelf.kept, store.saved) == ([("ours", slow.name)], [fast.name])
    await gallery.aclose()


async def test_without_a_spool_a_slow_upload_goes_on() -> None:
    store, shelf = Store(), Shelf(UpstreamFailed("full"))
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    with pytest.raises(StorageDown) as down:
        await gallery.store((PICTURE,), "text-to-image", MODEL)
    store.go.set()
    await gallery.aclose()
    assert [name.endswith(down.value.pending[0].filename) for name in store.saved] == [True]


async def test_a_slow_upload_that_fails_in_the_end_is_kept() -> None:
    """Its caller was told the URL when the spool was full; meanwhile there is room again."""
    store, shelf = Store(UpstreamUnavailable()), Shelf(UpstreamFailed("full"))
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    with pytest.raises(StorageDown) as down:
        await gallery.store((PICTURE,), "text-to-image", MODEL)
    shelf.failure = None
    store.go.set()
    await gallery.aclose()
    assert [name.endswith(down.value.pending[0].filename) for _, name in shelf.kept] == [True]


async def test_a_slow_upload_that_nobody_could_save_is_told_in_the_log() -> None:
    store, shelf = Store(UpstreamUnavailable()), Shelf(UpstreamFailed("full"))
    gallery = Gallery(store, shelf, "ours", wait_seconds=0.01)
    with capture_logs() as said:
        with pytest.raises(StorageDown) as down:
            await gallery.store((PICTURE,), "text-to-image", MODEL)
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

    async def run(self, _request: ImageRequest | GenRequest, _model: Model, /) -> Generation:
        self.sold += 1
        return Generation((PICTURE,))

    async def aclose(self) -> None: ...


class Silent:
    """A Claude whom nobody asks."""

    async def rewrite(self, prompt: str, model: Model, /, *, language: str | None, characters: int) -> str:
        raise AssertionError


@pytest.mark.parametrize("route", ["image", "gen"])
async def test_who_waited_for_a_turn_is_sold_nothing_that_could_not_be_kept(
    monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr("app.services.gallery._CHECK_SECONDS", 0)
    seller, shelf, budget, chain = Seller(), Shelf(), Budget(1, 1), Chain(CATALOGUE)
    gallery = Gallery(Store(), shelf, "ours")
    images = Images(seller, gallery, chain, budget, CATALOGUE, ())
    gen = Gen(seller, Silent(), gallery, chain, chain, budget, budget, CATALOGUE)
    wish = {"mode": "text2img", "prompt": "a cat", "response_format": "url"}

    async def call() -> None:
        if route == "image":
            await images.make(TextToImage(prompt="a cat"))
        else:
            await gen.make(read_gen(wish, text=False))

    async with budget.hold(1):
        caller = asyncio.create_task(call())
        for _ in range(10):
            await asyncio.sleep(0)  # until it waits for its turn
        assert budget._waiting
        shelf.failure = UpstreamFailed("full")
    with pytest.raises(StorageDown):
        await caller
    assert seller.sold == 0


async def test_storing_goes_on_when_the_caller_has_left() -> None:
    store, shelf = Store(), Shelf()
    gallery = Gallery(store, shelf, "ours")
    caller = asyncio.create_task(gallery.store((PICTURE,), "text-to-image", MODEL))
    await store.asked.wait()
    caller.cancel()
    await asyncio.wait((caller,))
    store.go.set()
    await gallery.aclose()
    assert (caller.cancelled(), len(store.saved), shelf.kept) == (True, 1, [])
