"""Bytes under way stay within the limit; who waits is served in order; who leaves gives back."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.errors import UpstreamUnavailable
from app.services.budget import Budget

pytestmark = pytest.mark.anyio


class Holder:
    """A call that holds bytes until it is let go."""

    def __init__(self, budget: Budget, size: int) -> None:
        self.inside = False
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(budget, size))

    async def _hold(self, budget: Budget, size: int) -> None:
        async with budget.hold(size):
            self.inside = True
            await self._go.wait()
        self.inside = False

    async def end(self) -> None:
        self._go.set()
        await asyncio.wait([self.task])
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    budget = Budget(10, max_waiting=10)
    first, large, small = Holder(budget, 6), Holder(budget, 8), Holder(budget, 1)
    await settle()
    assert [h.inside for h in (first, large, small)] == [True, False, False]
    await first.end()
    assert [h.inside for h in (large, small)] == [True, True]
    await large.end()
    await small.end()


async def test_beyond_the_queue_is_refused_at_once() -> None:
    budget = Budget(10, max_waiting=1)
    first, second = Holder(budget, 10), Holder(budget, 10)
    await settle()
    with pytest.raises(UpstreamUnavailable) as caught:
        async with budget.hold(1):
            pass
    assert caught.value.retry_after == 5
    await first.end()
    assert second.inside
    await second.end()


async def test_a_call_larger_than_the_limit_runs_alone() -> None:
    budget = Budget(10, max_waiting=1)
    async with budget.hold(1000):
        waiting = Holder(budget, 1)
        await settle()
        assert not waiting.inside
    await settle()
    assert waiting.inside
    await waiting.end()


async def test_who_leaves_the_queue_lets_the_next_in() -> None:
    budget = Budget(10, max_waiting=10)
    first, large, small = Holder(budget, 5), Holder(budget, 9), Holder(budget, 5)
    await settle()
    large.task.cancel()
    await settle()
    assert small.inside
    await first.end()
    await small.end()


async def test_cancelled_on_the_way_in_gives_back() -> None:
    budget = Budget(10, max_waiting=10)
    first, second = Holder(budget, 10), Holder(budget, 10)
    await settle()
    first._go.set()
    await asyncio.wait([first.task])  # second has its turn, but has not run yet
    second.task.cancel()
    await settle()
    async with asyncio.timeout(1), budget.hold(10):
        pass


async def test_cancelled_in_the_same_turn_as_the_place_becomes_free() -> None:
    budget = Budget(10, max_waiting=10)
    first, leaving, staying = Holder(budget, 10), Holder(budget, 10), Holder(budget, 10)
    await settle()
    first._go.set()
    leaving.task.cancel()  # its future is cancelled at once; its own code runs after first's
    await settle()
    assert (first.task.exception(), leaving.task.cancelled(), staying.inside) == (None, True, True)
    await staying.end()
    async with asyncio.timeout(1), budget.hold(10):
        pass


async def test_who_has_left_does_not_fill_the_queue() -> None:
    budget = Budget(10, max_waiting=2)
    first, leaving, staying = Holder(budget, 10), Holder(budget, 10), Holder(budget, 10)
    await settle()
    staying.task.cancel()
    await settle()
    last = Holder(budget, 10)
    await settle()
    assert not last.task.done()
    for holder in (first, leaving, last):
        await holder.end()
    assert not last.task.exception()


async def test_all_leave_together() -> None:
    budget = Budget(10, max_waiting=10)
    holders = [Holder(budget, 10) for _ in range(6)]
    await settle()
    for holder in holders:
        holder.task.cancel()
    await asyncio.wait([holder.task for holder in holders])
    assert all(holder.task.cancelled() for holder in holders)
    async with asyncio.timeout(1), budget.hold(10):
        pass


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["begin", "end", "cancel"]), st.integers(1, 15), st.booleans()), max_size=40
    )
)
async def test_the_limit_holds_whatever_happens(steps: list[tuple[str, int, bool]]) -> None:
    budget, holders, sizes = Budget(10, max_waiting=100), [], {}
    for step, number, pause in steps:
        if step == "begin":
            holders.append(Holder(budget, number))
            sizes[holders[-1]] = min(number, 10)
        elif holders:
            holder = holders[number % len(holders)]
            if step == "end":
                holder._go.set()
            else:
                holder.task.cancel()
        if pause:  # without a pause, several steps happen in one turn of the loop
            await settle()
        assert sum(sizes[h] for h in holders if h.inside and not h.task.done()) <= 10
    for holder in holders:
        holder._go.set()
    if holders:
        await asyncio.wait([holder.task for holder in holders])
    assert not [h for h in holders if not h.task.cancelled() and h.task.exception()]
    async with asyncio.timeout(1), budget.hold(10):
        pass
