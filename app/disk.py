"""Runs steps that touch the disk: on the event loop while the disk is fast, else in threads."""

import asyncio
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import perf_counter
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_SLOW_SECONDS = 0.005
_REST_SECONDS = 1.0

_WHO = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)

_threads = ThreadPoolExecutor(8, thread_name_prefix="disk")


class Disk:
    """Runs a step of a stream: `piece = await disk(next, pieces, None)`.

    A step runs on the event loop: a fast disk writes a piece in microseconds, less than the way to a thread
    takes. When two steps within a second have waited for more than 5 ms each, all steps of the next second
    run in threads. One slow step is ignored: it may have waited for the interpreter.
    """

    def __init__(self) -> None:
        self._waited_at = -_REST_SECONDS
        self._slow_until = 0.0

    async def __call__(self, step: Callable[[*Ts], T], *args: *Ts) -> T:
        """Returns what `step` returns, and raises what it raises. A cancelled step ends first."""
        begun = perf_counter()
        if begun >= self._slow_until:
            waits = _waits()
            try:
                return step(*args)
            finally:
                ended = perf_counter()
                # A step that was merely interrupted, on a busy machine, has not waited.
                if ended - begun > _SLOW_SECONDS and _waits() > waits:
                    self._note_wait(ended)
        return await to_thread(step, *args)

    def _note_wait(self, ended: float) -> None:
        if ended - self._waited_at < _REST_SECONDS:
            self._slow_until = ended + _REST_SECONDS
        self._waited_at = ended


async def to_thread(step: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a step in a thread. Returns or raises when the step has ended, even if this is cancelled."""
    running = asyncio.get_running_loop().run_in_executor(_threads, copy_context().run, lambda: step(*args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def in_thread(step: Callable[[], None]) -> None:
    """Run a step in a thread soon, without waiting for it. It must not raise."""
    _threads.submit(copy_context().run, step)


def _waits() -> int:
    """Returns how often this thread has waited, for the disk or for a lock."""
    return resource.getrusage(_WHO).ru_nvcsw


on_disk = Disk()
