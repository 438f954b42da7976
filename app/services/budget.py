"""How much the calls under way may hold, in bytes or in calls, and who waits."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.contract.errors import Busy

_RETRY_AFTER_SECONDS = 5


class Budget:
    """A limit with a queue in front, first come first served.

    An SDK delivers an answer whole, so memory is bounded by how many calls may be under way. Callers above
    the limit wait within their own deadline; if `max_waiting` callers wait already, Busy is raised.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._free = limit
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold `size` of the limit. A call larger than the whole limit runs alone."""
        size = min(size, self._limit)
        await self._take(size)
        try:
            yield
        finally:
            self._free += size
            self._admit()

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        if len(self._waiting) >= self._max_waiting:
            raise Busy(retry_after=_RETRY_AFTER_SECONDS)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # admitted at the same moment as cancelled
                self._free += size
            elif (turn, size) in self._waiting:
                self._waiting.remove((turn, size))
            self._admit()
            raise

    def _admit(self) -> None:
        """Admit callers in order while there is room. Skip those that were cancelled at this moment."""
        while self._waiting:
            turn, size = self._waiting[0]
            if not turn.cancelled():
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(None)
            self._waiting.popleft()
