"""The ledger on both databases: its rules hold with any number of callers, and commits are joined."""

import asyncio
from collections import Counter as Tally
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.contract.book import Terms
from app.contract.bookkeeping import Begin, Close, Finish
from app.contract.errors import Busy
from app.contract.ledger import (
    Begun,
    Limit,
    NewCall,
    OtherRequest,
    OverBudget,
    Record,
    Replay,
    Running,
    StoredPicture,
    TakenOver,
    Unpriced,
    new_id,
)
from app.storage.ledger import Ledger
from tests.storage.ledgers import (
    SCOPES,
    Watched,
    assert_adds_up,
    begin,
    begun,
    call,
    opened,
    query,
    states,
    until,
)
from tools.rig import ends

pytestmark = pytest.mark.anyio

TEN_PICTURES = Terms(defaults=(Limit("", "pictures", "day", 10),))
NOON = 1_795_089_600_000  # 2026-11-19T12:00Z
DAY = 86_400_000


async def test_the_life_of_a_wish(migrated_url: str) -> None:
    async with opened(migrated_url) as ledger:
        rewrite, picture = call(micros=5, samples=0), call(slot=1, micros=200, samples=2)
        wish = await begun(ledger, rewrite, key="k")
        await ledger.fence(rewrite.id)
        assert await ends.settle(ledger, rewrite.id, charged=3, made=0)
        await ledger.reserve(wish, [picture], SCOPES)
        await ledger.fence(picture.id, bucket="b", stem="images/x-")
        assert await begin(ledger, key="k") == Running(wish, "p1")
        stored = tuple(StoredPicture(picture.id, n, "b", f"images/x-{n}.png", "image/png") for n in range(2))
        assert await ends.settle(ledger, picture.id, charged=180, made=2, pictures=stored)
        assert await ends.finish(ledger, wish, 201, '{"é": 1}')
        assert await begin(ledger, key="k") == Replay(wish, 201, '{"é": 1}')
        record = await ledger.look(wish)
        assert isinstance(record, Record)
        assert record.pictures == stored
        assert [(one.state, one.charged, one.made, one.stem) for one in record.calls] == [
            ("settled", 3, 0, None),
            ("settled", 180, 2, "images/x-"),
        ]
        assert record.calls[0].priced is True
        assert record.calls[1].created_at <= (record.calls[1].sent_at or 0) <= (record.calls[1].done_at or 0)
        assert await ledger.look("nothing") is None
    await assert_adds_up(migrated_url)
    (row,) = await query(migrated_url, "SELECT spent_micros, spent_pictures FROM counters "
                                       "WHERE scope = 'ann' AND period = 'total'")  # fmt: skip
    assert tuple(row) == (183, 2)


async def test_what_has_ended_does_not_end_again(migrated_url: str) -> None:
    async with opened(migrated_url) as ledger, opened(migrated_url, "p2") as other:
        one, two = call(), call(slot=1)
        await begun(ledger, one, two)
        await ledger.fence(one.id)
        both = await asyncio.gather(
            ends.settle(ledger, one.id, charged=90, made=1), ends.settle(other, one.id, charged=80, made=1)
        )
        assert sorted(both) == [False, True]
        assert not await ends.void(ledger, one.id)
        assert not await ends.unknown(other, one.id)
        assert await ends.void(other, two.id)
        with pytest.raises(Busy):
            await ledger.fence(two.id)
        with pytest.raises(Busy):
            await ledger.fence(one.id)
    await assert_adds_up(migrated_url)


async def test_only_one_passes_the_fence(migrated_url: str) -> None:
    async with opened(migrated_url) as ledger, opened(migrated_url, "p2") as other:
        one = call()
        await begun(ledger, one)
        outcomes = await asyncio.gather(
            *(who.fence(one.id) for who in (ledger, other) * 5), return_exceptions=True
        )
    assert Tally(type(outcome) for outcome in outcomes) == {type(None): 1, Busy: 9}


async def test_ten_pictures_for_two_hundred(migrated_url: str) -> None:
    async with (
        opened(migrated_url, terms=TEN_PICTURES) as ledger,
        opened(migrated_url, "p2", terms=TEN_PICTURES) as other,
    ):
        calls = [call() for _ in range(200)]
        ledgers = [ledger, other] * 100
        outcomes = await asyncio.gather(
            *(begin(who, one, key=one.id) for who, one in zip(ledgers, calls, strict=True))
        )
        assert Tally(type(outcome) for outcome in outcomes) == {Begun: 10, OverBudget: 190}
        admitted = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Begun)]
        assert set(await states(migrated_url)) == {calls[n].id for n in admitted}
        await ends.finish(other, outcomes[admitted[0]].wish)  # the other process's wish, perhaps
        await ends.finish(ledgers[admitted[0]], outcomes[admitted[0]].wish)
        assert isinstance(await begin(ledger, call()), Begun)
        assert isinstance(await begin(other, call()), OverBudget)
    await assert_adds_up(migrated_url)


