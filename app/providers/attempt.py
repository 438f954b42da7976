"""One paid call: sent, its failure classified, and sent again only if it was surely not served."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import structlog

from app.contract.errors import Busy, CallerLeft, GatewayError, SafetyBlocked
from app.contract.models import Model
from app.ports import Admission, Bill, Call, PaidCall, Place
from app.providers.failures import CallFailed

A = TypeVar("A")
T = TypeVar("T")

_RETRIES = 2
_LONGEST_PAUSE_SECONDS = 5.0

log = structlog.get_logger()


async def attempt(
    send: Callable[[], Awaitable[A]],
    read: Callable[[A, Call], Awaitable[T]],
    paid: PaidCall,
    model: Model,
    call: Call,
    *,
    admission: Admission,
    pause_seconds: float,
) -> T:
    """Send a paid call, and `read` its answer. Every paid call of the gateway goes through here.

    `paid` is reserved and ended here, whatever happens. `read` gets the answer and a copy of `call` whose
    bill it fills in. `send` raises CallFailed. It holds a place of `admission`, which is free during the
    pauses between tries and during `read`. A call that was not served is sent again, at most twice: after
    `pause_seconds` and twice that, or after the vendor's pause if that is longer.

    Raises the error of the last failure if there is no further try, because the call must not be repeated or
    the vendor asks for more than 5 s; what `read` raises; and what `admission` and the ledger raise if
    nothing was sent.
    """
    loop = asyncio.get_running_loop()
    last: CallFailed | None = None
    retries = 0
    while True:
        place = call.landing.place(model, paid.id) if call.landing else None
        try:
            answer = await _send(send, paid, place, model, call, admission)
        except CallFailed as failed:
            last = failed
            pause = max(pause_seconds * 2**retries * random.uniform(1, 1.5), failed.pause or 0)  # noqa: S311 - no secret
            late = pause > _LONGEST_PAUSE_SECONDS or loop.time() + pause >= admission.latest(call)
            if failed.served != "no" or retries == _RETRIES or late:
                raise failed.error from failed.__cause__
            log.warning(
                "retrying a vendor call",
                model=model.id,
                vendor_code=failed.error.vendor_code,
                seconds=round(pause, 1),
            )
        except GatewayError:  # no place, or the ledger refuses or is down
            if last:
                raise last.error from last.__cause__
            raise
        else:
            return await _read(answer, read, paid, replace(call, place=place, bill=Bill()))
        retries += 1
        await asyncio.sleep(pause)
        paid = paid.again()


async def _send(
    send: Callable[[], Awaitable[A]],
    paid: PaidCall,
    place: Place | None,
    model: Model,
    call: Call,
    admission: Admission,
) -> A:
    """One try. If it raises, `paid` has ended."""
    fenced = False
    try:
        if not admission.has_room(model, call):
            await paid.reserve()  # only calls that are paid for wait for a place
        async with admission.place(model, call):
            if call.progress.left:
                raise CallerLeft
            await paid.fence(place)
            fenced = call.progress.sent = True
            return await send()
    except CallFailed as failed:
        if failed.served == "unknown":
            paid.unknown()
        else:
            paid.void()
        raise
    except BaseException:
        if fenced:
            paid.abandon()
        else:
            paid.void()
        raise


async def _read(answer: A, read: Callable[[A, Call], Awaitable[T]], paid: PaidCall, call: Call) -> T:
    """Read the answer of a served call, and end `paid`. If the shape is unknown, so is the price."""
    try:
        result = await read(answer, call)
    except SafetyBlocked:
        paid.settle(call.bill)
        raise
    except GatewayError:
        if call.bill.pictures or call.bill.usage:
            paid.settle(call.bill)
        else:
            paid.unknown()
        raise
    except BaseException:
        paid.abandon()
        raise
    paid.settle(call.bill)
    return result


@asynccontextmanager
async def preparing(call: Call, admission: Admission) -> AsyncIterator[None]:
    """Bound the work before a call. Raises Busy when it is too late to send the call."""
    try:
        async with asyncio.timeout_at(admission.latest(call)):
            yield
    except TimeoutError:
        raise Busy() from None
