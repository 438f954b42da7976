"""The result of slow, blocking work: made in a thread on first use, and kept."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cached(Generic[T]):
    """Does `work` in a thread, once at a time however many wait, and keeps what it returns while `fresh`.

    A failure is not kept: it is raised to those that waited, and the next call tries again.
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