async def test_one_key_for_two_gateways(migrated_url: str) -> None:
    async with opened(migrated_url) as ledger, opened(migrated_url, "p2") as other:
        for key in map(str, range(20)):
            outcomes = await asyncio.gather(*(begin(who, call(), key=key) for who in (ledger, other) * 3))
            assert Tally(type(outcome) for outcome in outcomes) == {Begun: 1, Running: 5}
            assert len({outcome.wish for outcome in outcomes}) == 1
            assert isinstance(await begin(other, key=key, fingerprint="g"), OtherRequest)
    assert len(await states(migrated_url)) == 20


async def test_an_interrupted_wish_is_taken_over_once(migrated_url: str) -> None:
    async with opened(migrated_url) as ledger, opened(migrated_url, "p2") as other:
        one = call()
        wish = await begun(ledger, one, key="k")
        await ledger.fence(one.id)
        await ends.unknown(ledger, one.id)
        assert await ends.finish(ledger, wish)
        outcomes = await asyncio.gather(*(begin(who, call(), key="k") for who in (ledger, other) * 3))
        assert Tally(type(outcome) for outcome in outcomes) == {TakenOver: 1, Running: 5}
    assert await states(migrated_url) == {one.id: "unknown"}


async def test_a_budget_comes_back_with_its_period(migrated_url: str) -> None:
    now = NOON
    limits = (Limit("", "pictures", "day", 1), Limit("", "usd", "month", 350))
    async with opened(migrated_url, terms=Terms(defaults=limits), clock=lambda: now) as ledger:
        first = call()
        await begun(ledger, first)
        refused = await begin(ledger, call())
        assert (refused.limit.period, refused.resets_at) == ("day", NOON + DAY // 2)
        now += DAY
        second = call()
        await begun(ledger, second)
        for one in (first, second):  # settled on the second day: each counts for the day of its reservation
            await ledger.fence(one.id)
            await ends.settle(ledger, one.id, charged=150, made=1)
        now += DAY
        refused = await begin(ledger, call())
        assert (refused.limit.period, refused.taken) == ("month", 300)
        now += 30 * DAY
        assert isinstance(await begin(ledger, call()), Begun)
    await assert_adds_up(migrated_url)
    days = await query(
        migrated_url,
        "SELECT period, spent_pictures FROM counters "
        "WHERE scope = 'ann' AND period < '2026-12' ORDER BY period",
    )
    assert [tuple(row) for row in days] == [("2026-11", 2), ("2026-11-19", 1), ("2026-11-20", 1)]


async def test_a_wish_that_is_refused_leaves_nothing_behind(migrated_url: str) -> None:
    """Whoever has spent a budget and repeats requests with ever new keys does not fill the database."""
    async with opened(migrated_url, terms=TEN_PICTURES) as ledger, opened(migrated_url, "p2") as other:
        wish = await begun(ledger, key="k")
        assert isinstance(await ledger.reserve(wish, [call(samples=11)], SCOPES), OverBudget)
        finished, again = await asyncio.gather(
            ends.finish(ledger, wish), begun(ledger, key="k")
        )  # in one batch
        assert finished is False
        assert not await ends.finish(ledger, wish, 200, "body")
        assert await begin(other, key="k") == Running(again, "p1")
        assert not await ends.finish(ledger, again)
        assert await ledger.look(again) is None
        kept = await begun(other, call(), key="k")
        assert not await ends.finish(other, kept)  # its call is void, and is told on its receipt
    assert [row[0] for row in await query(migrated_url, "SELECT id FROM wishes")] == [kept]
    await assert_adds_up(migrated_url)


async def test_a_limit_is_in_force_at_once(migrated_url: str) -> None:
    async with opened(migrated_url, terms=TEN_PICTURES) as ledger:
        await begun(ledger, call(samples=10))
        assert isinstance(await begin(ledger, call()), OverBudget)
        await query(migrated_url, "INSERT INTO limits VALUES ('ann', 'pictures', 'total', 11)")
        await begun(ledger, call())
        await query(migrated_url, "INSERT INTO limits VALUES ('key:web', 'usd', 'day', 1000000)")
        unpriced = NewCall(0, "model", "gen", 0, 0, priced=False)
        assert await begin(ledger, unpriced) == Unpriced("model", "key:web")


@pytest.mark.parametrize("name", ["ann\nbob", "ann\u2028bob", "ann\x1cbob", '["bob"]'])
async def test_a_strange_name_counts_for_itself_alone(migrated_url: str, name: str) -> None:
    """A token's subject may hold line breaks."""
    async with opened(migrated_url) as ledger:
        outcome = await ledger.begin(
            caller=name, route="/gen", key=None, fingerprint="f", scopes=(name,), calls=(call(),)
        )
    assert isinstance(outcome, Begun)
    assert {row[0] for row in await query(migrated_url, "SELECT scope FROM counters")} == {name}
    await assert_adds_up(migrated_url)


async def test_commits_are_joined(migrated_url: str) -> None:
    store = Watched(migrated_url)
    ledger = Ledger(store, "p1")
    calls = [call() for _ in range(100)]
    await asyncio.gather(*(begun(ledger, one) for one in calls))
    await asyncio.gather(*(ledger.fence(one.id) for one in calls))
    assert store.batches == [64, 36, 64, 36]
    await ledger.aclose()


async def test_what_nobody_waits_for_is_committed_with_others(migrated_url: str) -> None:
    store, one, other = Watched(migrated_url), call(), call()
    ledger = Ledger(store, "p1")
    wish = await begun(ledger, one)
    await ledger.fence(one.id)
    ledger.submit(Close(one.id, "settled", 50, 1))
    ledger.submit(Finish(wish, "p1"))
    await begun(ledger, other)
    assert store.batches == [1, 1, 3]
    ledger.submit(Close(other.id, "void"))
    await ledger.written()
    assert await states(migrated_url) == {one.id: "settled", other.id: "void"}
    await ledger.aclose()


async def test_what_nobody_waits_for_is_committed_without_others(migrated_url: str) -> None:
    store, one = Watched(migrated_url), call()
    ledger = Ledger(store, "p1")
    await begun(ledger, one)
    await ledger.fence(one.id)
    ledger.submit(Close(one.id, "unknown"))
    await until(lambda: store.done == 3)
    assert await states(migrated_url) == {one.id: "unknown"}
    ledger.submit(Close(one.id, "settled", 50, 1))
    await ledger.aclose()
    assert await states(migrated_url) == {one.id: "settled"}


async def test_what_is_undone_while_the_ledger_closes_is_written(migrated_url: str) -> None:
    store, one = Watched(migrated_url), call()
    ledger = Ledger(store, "p1")
    store.go.clear()
    beginning = asyncio.create_task(begun(ledger, one))
    await until(lambda: store.batches == [1])
    beginning.cancel()
    closing = asyncio.create_task(ledger.aclose())
    await asyncio.wait((beginning,))
    store.go.set()
    await closing
    assert await states(migrated_url) == {one.id: "void"}


async def test_one_bad_member_does_not_fail_the_others(migrated_url: str) -> None:
    """The same call twice in one wish, a number and a text that no database takes: each fails alone."""
    async with opened(migrated_url) as ledger:
        good = [call() for _ in range(5)]
        outcomes = await asyncio.gather(
            *(begin(ledger, one) for one in good[:3]),
            begin(ledger, call(), call()),
            begin(ledger, call(micros=2**63)),
            begin(ledger, call(), key="\udc00"),
            *(begin(ledger, one) for one in good[3:]),
            return_exceptions=True,
        )
        kinds = [isinstance(outcome, Begun) for outcome in outcomes]
        assert kinds == [True] * 3 + [False] * 3 + [True] * 2
        assert not any(isinstance(outcome, Busy) for outcome in outcomes)
    assert set(await states(migrated_url)) == {one.id for one in good}
    await assert_adds_up(migrated_url)


async def test_a_call_is_reserved_once(migrated_url: str) -> None:
    """Its id is part of the names of its pictures, and its price was counted."""
    async with opened(migrated_url) as ledger:
        one = call()
        both = await asyncio.gather(begin(ledger, one), begin(ledger, one), return_exceptions=True)
        assert [isinstance(outcome, Begun) for outcome in both] == [True, False]
        more = NewCall(0, "model", "gen", 10**6, 9, id=one.id)
        with pytest.raises(Exception):  # noqa: B017, PT011 - the database's own
            await begin(ledger, more)
    assert await states(migrated_url) == {one.id: "reserved"}
    assert len(await query(migrated_url, "SELECT id FROM wishes")) == 1
    await assert_adds_up(migrated_url)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_caller_who_leaves(migrated_url: str, late: bool) -> None:
    """Before the transaction nothing is written; after it what was reserved is given back."""
    store = Watched(migrated_url)
    ledger = Ledger(store, "p1")
    fenced, stays = call(), call()
    await begun(ledger, fenced)
    store.late = late
    store.go.clear()
    leaving = [
        asyncio.create_task(begin(ledger, call(), key="k")),
        asyncio.create_task(ledger.fence(fenced.id)),
    ]
    staying = asyncio.create_task(begun(ledger, stays))
    batches = len(store.batches)
    await until(lambda: len(store.batches) > batches)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    store.go.set()
    await staying
    assert isinstance(await begin(ledger, call(), key="k"), Begun)  # the key is free
    assert (await states(migrated_url))[fenced.id] == "void"
    assert (await states(migrated_url))[stays.id] == "reserved"
    await ledger.aclose()
    await assert_adds_up(migrated_url)


async def test_what_has_happened_is_written_although_its_caller_has_left(migrated_url: str) -> None:
    store = Watched(migrated_url)
    ledger = Ledger(store, "p1")
    one, two = call(), call(slot=1)
    wish = await begun(ledger, one, two, key="k")
    await ledger.fence(one.id)
    store.go.clear()
    other = asyncio.create_task(begun(ledger, call()))  # the writer is busy with it
    settling = asyncio.create_task(ends.settle(ledger, one.id, charged=100, made=1))
    finishing = asyncio.create_task(ends.finish(ledger, wish, 200, "body"))
    await asyncio.sleep(0)
    settling.cancel()
    finishing.cancel()
    store.go.set()
    await other
    await ledger.aclose()
    async with opened(migrated_url) as again:
        assert await begin(again, key="k") == Replay(wish, 200, "body")
    assert await states(migrated_url) | {one.id: "settled", two.id: "void"} == await states(migrated_url)


async def test_a_call_has_a_deadline(migrated_url: str) -> None:
    store = Watched(migrated_url)
    ledger = Ledger(store, "p1", wait_seconds=0.05)
    store.go.clear()
    with pytest.raises(Busy):
        await begin(ledger, call(), key="k")
    store.go.set()
    await until(lambda: len(store.batches) == 2)  # the second gives back what the first has reserved
    await ledger.aclose()
    assert list((await states(migrated_url)).values()) == ["void"]
    await assert_adds_up(migrated_url)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "fence", "settle", "void", "unknown", "abandon", "reserve", "finish"]),
        st.integers(0, 5),  # which wish
        st.integers(0, 120),  # micro-USD
        st.integers(0, 3),  # pictures
        st.booleans(),  # over which ledger
    ),
    max_size=30,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # every example begins wishes of its own in the same tables
