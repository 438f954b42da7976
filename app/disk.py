"""Runs functions that read or write the disk: on the event loop while the disk is fast, else in threads."""

import asyncio
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import perf_counter
from typing import TypeVar, TypeVarTuple

from app.threads import in_executor

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_SLOW_SECONDS = 0.005
_REST_SECONDS = 1.0

_THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)

_threads = ThreadPoolExecutor(8, thread_name_prefix="disk")


class Disk:
    """Runs one step of a stream: `piece = await disk(next, pieces, None)`.

    A step runs on the event loop, because a fast disk writes a piece in less time than a switch to a thread
    takes. When two steps within a second have each waited for more than 5 ms, all steps of the next second
    run in threads. One slow step is ignored: it can have waited for the interpreter.
    """

    def __init__(self) -> None:
        self._waited_at = -_REST_SECONDS
        self._slow_until = 0.0

    async def __call__(self, step: Callable[[*Ts], T], *args: *Ts) -> T:
        """Returns or raises what `step` does. Cancellation waits for the end of the step."""
        begun = perf_counter()
        if begun >= self._slow_until:
            waits = _waits()
            try:
                return step(*args)
            finally:
                ended = perf_counter()
                # A step that only lost the CPU to another process has not waited for the disk.
                if ended - begun > _SLOW_SECONDS and _waits() > waits:
                    self._note_wait(ended)
        return await to_thread(step, *args)

    def _note_wait(self, ended: float) -> None:
        if ended - self._waited_at < _REST_SECONDS:
            self._slow_until = ended + _REST_SECONDS
        self._waited_at = ended


async def to_thread(step: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a step in a thread and return its result. Cancellation waits for the end of the step."""
    running = in_executor(_threads, step, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def in_thread(step: Callable[[], None]) -> None:
    """Start a step in a thread without waiting for it. The step must not raise."""
    _threads.submit(copy_context().run, step)


def _waits() -> int:
    """Returns how often this thread has waited for the disk or for a lock."""
    return resource.getrusage(_THREAD).ru_nvcsw


on_disk = Disk()
