"""What failed calls mean: each vendor has one table, and one context manager reads it.

A table leads from what the vendor said to the error for the caller, and to whether the call was served:

    FAILURES: Table = {
        NotSent: (unavailable, "no"),
        (404, "ResourceNotFoundException"): (model_gone, "refused"),
        429: (rate_limited, "no"),
        (429, None): (rate_limited, "unknown"),
        TransportError: (failed, "unknown"),
        ErrorAnswer: (failed, "unknown"),
    }
    with translated(FAILURES, model, said):
        ...  # send

Rows for error answers: a status stands for every error in the vendor's own format, a status and a name for
one error, a status and None for an answer in another format. Such an answer comes from a proxy or a load
balancer, which cannot know what became of the call. Exceptions are looked up by class, then by base class.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from app.contract.errors import (
    GatewayError,
    ModelGone,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.contract.models import Model
from app.providers.transport import Answer

RETRY_AFTER_SECONDS = 10
"""The pause that callers are told if the vendor names none."""
_SECONDS = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s?", re.ASCII)

Served = Literal["no", "refused", "unknown"]
"""Whether a failed call was served.

no: the vendor never saw it, or was too busy for it (429, 503): it costs nothing, and another try may succeed.
refused: the vendor looked at it and said no: it costs nothing, and another try would not help.
unknown: it was sent and may be paid. It is never repeated.
"""


class CallFailed(Exception):
    """A vendor's call failed. `error` is for the caller; `pause`: the seconds that the vendor asks for."""

    def __init__(self, error: GatewayError, served: Served, *, pause: float | None = None) -> None:
        super().__init__(error.vendor_code)
        self.error = error
        self.served = served
        self.pause = pause


class ErrorAnswer(Exception):
    """The vendor's answer has an error status."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of a failed call.

    `exc` is the exception, or one from the table that means the same. `status` is None if there is no answer.
    `name` is the vendor's name of the error, None if the answer is not in the vendor's own format. `code`
    stands in the log if there is no name; by default the status or the exception's class. `pause`: seconds
    that the vendor asks for. `final`: the vendor says that another try would not help. `text`: the vendor's
    words, which are never passed on. `fields`: the fields of the request that the vendor names.
    """

    exc: Exception
    status: int | None = None
    name: str | None = None
    code: str | None = None
    pause: float | None = None
    final: bool = False
    text: str = ""
    fields: frozenset[str] = frozenset()

    def rows(self) -> Iterator["Key"]:
        """Yields the keys of a table under which its meaning can stand, the most exact one first."""
        if self.status is not None:
            yield self.status, self.name
            if self.name:
                yield self.status
        yield from type(self.exc).__mro__


Key = type | int | tuple[int, str | None]
Meaning = Callable[[Said, Model], GatewayError]
Table = Mapping[Key, tuple[Meaning, Served]]


@contextmanager
def translated(table: Table, model: Model, said: Callable[[Exception], Said] = Said) -> Iterator[None]:
    """Raise CallFailed for every exception that has a row in the table; others pass.

    `said` reads an exception. The error's cause is the exception, unless that says no more than the error.
    """
    try:
        yield
    except Exception as exc:
        if failure := call_failed(table, said(exc), model):
            raise failure from exc.__cause__ if isinstance(exc, ErrorAnswer | GatewayError) else exc
        raise


def call_failed(table: Table, said: Said, model: Model) -> CallFailed | None:
    """Returns what the table says about a failed call, None if it has no row for it."""
    row = next((table[key] for key in said.rows() if key in table), None)
    if not row:
        return None
    meaning, served = row
    error = meaning(said, model)
    error.vendor_code = (
        error.vendor_code or said.name or said.code or str(said.status or type(said.exc).__name__)
    )
    return CallFailed(error, "refused" if said.final and served == "no" else served, pause=said.pause)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds of Retry-After, None if it is missing or a date. `headers`: lower-case names."""
    return seconds_of(headers.get("retry-after"))


def seconds_of(duration: object) -> float | None:
    """Returns the seconds of "7", or of Google's "7.5s"; None for anything else."""
    found = _SECONDS.fullmatch(duration) if isinstance(duration, str) else None
    return float(found[1]) if found else None


# ── meanings ─────────────────────────────────────────────────────────────────────────────────────────────


def failed(said: Said, model: Model) -> GatewayError:
    return UpstreamFailed()


def timed_out(said: Said, model: Model) -> GatewayError:
    return UpstreamTimeout()


def unavailable(said: Said, model: Model) -> GatewayError:
    return UpstreamUnavailable(retry_after=math.ceil(said.pause or RETRY_AFTER_SECONDS))


def rate_limited(said: Said, model: Model) -> GatewayError:
    return RateLimited(math.ceil(said.pause or RETRY_AFTER_SECONDS), by_vendor=True)


def model_gone(said: Said, model: Model) -> GatewayError:
    return ModelGone(model.id)


BEFORE_SENDING: Table = {TimeoutError: (timed_out, "refused"), Exception: (failed, "refused")}
"""The call cannot be signed, or its client not be made: nothing was sent, and another try would not help."""
