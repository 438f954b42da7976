"""How every paid route is served: who asks, how often, read, work; within one deadline."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog
from fastapi import Request, Response
from pydantic import BaseModel

from app.api.answers import json_response
from app.api.body import Take
from app.api.errors import ClientGone
from app.api.errors import told as error_body
from app.api.exchange import blobs, exchange, parts
from app.api.rehearsal import rehearsed
from app.contract.budgets import six_decimals
from app.contract.errors import Busy, GatewayError, InvalidRequest, RequestTimedOut, UpstreamTimeout
from app.pictures.blob import Blobs
from app.ports import Call, Progress
from app.services.auth import Caller
from app.services.made import Found, Made
from app.services.paying import Errand, Told
from app.services.wish import Wish

_ANSWER_SHARE, _STORE_SHARE = 0.9, 0.98
"""Of the deadline: when providers have returned, and when the caller has to be told about its pictures."""
_RETRY_AFTER_SECONDS = 5

_KEY = re.compile(r"[!-~]{1,255}")

B = TypeVar("B", bound=BaseModel)
R = TypeVar("R", bound=BaseModel, contravariant=True)

log = structlog.get_logger()


class Service(Protocol[R]):
    """Makes pictures: `services.image.Images` and `services.gen.Gen`."""

    async def make(self, request: R, call: Call, /) -> Made: ...

    async def recovered(self, request: R, found: Sequence[Found], call: Call, /) -> Made: ...


async def serve(
    request: Request,
    who: Caller,
    read: Callable[[Request, Take, Blobs], Awaitable[B]],
    service: Service[B],
    present: Callable[[B, Made], object],
) -> Response:
    """Rate limit, `read` the body, have the `service` make what it asks for, and `present` that.

    One deadline covers it all. When it has passed, the client has hung up, or a stopping uvicorn's grace has
    ended, the work is cancelled, unless it has sent a paid call whose pictures are kept: then it goes on
    alone. Raises `contract.errors`, ClientGone and NoRoom.
    """
    have, here = parts(request.scope), exchange(request)
    here.log["user"] = who.id
    await _throttle(request, who)
    key = _key(request, required=have.settings.require_idempotency_key)
    wish = have.paying.wish(who, request.scope["path"], key)
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
                    ends=now + have.settings.longest_call_seconds,
                    blobs=pictures,
                    wish=wish,
                    trouble=rehearsed(request, body),
                    progress=progress,
                    landing=have.paying.keeping(wish, pictures) if wish.key else None,
                )
                errand = Errand(
                    body,
                    call,
                    partial(service.make, body, call),
                    lambda found: service.recovered(body, found, call),
                    partial(present, body),
                    partial(error_body, request),
                )
                told = await _attended(request, have.paying.fulfil(wish, errand), call)
        except TimeoutError as exc:
            if held.waiting:
                raise Busy(retry_after=_RETRY_AFTER_SECONDS) from exc
            error = (RequestTimedOut if held.arriving else UpstreamTimeout)()
            raise _with_receipt(error, wish) from exc
        except asyncio.CancelledError as exc:  # only uvicorn cancels a request, when its grace has ended
            if progress.sent:
                raise _with_receipt(UpstreamTimeout(), wish) from exc
            raise Busy(retry_after=_RETRY_AFTER_SECONDS) from exc
        except GatewayError as exc:
            _with_receipt(exc, wish)
            raise
        finally:
            here.headers.update(_cost(wish))
    headers = {}
    if told.made:
        here.log["model"] = told.made.model.id
        if told.made.substituted:
            headers["X-Model-Requested"] = told.made.substituted
    else:
        headers["Idempotency-Replayed"] = "true"
        if told.status == 400:
            headers["X-Error-Code"] = "blocked"
    return json_response(told.body, told.status, headers)


def _key(request: Request, *, required: bool) -> str | None:
    """Returns the Idempotency-Key, without quotes. Raises InvalidRequest."""
    key = request.headers.get("idempotency-key")
    if key is None:
        if required:
            raise InvalidRequest("Idempotency-Key header is required")
        return None
    if not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must have 1 to 255 visible ASCII characters")
    return key[1:-1] if len(key) > 2 and key[0] == key[-1] == '"' else key


def _with_receipt(error: GatewayError, wish: Wish) -> GatewayError:
    """Tell the receipt of what may be charged although there is no picture."""
    if wish.is_unknown:
        error.receipt = wish.id
    return error


def _cost(wish: Wish) -> dict[str, str]:
    """The headers of every answer that has sent something, and of replays, which cost nothing."""
    if wish.receipt is None:
        return {}
    return {"x-receipt-id": wish.receipt, "x-cost-usd": six_decimals(wish.cost_micros)}


async def _throttle(request: Request, who: Caller) -> None:
    """Count the request; every answer to it carries the throttler's headers. Raises RateLimited."""
    if window := await parts(request.scope).rate_limit.hit(who.counted_as):
        exchange(request).headers.update(
            {
                "x-ratelimit-limit": str(window.limit),
                "x-ratelimit-remaining": str(window.remaining),
                "x-ratelimit-reset": str(window.reset_seconds),
            }
        )


async def _attended(request: Request, work: Coroutine[Any, Any, Told], call: Call) -> Told:
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


async def _leave(request: Request, job: asyncio.Task[Told], progress: Progress) -> None:
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
