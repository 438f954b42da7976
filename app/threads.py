"""Threads for pixel work and other computing that would hold up the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_threads = ThreadPoolExecutor(2, thread_name_prefix="pixels")


async def off_loop(work: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run `work` beside the event loop, at most two pieces at a time in one process."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work, *args)
