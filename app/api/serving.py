"""How every paid route is served: who asks, how often, read, work, answer; within one deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from app.api.errors import ClientGone
from app.contract.errors import RequestTimedOut, UpstreamTimeout
from app.ports import answer_by
from app.services.auth import Caller
from app.services.budget import Budget
from app.services.limits import RateLimit

_BODY_COPIES = 3
"""A body's pictures stand in memory as text, as bytes, and as the message that goes out."""
_CHUNKED_BYTES = 8 * 1024 * 1024
_LARGEST_BYTES = 64 * 1024 * 1024
"""image-edit's and image-customize's limit."""

B = TypeVar("B")
T = TypeVar("T")


async def serve(
    request: Request,
    who: Caller,
    read: Callable[[Request], Awaitable[B]],
    work: Callable[[B], Coroutine[Any, Any, T]],
) -> T:
    """Rate limit, `read` the body, then `work`, which is cancelled when the client hangs up.

    One deadline covers it all. Raises `contract.errors`, and ClientGone.
    """
    state = request.app.state
    bodies: Budget = state.bodies
    request.scope["log"]["user"] = who.id
    await _throttle(request, who)
    reading = False
    seconds = state.settings.request_timeout_seconds
    answer_by.set(asyncio.get_running_loop().time() + 0.9 * seconds)
    try:
        async with asyncio.timeout(seconds), bodies.hold(_BODY_COPIES * _body_bytes(request)):
            reading = True
            body = await read(request)
            reading = False
            if state.settings.log_prompts:
                request.scope["log"]["prompt"] = getattr(body, "prompt", None)
            return await _unless_hung_up(request, work(body))
    except TimeoutError as exc:
        raise (RequestTimedOut if reading else UpstreamTimeout) from exc


def _body_bytes(request: Request) -> int:
    """What the body will hold: as declared, or a guess when it comes in chunks. What no route reads waits for
    no room: it is refused at once."""
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal():
        return _CHUNKED_BYTES
    largest = request.app.state.settings.max_body_bytes or _LARGEST_BYTES
    return int(declared) if int(declared) <= largest else 0


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
