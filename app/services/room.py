"""Memory for request bodies: who may receive how much, and who waits."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_FREE_BYTES = 64 * 1024
"""The beginning of a body never waits: a request without pictures passes those with many."""


@dataclass(eq=False, slots=True)
class Body:
    """What one request's body holds, in bytes beyond its beginning.

    `waiting`: its next bytes wait for room. `beyond`: it was let in although it did not fit.
    """

    user: str
    held: int = 0
    received: int = 0
    arriving: bool = True
    waiting: bool = False
    beyond: bool = False


class Room:
    """Bounds the memory of all bodies together (`limit` bytes) and of one user's (`share` bytes).

    Bytes count as they arrive, not as they are declared, so that a slow body holds little. Bytes that fit
    pass those that wait. A body counts until its request ends.
    """

    def __init__(self, limit: int, share: int) -> None:
        self._limit = limit
        self._share = share
        self._bodies: dict[Body, None] = {}
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def enter(self, user: str) -> AsyncIterator[Body]:
        """Hold what `take` takes for the body until its request ends."""
        body = Body(user)
        self._bodies[body] = None
        try:
            yield body
        finally:
            del self._bodies[body]
            self._held[user] -= body.held
            if not self._held[user]:
                del self._held[user]
            self._changed.set()

    async def take(self, body: Body, size: int) -> None:
        """Return when `size` more bytes of the body may be kept. `body.waiting` stays true if cancelled."""
        body.received += size
        size = body.received - _FREE_BYTES - body.held
        if size <= 0:
            return
        while not self._fits(body, size):
            body.waiting = True
            self._changed.clear()
            await self._changed.wait()
        body.waiting = False
        body.held += size
        self._held[body.user] += size

    def _fits(self, body: Body, size: int) -> bool:
        """Whether both limits allow it.

        Bodies that all wait for each other would wait for ever. So if no other request is at work, whose end
        would make room, one body at a time may go beyond a limit.
        """
        full = self._held.total() + size > self._limit
        fits = not full and self._held[body.user] + size <= self._share
        others = [
            other
            for other in self._bodies
            if other.held and other is not body and (full or other.user == body.user)
        ]
        body.beyond = not fits and all(other.arriving and not other.beyond for other in others)
        return fits or body.beyond
