"""Threads for pixel work and other computing that would block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_pixels = ThreadPoolExecutor(2, thread_name_prefix="pixels")


async def off_loop(work: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run `work` in a thread, at most two at a time in one process, in the order of the calls.

    That is fair between requests: each waits for one piece of work (or one for each sample) before it asks
    for the next. Work that is cancelled before its turn is not begun. Call it within a deadline. The work
    runs in a copy of the caller's context, so that log lines keep the request's id.
    """
    return await asyncio.get_running_loop().run_in_executor(_pixels, copy_context().run, work, *args)
