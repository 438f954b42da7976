"""Runs functions in threads, with the log context of their caller."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_pixels = ThreadPoolExecutor(2, thread_name_prefix="pixels")


async def off_loop(work: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run CPU-bound `work` in one of two threads per process, in the order of the calls.

    The order is fair, because each request awaits one piece of work, or one per sample, before it starts the
    next. If this is cancelled while the work waits, the work does not run. Call it within a deadline.
    """
    return await in_executor(_pixels, work, *args)


def in_executor(executor: Executor, work: Callable[[*Ts], T], *args: *Ts) -> "asyncio.Future[T]":
    """Run `work` in the executor, in a copy of the caller's context: log lines keep the request id."""
    return asyncio.get_running_loop().run_in_executor(executor, copy_context().run, work, *args)
