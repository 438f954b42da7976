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
"""How long Redis may take to count, including the time to connect."""


@dataclass(frozen=True, slots=True)
class Window:
    """The state of a limit after a request. `remaining` grows again after `reset_seconds`."""

    limit: int
    remaining: int
    reset_seconds: int


class RateLimit:
    """Limits requests per key. `notation`: "60/minute", "10/minute; 100/hour", or "" for no limit.

    Windows slide, so that the limit cannot be exceeded around the start of a new window. Processes count
    together in Redis. While Redis does not answer, each process counts alone, and tries Redis again every
    `redis_pause_seconds`. `name` keeps the counters of several limits apart. Raises ValueError if the
    notation is wrong.
    """

    def __init__(
        self, notation: str, *, name: str, redis_url: str | None = None, redis_pause_seconds: float = 5
    ) -> None:
        self._items: list[RateLimitItem] = parse_many(notation) if notation else []
        self._name = name
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._redis = RedisStorage(f"async+{redis_url}", wrap_exceptions=True) if redis_url else None
        self._shared = SlidingWindowCounterRateLimiter(self._redis) if self._redis else None
        self._pause = redis_pause_seconds
        self._shared_again_at = 0.0

    async def hit(self, key: str) -> Window | None:
        """Count a request. Returns the window with the fewest remaining, or None if there is no limit.

        Raises RateLimited.
        """
        if self._shared and time.monotonic() >= self._shared_again_at:
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    return await self._hit(self._shared, key)
            except (StorageError, OSError) as exc:
                self._shared_again_at = time.monotonic() + self._pause
                log.warning("Redis does not answer: limits are counted per process", cause=causes(exc))
        return await self._hit(self._local, key)

    async def ready(self) -> str | None:
        """Returns why requests are counted per process, or None if Redis works or is not configured."""
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
