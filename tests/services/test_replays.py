"""Pictures in base64 are kept for those who repeat a request."""

import pytest

from app.contract.models import load_catalogue
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import Picture
from app.services.replays import PrivateLanding
from tests.support.fake_wish import NothingKept

pytestmark = pytest.mark.anyio


class Names(NothingKept):
    """A private store that remembers the names of the pictures."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    async def keep(self, name: str, picture: Picture, /) -> None:
        self.kept.append(name)


async def test_only_the_finished_picture_is_kept(blobs: Blobs) -> None:
    store, names = Names(), dict[Blob, str]()
    landing = PrivateLanding(store, names, blobs)
    raw, finished = (Picture(blobs.of(data), "image/png", (1, 1)) for data in (b"raw", b"finished"))
    place = landing.place(load_catalogue().model[0], "call")
    await landing.land(raw, place, later=True)
    assert store.kept == []
    await landing.replace(raw, finished)
    assert (store.kept, names) == (["call-0.png"], {finished.blob: "call-0.png"})
