"""When calls are reserved and sent, and in how many commits."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from app.contract.book import Terms
from app.contract.errors import BudgetExhausted, Busy
from app.contract.ledger import Limit
from app.contract.models import load_catalogue
from app.contract.prices import Order, load_prices, today
from app.pictures.blob import Blobs
from app.ports import Bill
from app.services.auth import Caller
from app.services.paying import Paying
from app.services.wish import Wish
from app.storage.ledger import Ledger
from tests.storage.ledgers import Watched, assert_adds_up, states, until
from tests.support.fake_wish import NothingKept, no_finder

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
GEMINI = CATALOGUE["gemini-2.5-flash-image"]
ORDER = Order(GEMINI.id, "text-to-image", today(), size="1K", text_bytes=5)
THREE_PICTURES = Terms(defaults=(Limit("", "pictures", "day", 3),))


@pytest.fixture
async def store(migrated_url: str) -> AsyncIterator[Watched]:
    store = Watched(migrated_url, THREE_PICTURES)
    yield store
    await assert_adds_up(migrated_url)


@pytest.fixture
async def new_wish(store: Watched, blobs: Blobs) -> AsyncIterator[Callable[[], Wish]]:
    ledger = Ledger(store, "p1")
    paying = Paying(ledger, load_prices(CATALOGUE), no_finder(blobs), NothingKept())
    yield lambda: paying.wish(Caller("ann", "ann", 0), "/api/v1/image/text-to-image", None)
    await ledger.aclose()


async def test_a_call_costs_one_commit(
    store: Watched, new_wish: Callable[[], Wish], migrated_url: str
) -> None:
    """It is reserved as it is sent. Its end is committed with the next call."""
    for batches in ([2], [2, 4]):
        wish = new_wish()
        (paid,) = wish.pay_for(GEMINI, [ORDER])
        await paid.fence(None)
        assert store.batches == batches
        paid.settle(Bill(1))
        wish.finish()


async def test_who_waits_for_a_place_has_reserved(
    store: Watched, new_wish: Callable[[], Wish], migrated_url: str
) -> None:
    (paid,) = new_wish().pay_for(GEMINI, [ORDER])
    await paid.reserve()
    assert await states(migrated_url) == {paid.id: "reserved"}
    await paid.fence(None)
    assert await states(migrated_url) == {paid.id: "sent"}


async def test_samples_are_reserved_together(
    store: Watched, new_wish: Callable[[], Wish], migrated_url: str
) -> None:
    samples = new_wish().pay_for(GEMINI, [ORDER] * 3)
    await asyncio.gather(*(one.fence(None) for one in samples))
    assert store.batches == [2, 2]
    assert await states(migrated_url) == {one.id: "sent" for one in samples}


async def test_of_samples_that_a_budget_does_not_allow_none_is_sent(
    store: Watched, new_wish: Callable[[], Wish], migrated_url: str
) -> None:
    samples = new_wish().pay_for(GEMINI, [ORDER] * 4)
    outcomes = await asyncio.gather(*(one.fence(None) for one in samples), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BudgetExhausted] * 4
    for one in samples:
        one.void()
    assert await states(migrated_url) == {}


async def test_a_call_that_is_given_up_while_it_is_fenced_is_void(
    store: Watched, new_wish: Callable[[], Wish], migrated_url: str
) -> None:
    (paid,) = new_wish().pay_for(GEMINI, [ORDER])
    store.go.clear()
    fencing = asyncio.create_task(paid.fence(None))
    await until(lambda: bool(store.batches))
    fencing.cancel()
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await fencing
    paid.void()
    await until(lambda: store.done == 2)
    assert await states(migrated_url) == {paid.id: "void"}


async def test_samples_are_not_sent_when_their_reservation_was_cancelled(
    store: Watched, new_wish: Callable[[], Wish], migrated_url: str
) -> None:
    first, second = new_wish().pay_for(GEMINI, [ORDER] * 2)
    store.go.clear()
    reserving = asyncio.create_task(first.reserve())
    await until(lambda: bool(store.batches))
    reserving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reserving
    store.go.set()
    with pytest.raises(Busy):
        await second.reserve()
    first.void()
    second.void()
    await until(lambda: store.done == 2)
