"""Limits the memory of request bodies. A body that does not fit waits."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_FREE_BYTES = 64 * 1024
"""The first bytes of each body never wait, so requests without pictures overtake those with many."""


@dataclass(eq=False, slots=True)
class Body:
    """The state of one request's body.

    `held` counts its bytes in memory, without the first 64 KiB. `waiting`: its next bytes wait for room.
    `over_limit`: its last bytes were admitted although they did not fit.
    """

    user: str
    held: int = 0
    received: int = 0
    arriving: bool = True
    waiting: bool = False
    over_limit: bool = False


class Room:
    """Limits the memory of all bodies together to `limit` bytes, and of one user's bodies to `share` bytes.

    Bytes count when they arrive, not when they are declared, so that a slow body holds little. Bytes that fit
    overtake those that wait. A body counts until its request ends.
    """

    def __init__(self, limit: int, share: int) -> None:
        self._limit = limit
        self._share = share
        self._bodies: dict[Body, None] = {}
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def enter(self, user: str) -> AsyncIterator[Body]:
        """Register a body. What `take` adds to it is released at the end of the `with` block."""
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
        """Return when `size` more bytes of the body fit. If this is cancelled, `body.waiting` stays true."""
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
        """Returns whether `size` more bytes are admitted.

        Bodies could all wait for each other: none that is still arriving can finish and free its memory. So
        one body at a time may exceed a limit, if all others that count for this limit are still arriving.
        """
        full = self._held.total() + size > self._limit
        fits = not full and self._held[body.user] + size <= self._share
        others = [
            other
            for other in self._bodies
            if other.held and other is not body and (full or other.user == body.user)
        ]
        body.over_limit = not fits and all(other.arriving and not other.over_limit for other in others)
        return fits or body.over_limit
