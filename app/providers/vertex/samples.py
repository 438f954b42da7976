"""Several samples of one request: what was made is kept when others fail."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import structlog

from app.contract.errors import (
    BrokenPicture,
    Busy,
    GatewayError,
    InvalidRequest,
    ModelGone,
    RateLimited,
    SafetyBlocked,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.contract.safety import block
from app.logs import causes
from app.pictures.picture import Picture
from app.ports import Call, Generation

_log = structlog.get_logger(__name__)

Outcome = Picture | BaseException
"""What became of one sample."""

_TELLING = (ModelGone, InvalidRequest, SafetyBlocked, RateLimited, UpstreamUnavailable, UpstreamTimeout)
"""Which failure is raised when no sample was made: the first of these, else any other.

A successor can serve what a missing model cannot; the caller can correct a request or a prompt, and repeat it
after a pause. Neither helps against a failed vendor or a broken picture, so these come last.
"""


async def all_of(samples: Iterable[Coroutine[Any, Any, Picture]], call: Call) -> list[Outcome]:
    """Returns what became of the samples, which are made at the same time.

    When the caller's time is up and a picture is ready, the other samples are cancelled. If none is ready,
    all go on.
    """
    tasks = [asyncio.create_task(sample) for sample in samples]
    try:
        left = call.answer_by - asyncio.get_running_loop().time()
        done, late = await asyncio.wait(tasks, timeout=max(left, 0))
        if late and all(task.exception() for task in done):
            await asyncio.wait(late)
    finally:
        given_up = [task for task in tasks if task.cancel()]
        if given_up:
            await asyncio.wait(given_up)
    return [_outcome(task) for task in tasks]


def _outcome(task: asyncio.Task[Picture]) -> Outcome:
    if task.cancelled():
        return UpstreamTimeout()
    return task.exception() or task.result()


def gathered(outcomes: Sequence[Outcome]) -> Generation:
    """Returns the pictures, the blocks, and a sentence for each other sample that was lost.

    Raises the most telling failure if there is no picture, and any exception that is not a GatewayError.
    """
    pictures: list[Picture] = []
    blocked: list[SafetyBlocked] = []
    lost: list[GatewayError] = []
    for outcome in outcomes:
        match outcome:
            case Picture():
                pictures.append(outcome)
            case SafetyBlocked():
                blocked.append(outcome)
            case GatewayError():
                lost.append(outcome)
            case _:
                raise outcome
    if not pictures:
        raise _most_telling(blocked, lost)
    for failure in lost:
        _log.warning("sample lost", cause=causes(failure), vendor_code=failure.vendor_code)
    blocks = tuple(one.block for one in blocked)
    return Generation(tuple(pictures), blocks, tuple(map(_sentence, lost)))


def _most_telling(blocked: Sequence[SafetyBlocked], lost: Sequence[GatewayError]) -> GatewayError:
    """Returns the failure to raise. All blocks become one, as does no outcome; the longest pause wins."""
    failures = list(lost)
    if blocked or not lost:
        all_blocks = SafetyBlocked(block(*(one.block.reason for one in blocked)))
        all_blocks.vendor_code = blocked[0].vendor_code if blocked else None
        failures.append(all_blocks)
    return min(failures, key=lambda one: (_rank(one), -(getattr(one, "retry_after", None) or 0)))


def _rank(failure: GatewayError) -> int:
    return next((rank for rank, kind in enumerate(_TELLING) if isinstance(failure, kind)), len(_TELLING))


def _sentence(failure: GatewayError) -> str:
    """Returns the sentence for the caller about a lost sample, without the vendor's words."""
    match failure:
        case RateLimited(by_vendor=True):
            return "the vendor's quota is used up"
        case RateLimited():
            return "too many of your calls are under way"
        case Busy():
            return "the gateway was overloaded"
        case UpstreamUnavailable():
            return "the vendor was unavailable"
        case UpstreamTimeout():
            return "no answer in time"
        case BrokenPicture():
            return "the picture in the answer was broken"
        case _:
            return "the picture could not be made"
