"""Counting: in Redis for all, in memory for one, and what happens when Redis is gone."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from app.contract.errors import RateLimited
from app.services.limits import RateLimit, Window

pytestmark = pytest.mark.anyio

NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
async def limit(redis_url: str | None) -> AsyncIterator[RateLimit]:
    limit = RateLimit("3/minute", name="test", redis_url=redis_url)
    yield limit
    await limit.aclose()


async def test_hits_count_down_to_a_refusal(limit: RateLimit) -> None:
    windows = [await limit.hit("ann") for _ in range(3)]
    assert [(window.limit, window.remaining) for window in windows if window] == [(3, 2), (3, 1), (3, 0)]
    assert all(0 < window.reset_seconds <= 60 for window in windows if window)
    with pytest.raises(RateLimited) as refusal:
        await limit.hit("ann")
    assert 0 < refusal.value.retry_after <= 60
    assert not refusal.value.by_vendor


async def test_keys_and_names_are_counted_apart(limit: RateLimit, redis_url: str | None) -> None:
    other = RateLimit("3/minute", name="other", redis_url=redis_url)
    await limit.hit("ann")
    for fresh in (await limit.hit("bob"), await other.hit("ann")):
        assert fresh
        assert fresh.remaining == 2
    await other.aclose()


async def test_hits_at_the_same_moment_are_all_counted(limit: RateLimit) -> None:
    outcomes = await asyncio.gather(*(limit.hit("ann") for _ in range(10)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(Window) == 3


@pytest.mark.parametrize("phase", [0, 1, 29, 30, 59])
@pytest.mark.parametrize("pace", [0, 3, 11])
async def test_retry_after_is_the_first_second_that_lets_one_through(
    monkeypatch: pytest.MonkeyPatch, phase: int, pace: int
) -> None:
    """Wherever in its minute the first hit falls, and whatever the seconds between hits."""
    now = 1_000_000_020.5 + phase
    monkeypatch.setattr(time, "time", lambda: now)
    limit = RateLimit("3/minute", name="test")
    retry_after = 0
    while not retry_after:
        try:
            await limit.hit("ann")
            now += pace
        except RateLimited as refusal:
            retry_after = refusal.retry_after
    now += retry_after - 1
    with pytest.raises(RateLimited):
        await limit.hit("ann")
    now += 1
    assert await limit.hit("ann")


async def test_several_limits_tell_the_tightest() -> None:
    limit = RateLimit("5/minute; 2/hour", name="test")
    window = await limit.hit("ann")
    assert window
    assert (window.limit, window.remaining) == (2, 1)


async def test_empty_notation_is_off() -> None:
    limit = RateLimit("", name="test")
    assert [await limit.hit("ann") for _ in range(100)] == [None] * 100


def test_wrong_notation_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="sixty"):
        RateLimit("sixty per minute", name="test")


async def test_without_redis_each_process_counts_alone() -> None:
    limit = RateLimit("3/minute", name="test", redis_url=NOWHERE, redis_pause_seconds=3600)
    with capture_logs() as lines:
        assert [window.remaining for _ in range(3) if (window := await limit.hit("ann"))] == [2, 1, 0]
        with pytest.raises(RateLimited):
            await limit.hit("ann")
    assert [line["log_level"] for line in lines] == ["warning"]
    reason = await limit.ready()
    assert reason
    assert reason.startswith("counted per process: StorageError")
    await limit.aclose()


async def test_redis_that_hangs_is_not_waited_for() -> None:
    """Accepts connections and never answers."""
    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limit = RateLimit("3/minute", name="test", redis_url=f"redis://127.0.0.1:{port}")
    async with asyncio.timeout(30):
        window = await limit.hit("ann")
    assert window
    assert window.remaining == 2
    await limit.aclose()
    for writer in connections:
        writer.close()
    server.close()


async def test_processes_share_a_count(redis: str) -> None:
    here, there = (RateLimit("3/minute", name="test", redis_url=redis) for _ in range(2))
    await here.hit("ann")
    window = await there.hit("ann")
    assert window
    assert window.remaining == 1
    assert await here.ready() is None
    await here.aclose()
    await there.aclose()


async def test_redis_is_used_again_when_it_is_back(redis: str) -> None:
    limit = RateLimit("3/minute", name="test", redis_url=redis)
    limit._shared_again_at = time.monotonic() + 3600  # as after a failure
    alone = await limit.hit("ann")
    limit._shared_again_at = time.monotonic()
    together = await limit.hit("ann")
    assert alone
    assert together
    assert alone.remaining == together.remaining == 2
    await limit.aclose()
