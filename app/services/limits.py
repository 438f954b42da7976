"""Rate limits, counted in Redis for all processes together, or in memory for this one."""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import cast

import structlog
from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.coredis import CoredisBridge
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from app.contract.errors import RateLimited
from app.logs import causes

log = structlog.get_logger()

REDIS_SECONDS = 0.5
"""How long Redis may take to count, a connection included."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is left after a hit. `reset_seconds`: until `remaining` grows again."""

    limit: int
    remaining: int
    reset_seconds: int


class RateLimit:
    """A limit in the `limits` notation ("60/minute", "10/minute; 100/hour"; "" is off), counted per key.

    The window slides: no burst of twice the limit at its edge. While Redis does not answer, each process
    counts for itself. It asks Redis again every `redis_pause_seconds`.
    `name` keeps the counters of several limits apart. Raises ValueError if the notation is wrong.
    """

    def __init__(
        self, notation: str, *, name: str, redis_url: str | None = None, redis_pause_seconds: float = 5
    ) -> None:
        self._items: list[RateLimitItem] = parse_many(notation) if notation else []
        self._name = name
        self._alone = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._redis = RedisStorage(f"async+{redis_url}", wrap_exceptions=True) if redis_url else None
        self._together = SlidingWindowCounterRateLimiter(self._redis) if self._redis else None
        self._pause = redis_pause_seconds
        self._together_again = 0.0

    async def hit(self, key: str) -> Window | None:
        """Count a request. Returns the tightest window, or None if there is no limit. Raises RateLimited."""
        if self._together and time.monotonic() >= self._together_again:
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    return await self._hit(self._together, key)
            except (StorageError, OSError) as exc:
                self._together_again = time.monotonic() + self._pause
                log.warning("Redis does not answer: limits are counted per process", cause=causes(exc))
        return await self._hit(self._alone, key)

    async def ready(self) -> str | None:
        """Returns why the limits are not shared, if there is a Redis and it does not answer; else None."""
        if self._redis:
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    await self._redis.get("ready")
            except (StorageError, OSError) as exc:
                return f"counted per process: {causes(exc)}"
        return None

    async def aclose(self) -> None:
        if self._redis:
            cast(CoredisBridge, self._redis.bridge).storage.connection_pool.disconnect()

    async def _hit(self, limiter: SlidingWindowCounterRateLimiter, key: str) -> Window | None:
        windows = []
        for item in self._items:
            allowed = await limiter.hit(item, self._name, key)
            reset_at, remaining = await limiter.get_window_stats(item, self._name, key)
            reset = max(1, math.ceil(reset_at - time.time()))
            if not allowed:
                raise RateLimited(reset)
            windows.append(Window(item.amount, remaining, reset))
        return min(windows, key=lambda window: window.remaining, default=None)
