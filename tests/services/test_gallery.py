"""What is paid for is stored or spooled, whatever the store does and whoever has left."""

import asyncio

import pytest

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.contract.models import load_catalogue
from app.contract.pictures import Picture
from app.services.gallery import Gallery

pytestmark = pytest.mark.anyio

MODEL = load_catalogue()["imagen-3.0-generate-001"]
PICTURE = Picture(b"png", "image/png", (1, 1))


class Store:
    """Fails with `failure`, if there is one, once it is let go."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.saved: list[str] = []

    async def save(
        self, name: str, picture: Picture, /, *, bucket: str | None = None, again: bool = False
    ) -> str:
        self.asked.set()
        await self.go.wait()
        if self.failure:
            raise self.failure
        self.saved.append(name)
        return f"https://store/{bucket}/{name}"

    async def aclose(self) -> None: ...


class Shelf:
    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []

    async def keep(self, name: str, picture: Picture, bucket: str, /) -> None:
        self.kept.append((bucket, name))


@pytest.mark.parametrize(
    "failure", [UpstreamUnavailable(), UpstreamFailed(), RuntimeError("a bug")], ids=repr
)
async def test_whatever_fails_the_picture_is_kept(failure: Exception) -> None:
    store, shelf = Store(failure), Shelf()
    store.go.set()
    with pytest.raises(UpstreamUnavailable):
        await Gallery(store, shelf, "ours").store((PICTURE,), "text-to-image", MODEL, "gs://theirs/folder")
    ((bucket, name),) = shelf.kept
    assert (bucket, name.startswith("folder/20")) == ("theirs", True)


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
