"""Steps of a stream: on the loop while they are quick, in a thread while they are slow."""

import asyncio
import threading
from contextvars import ContextVar
from itertools import count

import pytest

from app import disk
from app.disk import DiskSteps

pytestmark = pytest.mark.anyio

request_id: ContextVar[str] = ContextVar("request_id")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds each following step takes; 0 when there are none left."""
    seconds: list[float] = []
    now = [0.0]
    turns = count()

    def perf_counter() -> float:
        if next(turns) % 2:
            now[0] += seconds.pop(0) if seconds else 0
        return now[0]

    monkeypatch.setattr(disk, "perf_counter", perf_counter)
    return seconds


async def test_a_step_after_a_slow_one_runs_in_a_thread(clock: list[float]) -> None:
    clock += [0.001, 0.004, 0.006, 0.1, 0.001, 0.001]
    steps = DiskSteps()
    here = threading.get_ident()
    on_loop = [await steps(threading.get_ident) == here for _ in range(6)]
    assert on_loop == [True, True, True, False, False, True]


async def test_what_a_step_returns_and_raises_is_passed_on(clock: list[float]) -> None:
    clock += [1, 1, 1, 1]
    steps = DiskSteps()
    pieces = iter([b"a", b"b"])
    assert [await steps(next, pieces, None) for _ in range(3)] == [b"a", b"b", None]
    with pytest.raises(ZeroDivisionError):
        await steps(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        await DiskSteps()(divmod, 1, 0)


async def test_a_step_in_a_thread_sees_the_context(clock: list[float]) -> None:
    clock += [1]
    request_id.set("r-1")
    steps = DiskSteps()
    assert [await steps(request_id.get) for _ in range(2)] == ["r-1", "r-1"]


async def test_no_step_runs_on_when_its_call_is_cancelled(clock: list[float]) -> None:
    def step() -> None:
        begun.set()
        go_on.wait()
        ended.append(True)

    clock += [1]
    begun, go_on = threading.Event(), threading.Event()
    ended: list[bool] = []
    steps = DiskSteps()
    await steps(int)
    call = asyncio.create_task(steps(step))
    await asyncio.to_thread(begun.wait)
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == [True]
