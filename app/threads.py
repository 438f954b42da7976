"""Threads for pixel work and other computing that would hold up the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_pixels = ThreadPoolExecutor(2, thread_name_prefix="pixels")


async def off_loop(work: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run `work` beside the event loop, at most two pieces at a time in one process.

    First come, first served. That is fair between requests, because a request waits for one piece (at most
    one of each sample) before it asks for the next. A piece that is cancelled before its turn is not begun.
    Call it within a deadline. The piece runs in a copy of the caller's context, so that log lines keep the
    request's id.
    """
    return await asyncio.get_running_loop().run_in_executor(_pixels, copy_context().run, work, *args)
