"""Keeps the result of slow, blocking work, which runs in a thread on first use."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cached(Generic[T]):
    """Runs `work` in a thread, once for all that wait, and keeps its result while it is `fresh`.

    A failure is raised to all that wait, and is not kept: the next call tries again.
    """

    def __init__(self, work: Callable[[], T], fresh: Callable[[T], bool] = lambda result: True) -> None:
        self._work = work
        self._fresh = fresh
        self._task: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        task = self._task
        if task is None or (task.done() and not self._usable(task)):
            task = self._task = asyncio.create_task(asyncio.to_thread(self._work))
        return await asyncio.shield(task)

    @property
    def made(self) -> T | None:
        """The result if there is one already."""
        task = self._task
        return task.result() if task and task.done() and self._usable(task) else None

    def _usable(self, task: "asyncio.Task[T]") -> bool:
        return not task.cancelled() and not task.exception() and self._fresh(task.result())
