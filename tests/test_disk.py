"""Steps of a stream: on the loop while the disk is fast, in threads while it is slow."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from app import disk as disk_module
from app.disk import Disk

pytestmark = pytest.mark.anyio

request_id: ContextVar[str] = ContextVar("request_id")


class Clock:
    """A step that calls `wait` has waited so many seconds, one that calls `work` was merely busy."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0

    def work(self, seconds: float) -> int:
        self.now += seconds
        return threading.get_ident()

    def wait(self, seconds: float) -> int:
        self.waits += 1
        return self.work(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(disk_module, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(disk_module, "_waits", lambda: clock.waits)
    return clock


async def slow(clock: Clock) -> Disk:
    """A disk that has just been slow."""
    disk = Disk()
    for _ in range(2):
        await disk(clock.wait, 0.5)
    return disk


async def test_steps_of_the_second_after_two_slow_ones_run_in_threads(clock: Clock) -> None:
    disk, here = Disk(), threading.get_ident()
    on_loop = [await disk(clock.wait, seconds) == here for seconds in (0.004, 0.006, 0.006, 0.6, 0.5, 0.001)]
    assert on_loop == [True, True, True, False, False, True]


async def test_a_slow_step_alone_changes_nothing(clock: Clock) -> None:
    disk, here = Disk(), threading.get_ident()
    assert [await disk(clock.wait, seconds) == here for seconds in (0.006, 1.1, 1.1, 0.001)] == [True] * 4


async def test_a_step_that_was_interrupted_was_not_slow(clock: Clock) -> None:
    disk, here = Disk(), threading.get_ident()
    assert [await disk(clock.work, 1) == here for _ in range(3)] == [True, True, True]


def test_a_real_wait_is_counted() -> None:
    before = disk_module._waits()
    threading.Event().wait(0.01)
    assert disk_module._waits() > before


async def test_what_a_step_returns_and_raises_is_passed_on(clock: Clock) -> None:
    disk = await slow(clock)
    pieces = iter([b"a", b"b"])
    assert [await disk(next, pieces, None) for _ in range(3)] == [b"a", b"b", None]
    with pytest.raises(ZeroDivisionError):
        await disk(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        await Disk()(divmod, 1, 0)


async def test_a_step_in_a_thread_sees_the_context(clock: Clock) -> None:
    disk = await slow(clock)
    request_id.set("r-1")
    assert await disk(request_id.get) == "r-1"


async def test_no_step_runs_on_when_its_call_is_cancelled(clock: Clock) -> None:
    def step() -> None:
        begun.set()
        go_on.wait()
        ended.append(True)

    begun, go_on = threading.Event(), threading.Event()
    ended: list[bool] = []
    disk = await slow(clock)
    call = asyncio.create_task(disk(step))
    await asyncio.to_thread(begun.wait)
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == [True]
