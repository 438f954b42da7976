"""Receipts and usage of what a real ledger has written, on both databases."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.contract.book import Terms
from app.contract.errors import Busy
from app.contract.ledger import Begun, Limit, NewCall, Replay, StoredPicture
from app.db import open_database
from app.services import receipts as service
from app.services.budgets import Budgets, Used
from app.services.receipts import DAY_MS, BookedCall, Cursor, Receipts
from app.storage.ledger import Ledger
from tests.storage.ledgers import assert_adds_up, call, opened, query
from tools.rig import ends

pytestmark = pytest.mark.anyio

NOON = 1_795_089_600_000  # 2026-11-19T12:00Z
MIDNIGHT = NOON + DAY_MS // 2
DECEMBER = NOON + 12 * DAY_MS - DAY_MS // 2


class Clock:
    """The time that the test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_database(migrated_url)
    yield engine
    await engine.dispose()


async def begin(ledger: Ledger, *calls: NewCall, caller: str = "ann", key: str | None = None) -> str:
    outcome = await ledger.begin(
        caller=caller, route="/gen", key=key, fingerprint="f", scopes=(f"user:{caller}",), calls=calls
    )
    assert isinstance(outcome, Begun)
    return outcome.wish


async def test_a_receipt_tells_all_calls(migrated_url: str, database: AsyncEngine, clock: Clock) -> None:
    """A rewrite, a refused and a repeated call, an unknown one, and one that is under way."""
    rewrite = NewCall(0, "claude", "rewrite", 50, 0)
    refused = NewCall(1, "imagen", "text-to-image", 200, 2)
    repeated = NewCall(1, "imagen-4", "text-to-image", 400, 2, attempt=2)
    unknown = NewCall(2, "unpriced", "text-to-image", 0, 1, priced=False)
    abandoned = NewCall(3, "imagen", "text-to-image", 7, 1)
    waiting = NewCall(4, "imagen", "text-to-image", 1000, 1)
    receipts = Receipts(database)
    async with opened(migrated_url, clock=clock) as ledger:
        wish = await begin(ledger, rewrite, refused, repeated, unknown, abandoned, waiting, key="k")
        clock.now += 5
        for one in (rewrite, refused, repeated, unknown, abandoned):
            await ledger.fence(one.id)
        clock.now += 5
        stored = tuple(StoredPicture(repeated.id, n, "b", f"images/x-{n}.png", "image/png") for n in range(2))
        await ends.settle(ledger, rewrite.id, charged=30, made=0, text="a harbour")
        await ends.void(ledger, refused.id)
        await ends.settle(ledger, repeated.id, charged=400, made=2, pictures=stored)
        await ends.unknown(ledger, unknown.id)
        await ends.abandon(ledger, abandoned.id)
        found = await receipts.one("ann", wish)
        assert found
        sent, done = NOON + 5, NOON + 10
        assert found.calls == (
            BookedCall("claude", "rewrite", "settled", 0, 30, True, sent, done),
            BookedCall("imagen", "text-to-image", "void", 2, 0, True, sent, done),
            BookedCall("imagen-4", "text-to-image", "settled", 2, 400, True, sent, done),
            BookedCall("unpriced", "text-to-image", "unknown", 1, 0, False, sent, done),
            BookedCall("imagen", "text-to-image", "abandoned", 1, 7, True, sent, done),
            BookedCall("imagen", "text-to-image", "reserved", 1, 0, True, None, None),
        )
        assert (found.id, found.caller, found.created_at, found.replayed) == (wish, "ann", NOON, False)
        assert (found.operation, found.charged, found.priced) == ("text-to-image", 437, False)
        assert found.pictures == stored
        await ends.finish(ledger, wish, 200, "{}")
        again = await ledger.begin(
            caller="ann", route="/gen", key="k", fingerprint="f", scopes=("user:ann",), calls=(call(),)
        )
        assert again == Replay(wish, 200, "{}")
        told = await receipts.one("ann", wish)
        assert told
        assert told.replayed is True
    assert [await receipts.one(*asked) for asked in (("bob", wish), ("ann", "0" * 32), ("ann", "\0"))] == [
        None,
        None,
        None,
    ]


async def test_pages_survive_new_receipts(migrated_url: str, database: AsyncEngine, clock: Clock) -> None:
    """Also where several have the same time. A wish without calls is no receipt."""
    receipts = Receipts(database)
    async with opened(migrated_url, clock=clock) as ledger:
        wishes = []
        for n in range(7):
            clock.now = NOON + n // 3
            wishes.append(await begin(ledger, call()))
        others = await begin(ledger, call(), caller="bob")
        await begin(ledger)
        first = await receipts.page("ann", limit=3)
        clock.now += 1
        new = await begin(ledger, call())
        ids, page = [one.id for one in first.receipts], first
        while page.next:
            page = await receipts.page("ann", limit=3, after=Cursor.read(str(page.next)))
            ids += [one.id for one in page.receipts]
        expected = [wishes[6], *sorted(wishes[3:6], reverse=True), *sorted(wishes[:3], reverse=True)]
        assert ids == expected
        everybodys = await receipts.page(None, limit=100)
        assert {one.id for one in everybodys.receipts} == {*wishes, others, new}
        assert everybodys.next is None
        assert (await receipts.page("nobody", limit=3)).receipts == ()
        for anywhere in ("A" * 32, "_" * 32, "z" * 32):  # what is written like a cursor is one
            await receipts.page("ann", limit=3, after=Cursor.read(anywhere))


