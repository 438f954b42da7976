"""Many requests at once begin a few at a time, in their order, and the loop turns in between."""

import asyncio

import pytest

from app.api.pace import Pace

pytestmark = pytest.mark.anyio


async def test_a_few_begin_in_each_turn_of_the_loop() -> None:
    pace, begun, turns = Pace(), list[int](), 0

    async def request(number: int) -> None:
        await pace.begin()
        begun.append(number)

    requests = [asyncio.create_task(request(number)) for number in range(100)]
    most = 0
    while not all(one.done() for one in requests):
        before = len(begun)
        await asyncio.sleep(0)
        turns += 1
        most = max(most, len(begun) - before)
    assert begun == list(range(100))
    assert most <= 16  # those of two turns, at most
    assert turns >= 100 // 16


async def test_one_that_is_cancelled_delays_nobody() -> None:
    pace = Pace()
    requests = [asyncio.create_task(pace.begin()) for _ in range(50)]
    await asyncio.sleep(0)
    for one in requests[8:48]:
        one.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(*requests, return_exceptions=True)
        await pace.begin()
