"""Serves every paid route: counts the request, reads it, has it made and paid, within one deadline."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog
from fastapi import Request, Response
from pydantic import BaseModel

from app.api.answers import json_response
from app.api.body import Take
from app.api.errors import ClientGone, refusal
from app.api.exchange import Exchange, blobs, exchange, parts
from app.api.rehearsal import rehearsed
from app.contract.budgets import six_decimals
from app.contract.errors import Busy, GatewayError, InvalidRequest, RequestTimedOut, UpstreamTimeout
from app.pictures.blob import Blobs
from app.ports import Call, Progress
from app.services.auth import Caller
from app.services.made import Found, Made
from app.services.paying import Reply, Work
from app.services.room import Body
from app.services.wish import Wish

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
    """Count the request, `read` its body, let the `service` make the pictures, and `present` them.

    One deadline covers it all. If it passes, if the client closes the connection, or if the grace of a
    stopping uvicorn ends, the work is cancelled, unless it has sent a paid call whose pictures are kept: then
    it goes on alone. Raises `contract.errors`, ClientGone and NoRoom.
    """
    have, here = parts(request.scope), exchange(request)
    here.log["user"] = who.id
    await _throttle(request, who)
    key = _key(request, required=have.settings.require_idempotency_key)
    wish = have.paying.wish(who, request.scope["path"], key)
    progress, pictures = Progress(), blobs(request, who.id)
    started = asyncio.get_running_loop().time()
    try:
        async with (
            have.bodies.enter(who.id) as held,
            _failures(held, wish, progress),
            asyncio.timeout(have.settings.request_timeout_seconds),
        ):
            body = await read(request, partial(have.bodies.take, held), pictures)
            held.arriving = False
            if have.settings.log_prompts:
                here.log["prompt"] = dict(body).get("prompt")
            call = Call(
                caller=who.id,
                request_id=here.request_id,
                answer_by=started + have.settings.answer_seconds,
                store_by=started + have.settings.store_seconds,
                ends=started + have.settings.longest_call_seconds,
                blobs=pictures,
                wish=wish,
                trouble=rehearsed(request, body),
                progress=progress,
                landing=have.paying.keeping(wish, pictures) if wish.key else None,
            )
            work = Work(
                body,
                call,
                partial(service.make, body, call),
                lambda found: service.recovered(body, found, call),
                partial(present, body),
                partial(refusal, request),
            )
            reply = await _attended(request, have.paying.fulfil(wish, work), call)
    finally:
        here.headers.update(_cost(wish))
    return _response(reply, here)


@asynccontextmanager
async def _failures(body: Body, wish: Wish, progress: Progress) -> AsyncIterator[None]:
    """Raises the error that a caller gets for a timeout or a cancellation, and adds receipts to errors."""
    try:
        yield
    except TimeoutError as exc:
        if body.waiting:
            raise Busy() from exc
        error = (RequestTimedOut if body.arriving else UpstreamTimeout)()
        raise _with_receipt(error, wish) from exc
    except asyncio.CancelledError as exc:  # only uvicorn cancels a request, when its grace has ended
        if progress.sent:
            raise _with_receipt(UpstreamTimeout(), wish) from exc
        raise Busy() from exc
    except GatewayError as exc:
        _with_receipt(exc, wish)
        raise


def _response(reply: Reply, here: Exchange) -> Response:
    headers = {}
    if reply.made:
        here.log["model"] = reply.made.model.id
        if reply.made.substituted:
            headers["X-Model-Requested"] = reply.made.substituted
    else:
        headers["Idempotency-Replayed"] = "true"
        if reply.status == 400:
            headers["X-Error-Code"] = "blocked"
    return json_response(reply.body, reply.status, headers)


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
    """Returns the error, with a receipt if something may be charged although there is no picture."""
    if wish.is_unknown:
        error.receipt = wish.id
    return error


def _cost(wish: Wish) -> dict[str, str]:
    """Returns the headers of the cost, if a call was sent for this request or for an earlier try of it."""
    if wish.receipt is None:
        return {}
    return {"x-receipt-id": wish.receipt, "x-cost-usd": six_decimals(wish.cost_micros)}


async def _throttle(request: Request, who: Caller) -> None:
    """Count the request, and set the headers of the rate limit. Raises RateLimited."""
    if window := await parts(request.scope).rate_limit.hit(who.counted_as):
        exchange(request).headers.update(
            {
                "x-ratelimit-limit": str(window.limit),
                "x-ratelimit-remaining": str(window.remaining),
                "x-ratelimit-reset": str(window.reset_seconds),
            }
        )


async def _attended(request: Request, work: Coroutine[Any, Any, Reply], call: Call) -> Reply:
    """Returns the reply. Raises ClientGone if the client closes the connection before it is ready.

    Starlette does not cancel the handler of a client that has left.
    """
    job = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((job, watch), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientGone
        return job.result()
    finally:
        watch.cancel()
        if not job.done():
            await _leave(request, job, call.progress)


async def _leave(request: Request, job: asyncio.Task[Reply], progress: Progress) -> None:
    """Cancel the job, or let it go on alone if it has sent a paid call whose pictures are kept."""
    progress.left = True
    if progress.sent and progress.kept:
        parts(request.scope).unattended.adopt(job, exchange(request).closing.pop_all())
        return
    if progress.sent:
        log.warning("abandoned: a call was sent that may be paid, and nobody waits for its answer")
    job.cancel()
    await asyncio.wait((job,))


async def _disconnected(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