async def test_usage(migrated_url: str, database: AsyncEngine, clock: Clock) -> None:
    defaults = (Limit("", "usd", "day", 1000), Limit("", "pictures", "total", 9))
    budgets = Budgets(database, defaults, clock=clock)
    plain = Budgets(database, clock=clock)
    ann, web = "user:ann", "key:web"
    async with opened(migrated_url, terms=Terms(defaults=defaults), clock=clock) as ledger:
        done, open_ = call(micros=100, samples=2), call(slot=1, micros=50)
        outcome = await ledger.begin(
            caller="ann", route="/gen", key=None, fingerprint="f", scopes=(ann, web), calls=(done, open_)
        )
        assert isinstance(outcome, Begun)
        await ledger.fence(done.id)
        await ends.settle(ledger, done.id, charged=90, made=1)
        assert await plain.usage((ann,)) == [
            Used("usd", "month", None, 90, 50, DECEMBER),
            Used("pictures", "month", None, 1, 1, DECEMBER),
        ]
        assert await budgets.usage((ann,)) == [
            Used("usd", "day", 1000, 90, 50, MIDNIGHT),
            Used("pictures", "total", 9, 1, 1, None),
        ]
        own = [Limit(ann, "usd", "total", 5), Limit(ann, "usd", "month", 500), Limit(web, "usd", "day", 7)]
        await budgets.set(own)
        await budgets.set([Limit(ann, "usd", "total", 600)])  # replaces
        assert await budgets.all() == [own[2], own[1], own[0]._replace(amount=600)]
        clock.now += DAY_MS
        assert await budgets.usage((ann, web)) == [
            Used("usd", "month", 500, 90, 50, DECEMBER),
            Used("usd", "total", 600, 90, 50, None),
            Used("usd", "day", 7, 0, 0, MIDNIGHT + DAY_MS),
            Used("pictures", "total", 9, 1, 1, None),
        ]
        assert await budgets.usage(("user:nobody",)) == [
            Used("usd", "day", 1000, 0, 0, MIDNIGHT + DAY_MS),
            Used("pictures", "total", 9, 0, 0, None),
        ]
        assert (await budgets.clear(ann), await budgets.clear(ann)) == (True, False)
        assert await budgets.all() == [own[2]]


async def test_old_receipts_are_removed(
    migrated_url: str, database: AsyncEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their calls, pictures and counters, in small transactions; never one that is not finished."""
    monkeypatch.setattr(service, "_WISHES", 2)
    monkeypatch.setattr(service, "_COUNTERS", 3)
    monkeypatch.setattr(service, "_PAUSE_SECONDS", 0)
    receipts = Receipts(database)
    async with opened(migrated_url, clock=clock) as ledger:
        for n in range(5):
            clock.now = NOON - 40 * DAY_MS + n * DAY_MS
            one = call()
            wish = await begin(ledger, one)
            await ledger.fence(one.id)
            picture = StoredPicture(one.id, 0, "b", f"{n}.png", "image/png")
            await ends.settle(ledger, one.id, charged=100, made=1, pictures=(picture,))
            await ends.finish(ledger, wish, 200, "{}")
        sent, paid = call(), call()
        running = await begin(ledger, call())
        open_ = await begin(ledger, sent)
        await ledger.fence(sent.id)
        await ends.finish(ledger, open_)
        keyed = await begin(ledger, paid, key="k")
        await ledger.fence(paid.id)
        await ends.settle(ledger, paid.id, charged=1, made=1)
        await ends.finish(ledger, keyed, 200, "{}")
        clock.now = NOON
        young = await begin(ledger, call())
        assert await receipts.remove(NOON) == 5
        page = await receipts.page(None, limit=100)
        assert {one.id for one in page.receipts} == {running, open_, keyed, young}
        calls, pictures = "SELECT count(*) FROM calls", "SELECT count(*) FROM pictures"
        assert [tuple((await query(migrated_url, one))[0]) for one in (calls, pictures)] == [(4,), (0,)]
        counters = await query(migrated_url, "SELECT period FROM counters ORDER BY period")
        assert [row[0] for row in counters] == ["2026-11", "2026-11-19", "total"]
        # What ends later changes the counters as ever.
        await ends.settle(ledger, sent.id, charged=90, made=1)
        assert await receipts.remove(NOON) == 1


async def test_several_gateways_remove_at_once(
    migrated_url: str, database: AsyncEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_WISHES", 3)
    monkeypatch.setattr(service, "_PAUSE_SECONDS", 0)
    async with opened(migrated_url, clock=clock) as ledger:
        for wish in await asyncio.gather(*(begin(ledger, call()) for _ in range(30))):
            await ends.finish(ledger, wish)
        removing = (Receipts(database).remove(NOON + 1) for _ in range(3))
        removed, _ = await asyncio.gather(
            asyncio.gather(*removing), asyncio.gather(*(begin(ledger, call()) for _ in range(30)))
        )
        assert sum(removed) == 30
    await assert_adds_up(migrated_url)


async def test_a_database_that_is_down_or_hangs_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        for port in (1, hangs.getsockname()[1]):
            engine = open_database(f"postgresql+asyncpg://nobody@127.0.0.1:{port}/nothing")
            receipts, budgets = Receipts(engine), Budgets(engine)
            for asked in (
                receipts.page("ann", limit=1),
                receipts.one("ann", "0" * 32),
                budgets.usage(("a",)),
            ):
                with pytest.raises(Busy):
                    await asked
            await engine.dispose()
