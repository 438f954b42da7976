"""How every paid route is served: who asks, how often, read, work; within one deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog
from fastapi import Request

from app.api.body import Take
from app.api.errors import ClientGone
from app.api.exchange import blobs, exchange, parts
from app.api.rehearsal import rehearsed
from app.contract.errors import Busy, RequestTimedOut, UpstreamTimeout
from app.pictures.blob import Blobs
from app.ports import Call, Progress
from app.services.auth import Caller
from app.services.made import Made

_ANSWER_SHARE, _STORE_SHARE = 0.9, 0.98
"""Of the deadline: when providers have returned, and when the caller has to be told about its pictures."""
_RETRY_AFTER_SECONDS = 5

B = TypeVar("B")

log = structlog.get_logger()


async def serve(
    request: Request,
    who: Caller,
    read: Callable[[Request, Take, Blobs], Awaitable[B]],
    work: Callable[[B, Call], Coroutine[Any, Any, Made]],
) -> tuple[B, Made]:
    """Rate limit, `read` the body, then `work`.

    One deadline covers it all. When it has passed, the client has hung up, or a stopping uvicorn's grace has
    ended, `work` is cancelled, unless it has sent a paid call whose pictures are stored: then it goes on
    alone. Raises `contract.errors`, ClientGone and NoRoom.
    """
    have, here = parts(request.scope), exchange(request)
    here.log["user"] = who.id
    await _throttle(request, who)
    pictures = blobs(request, who.id)
    seconds = have.settings.request_timeout_seconds
    now = asyncio.get_running_loop().time()
    progress = Progress()
    async with have.bodies.enter(who.id) as held:

        async def take(size: int) -> None:
            await have.bodies.take(held, size)

        try:
            async with asyncio.timeout(seconds):
                body = await read(request, take, pictures)
                held.arriving = False
                if have.settings.log_prompts:
                    here.log["prompt"] = getattr(body, "prompt", None)
                call = Call(
                    caller=who.id,
                    request_id=here.request_id,
                    answer_by=now + _ANSWER_SHARE * seconds,
                    store_by=now + _STORE_SHARE * seconds,
                    blobs=pictures,
                    trouble=rehearsed(request, body),
                    progress=progress,
                )
                made = await _attended(request, work(body, call), call)
        except TimeoutError as exc:
            if held.waiting:
                raise Busy(retry_after=_RETRY_AFTER_SECONDS) from exc
            raise (RequestTimedOut if held.arriving else UpstreamTimeout) from exc
        except asyncio.CancelledError as exc:  # only uvicorn cancels a request, when its grace has ended
            if progress.sent:
                raise UpstreamTimeout from exc
            raise Busy(retry_after=_RETRY_AFTER_SECONDS) from exc
    here.log["model"] = made.model.id
    return body, made


def made_by(made: Made) -> dict[str, str]:
    """The headers that name the model which was asked for, if another one served."""
    return {"X-Model-Requested": made.substituted} if made.substituted else {}


async def _throttle(request: Request, who: Caller) -> None:
    """Count the request; every answer to it carries the throttler's headers. Raises RateLimited."""
    if window := await parts(request.scope).rate_limit.hit(who.id):
        exchange(request).headers.update(
            {
                "x-ratelimit-limit": str(window.limit),
                "x-ratelimit-remaining": str(window.remaining),
                "x-ratelimit-reset": str(window.reset_seconds),
            }
        )


async def _attended(request: Request, work: Coroutine[Any, Any, Made], call: Call) -> Made:
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
            await _leave(request, job, call.progress)


async def _leave(request: Request, job: asyncio.Task[Made], progress: Progress) -> None:
    """Nobody waits for the job any more."""
    progress.left = True
    if progress.sent and progress.kept:
        parts(request.scope).unattended.adopt(job, exchange(request).closing.pop_all())
        return
    if progress.sent:
        log.warning("abandoned: a call was sent that may be paid, and nobody waits for its answer")
    job.cancel()
    await asyncio.wait((job,))


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
