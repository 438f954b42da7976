"""Serves all paid routes: counts the request, reads the body, makes and pays for the pictures."""

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
from app.services.made import FoundPicture, Made
from app.services.paying import PaidRequest, Reply
from app.services.room import Body
from app.services.wish import Wish

_KEY = re.compile(r"[!-~]{1,255}")

B = TypeVar("B", bound=BaseModel)
R = TypeVar("R", bound=BaseModel, contravariant=True)

log = structlog.get_logger()


class Service(Protocol[R]):
    """Makes pictures: `services.image.Images` and `services.gen.Gen`."""

    async def make(self, request: R, call: Call, /) -> Made: ...

    async def recovered(self, request: R, found: Sequence[FoundPicture], call: Call, /) -> Made: ...


async def serve(
    request: Request,
    caller: Caller,
    read: Callable[[Request, Take, Blobs], Awaitable[B]],
    service: Service[B],
    present: Callable[[B, Made], object],
) -> Response:
    """Count the request, `read` its body, let `service` make the pictures, and `present` them.

    The work is cancelled if REQUEST_TIMEOUT_SECONDS pass, if the client closes the connection, or if the
    grace period of a stopping uvicorn ends. But if a paid call was sent and its pictures are stored, the work
    goes on without the client. Raises `contract.errors`, ClientGone and NoRoom.
    """
    gateway, here = parts(request.scope), exchange(request)
    here.log["user"] = caller.id
    await _throttle(request, caller)
    key = _key(request, required=gateway.settings.require_idempotency_key)
    wish = gateway.paying.wish(caller, request.scope["path"], key)
    progress, pictures = Progress(), blobs(request, caller.id)
    started = asyncio.get_running_loop().time()
    try:
        async with (
            gateway.bodies.enter(caller.id) as held,
            _failures(held, wish, progress),
            asyncio.timeout(gateway.settings.request_timeout_seconds),
        ):
            body = await read(request, partial(gateway.bodies.take, held), pictures)
            held.arriving = False
            if gateway.settings.log_prompts:
                here.log["prompt"] = dict(body).get("prompt")
            call = Call(
                caller=caller.id,
                request_id=here.request_id,
                answer_by=started + gateway.settings.answer_seconds,
                store_by=started + gateway.settings.store_seconds,
                ends=started + gateway.settings.longest_call_seconds,
                blobs=pictures,
                wish=wish,
                trouble=rehearsed(request, body),
                progress=progress,
                landing=gateway.paying.private_landing(wish, pictures) if wish.key else None,
            )
            paid_request = PaidRequest(
                body,
                call,
                partial(service.make, body, call),
                lambda found: service.recovered(body, found, call),
                partial(present, body),
                partial(refusal, request),
            )
            reply = await _while_connected(request, gateway.paying.fulfil(wish, paid_request), call)
    finally:
        here.headers.update(_cost(wish))
    return _response(reply, here)


@asynccontextmanager
async def _failures(body: Body, wish: Wish, progress: Progress) -> AsyncIterator[None]:
    """Turns timeouts and cancellations into errors for the caller, and adds receipts to errors."""
    try:
        yield
    except TimeoutError as exc:
        if body.waiting:
            raise Busy() from exc
        error = (RequestTimedOut if body.arriving else UpstreamTimeout)()
        raise _with_receipt(error, wish) from exc
    except asyncio.CancelledError as exc:  # only uvicorn cancels requests, at the end of its grace period
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
    """Returns the Idempotency-Key without quotes, or None. Raises InvalidRequest."""
    key = request.headers.get("idempotency-key")
    if key is None:
        if required:
            raise InvalidRequest("Idempotency-Key header is required")
        return None
    if not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must have 1 to 255 visible ASCII characters")
    return key[1:-1] if len(key) > 2 and key[0] == key[-1] == '"' else key


def _with_receipt(error: GatewayError, wish: Wish) -> GatewayError:
    """Returns the error, with a receipt if a call with an unknown outcome can be charged."""
    if wish.outcome_unknown:
        error.receipt = wish.id
    return error


def _cost(wish: Wish) -> dict[str, str]:
    """Returns the cost headers if this request, or an earlier try of it, has sent a call."""
    if wish.receipt is None:
        return {}
    return {"x-receipt-id": wish.receipt, "x-cost-usd": six_decimals(wish.cost_micros)}


async def _throttle(request: Request, caller: Caller) -> None:
    """Count the request, and set the headers of the rate limit. Raises RateLimited."""
    if window := await parts(request.scope).rate_limit.hit(caller.counted_as):
        exchange(request).headers.update(
            {
                "x-ratelimit-limit": str(window.limit),
                "x-ratelimit-remaining": str(window.remaining),
                "x-ratelimit-reset": str(window.reset_seconds),
            }
        )


async def _while_connected(request: Request, work: Coroutine[Any, Any, Reply], call: Call) -> Reply:
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
            await _end_unfinished(request, job, call.progress)


async def _end_unfinished(request: Request, job: asyncio.Task[Reply], progress: Progress) -> None:
    """Cancel the job, or let it go on without the client if a call was sent and its pictures are stored."""
    progress.left = True
    if progress.sent and progress.keeps_pictures:
        parts(request.scope).unattended.adopt(job, exchange(request).closing.pop_all())
        return
    if progress.sent:
        log.warning("abandoned: a call was sent and can be charged, but the client has left")
    job.cancel()
    await asyncio.wait((job,))


async def _disconnected(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
