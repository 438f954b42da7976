"""Several samples, each made by a call of its own: what was made is kept when others fail."""

from collections.abc import Sequence

import structlog

from app.contract.errors import (
    GatewayError,
    InvalidRequest,
    ModelGone,
    RateLimited,
    SafetyBlocked,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.logs import causes
from app.pictures.picture import Picture
from app.ports import Generation

_log = structlog.get_logger(__name__)

_TELLING = (ModelGone, InvalidRequest, SafetyBlocked, RateLimited, UpstreamUnavailable, UpstreamTimeout)
"""Which failure is told when no sample was made: the first of these."""


def gathered(outcomes: Sequence[Picture | BaseException]) -> Generation:
    """Returns the pictures and the blocks. Raises the most telling failure when there is no picture."""
    pictures: list[Picture] = []
    failures: list[GatewayError] = []
    for outcome in outcomes:
        match outcome:
            case Picture():
                pictures.append(outcome)
            case GatewayError():
                failures.append(outcome)
            case _:
                raise outcome
    if not pictures:
        raise min(failures, key=_rank)
    for failure in failures:
        if not isinstance(failure, SafetyBlocked):
            _log.warning("sample lost", cause=causes(failure), vendor_code=failure.vendor_code)
    blocks = tuple(one.block for one in failures if isinstance(one, SafetyBlocked))
    return Generation(tuple(pictures), blocks)


def _rank(failure: BaseException) -> tuple[int, bool]:
    rank = next((rank for rank, kind in enumerate(_TELLING) if isinstance(failure, kind)), len(_TELLING))
    return rank, isinstance(failure, SafetyBlocked) and failure.block.code is None
