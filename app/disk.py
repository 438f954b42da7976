"""Steps that may touch the disk: on the event loop while it is fast, in a thread while it is slow."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import perf_counter
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_SLOW_SECONDS = 0.005

_threads = ThreadPoolExecutor(8, thread_name_prefix="disk")


class DiskSteps:
    """Runs the steps of one stream, one after the other: `piece = await steps(next, pieces, None)`.

    A step runs on the event loop, unless the step before it took more than 5 ms. A file on a fast disk is
    written in microseconds, and taking each piece to a thread would cost more than the piece.
    """

    def __init__(self) -> None:
        self._slow = False

    async def __call__(self, step: Callable[[*Ts], T], *args: *Ts) -> T:
        """Returns what `step` returns, and raises what it raises. No step runs on when this is cancelled."""
        if not self._slow:
            return self._timed(step, *args)
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(_threads, copy_context().run, lambda: self._timed(step, *args))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def _timed(self, step: Callable[[*Ts], T], *args: *Ts) -> T:
        begun = perf_counter()
        try:
            return step(*args)
        finally:
            self._slow = perf_counter() - begun > _SLOW_SECONDS