@given(batches=st.lists(STEPS, max_size=3))
async def test_money_never_leaks(migrated_url: str, batches: list[list[tuple[Any, ...]]]) -> None:
    """Whatever is done at once and in any order, the books add up and no budget is overdrawn by reserving."""
    terms = Terms(defaults=(Limit("", "pictures", "total", 10**6),))
    async with opened(migrated_url, terms=terms) as ledger, opened(migrated_url, "p2", terms=terms) as other:
        calls: list[NewCall] = [call() for _ in range(6)]
        wishes = [new_id() for _ in calls]

        async def step(what: str, n: int, micros: int, pictures: int, first: bool) -> object:
            who = ledger if first else other
            one, wish = calls[n], wishes[n]
            match what:
                case "begin":
                    new = NewCall(0, "model", "gen", micros, pictures, id=one.id)
                    return await who.do(Begin(wish, "ann", "/gen", wish, "f", (new,), SCOPES, who.process))
                case "reserve":
                    new = NewCall(1 + pictures, "model", "gen", micros, pictures)
                    return await who.reserve(wish, [new], SCOPES)
                case "fence":
                    await who.fence(one.id)
                    return None
                case "settle":
                    return await ends.settle(who, one.id, charged=micros, made=pictures)
                case "finish":
                    return await ends.finish(who, wish, 200 if pictures else None, "body")
                case _:
                    return await getattr(who, what)(one.id)

        for batch in batches:
            await asyncio.gather(*(step(*one) for one in batch), return_exceptions=True)
            await assert_adds_up(migrated_url)
