"""How every paid route is served: who asks, how often, read, work, answer; within one deadline."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from app.api.body import read_body
from app.api.errors import ClientGone
from app.contract.errors import RequestTimedOut, UpstreamTimeout
from app.contract.rules import Contract
from app.services.auth import Caller
from app.services.limits import RateLimit

C = TypeVar("C", bound=Contract)
T = TypeVar("T")


async def serve(
    request: Request, who: Caller, contract: type[C], work: Callable[[C], Coroutine[Any, Any, T]]
) -> T:
    """Rate limit, body, then `work`, which is cancelled when the client hangs up. One deadline covers it all.

    Raises `contract.errors`, and ClientGone.
    """
    state = request.app.state
    request.scope["log"]["user"] = who.id
    await _throttle(request, who)
    body: C | None = None
    try:
        async with asyncio.timeout(state.settings.request_timeout_seconds):
            body = await read_body(request, contract)
            if state.settings.log_prompts:
                request.scope["log"]["prompt"] = getattr(body, "prompt", None)
            return await _unless_hung_up(request, work(body))
    except TimeoutError as exc:
        raise (RequestTimedOut if body is None else UpstreamTimeout) from exc


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
