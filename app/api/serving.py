"""How every paid route is served: who asks, how often, read, work, answer; within one deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from app.api.body import Take
from app.api.errors import ClientGone
from app.api.rehearsal import rehearse
from app.contract.errors import Busy, RequestTimedOut, UpstreamTimeout
from app.ports import answer_by, store_by
from app.services.auth import Caller
from app.services.limits import RateLimit
from app.services.room import Room

_BODY_COPIES = 3
"""A body's pictures stand in memory as text, as bytes, and as the message that goes out."""
_RETRY_AFTER_SECONDS = 5

B = TypeVar("B")
T = TypeVar("T")


async def serve(
    request: Request,
    who: Caller,
    read: Callable[[Request, Take], Awaitable[B]],
    work: Callable[[B], Coroutine[Any, Any, T]],
) -> T:
    """Rate limit, `read` the body, then `work`, which is cancelled when the client hangs up.

    One deadline covers it all. Raises `contract.errors`, and ClientGone.
    """
    state = request.app.state
    room: Room = state.bodies
    request.scope["log"]["user"] = who.id
    await _throttle(request, who)
    seconds = state.settings.request_timeout_seconds
    now = asyncio.get_running_loop().time()
    answer_by.set(now + 0.9 * seconds)
    store_by.set(now + 0.98 * seconds)
    async with room.enter(who.id) as held:

        async def take(size: int) -> None:
            await room.take(held, _BODY_COPIES * size)

        try:
            async with asyncio.timeout(seconds):
                body = await read(request, take)
                held.arriving = False
                rehearse(request, body)
                if state.settings.log_prompts:
                    request.scope["log"]["prompt"] = getattr(body, "prompt", None)
                return await _unless_hung_up(request, work(body))
        except TimeoutError as exc:
            if held.waiting:
                raise Busy(retry_after=_RETRY_AFTER_SECONDS) from exc
            raise (RequestTimedOut if held.arriving else UpstreamTimeout) from exc


async def _throttle(request: Request, who: Caller) -> None:
    """Count the request; every answer to it carries the throttler's headers. Raises RateLimited."""
    limit: RateLimit = request.app.state.rate_limit
    if window := await limit.hit(who.id):
        request.scope["response_headers"] |= {
            "x-ratelimit-limit": str(window.limit),
            "x-ratelimit-remaining": str(window.remaining),
            "x-ratelimit-reset": str(window.reset_seconds),
        }


async def _unless_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Starlette does not cancel a handler whose client has left: watch for it beside the work."""
    job = asyncio.create_task(work)
    watch = asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait((job, watch), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientGone
        return job.result()
    finally:
        watch.cancel()
        if not job.done():
            job.cancel()
            await asyncio.wait((job,))


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
