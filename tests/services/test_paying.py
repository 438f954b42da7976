"""A request that is repeated: while the first one is under way, and after it was interrupted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from pydantic import BaseModel

from app.contract.book import Terms
from app.contract.errors import KeyInFlight, UpstreamFailed
from app.contract.models import load_catalogue
from app.contract.prices import Order, load_prices, today
from app.pictures.blob import Blobs
from app.ports import Bill, Place
from app.services.auth import Caller
from app.services.finding import Finder
from app.services.made import FoundPicture, Made
from app.services.paying import PaidRequest, Paying, Reply
from app.services.wish import Wish
from app.storage.ledger import Ledger
from tests.storage.ledgers import Watched
from tests.support.fake_wish import Nothing, NothingKept, NothingWaits
from tests.support.provider_call import call

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
IMAGEN = CATALOGUE["imagen-4.0-generate-001"]
FOUR_SAMPLES = Order(IMAGEN.id, "text-to-image", today(), samples=4, size="1K")
MADE = Made(IMAGEN, IMAGEN.id, ())


class Asked(BaseModel):
    prompt: str = "a pear"


class OneStored(Nothing):
    """Buckets in which one picture of each call is found."""

    async def names(self, bucket: str, stem: str, /) -> list[str]:
        return [f"{stem}0.png"]


class Process:
    """Serves the request of one caller with one key, again and again."""

    def __init__(self, name: str, url: str, blobs: Blobs) -> None:
        self.ledger = Ledger(Watched(url, Terms()), name)
        self._blobs = blobs
        finder = Finder(OneStored(), NothingWaits(), NothingKept(), lambda: blobs)
        self._paying = Paying(self.ledger, load_prices(CATALOGUE), finder, NothingKept())

    async def serve(self, make: Callable[[Wish], Awaitable[Made]], *, seconds: float = 20) -> Reply:
        wish = self._paying.wish(Caller("ann", "ann", 0), "/gen", "key-1")
        time = call(self._blobs, seconds=seconds)
        request = PaidRequest(
            Asked(), time, lambda: make(wish), _recover, lambda made: {"failed": made.failed}, _refuse
        )
        return await self._paying.fulfil(wish, request)


async def _recover(_: Sequence[FoundPicture]) -> Made:
    return MADE


def _refuse(_: object) -> tuple[int, object]:
    raise AssertionError("nothing was blocked")


async def make_nothing(_: Wish) -> Made:
    raise AssertionError("the request is made once")


@pytest.fixture
async def processes(migrated_url: str, blobs: Blobs) -> AsyncIterator[list[Process]]:
    """Two processes on one database."""
    made = [Process(name, migrated_url, blobs) for name in ("p1", "p2")]
    yield made
    for process in made:
        await process.ledger.aclose()


@pytest.mark.parametrize("other", [0, 1], ids=["the same process", "another process"])
async def test_a_repetition_waits_until_its_time_is_up(processes: list[Process], other: int) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def make(_: Wish) -> Made:
        begun.set()
        await go.wait()
        return MADE

    first = asyncio.create_task(processes[0].serve(make))
    await begun.wait()
    with pytest.raises(KeyInFlight):
        async with asyncio.timeout(5):
            await processes[other].serve(make_nothing, seconds=0.4)
    go.set()
    assert (await first).status == 200


async def test_paid_pictures_that_are_not_found_are_listed_as_failed(processes: list[Process]) -> None:
    async def make_two_of_four(wish: Wish) -> Made:
        (paid,) = wish.pay_for(IMAGEN, [FOUR_SAMPLES])
        await paid.fence(Place("bucket", f"{paid.id}-", paid.id))
        paid.settle(Bill(2))
        raise UpstreamFailed

    with pytest.raises(UpstreamFailed):
        await processes[0].serve(make_two_of_four)
    reply = await processes[0].serve(make_nothing)
    assert reply.made
    assert reply.made.failed == ("it is unknown whether this picture was made",)
