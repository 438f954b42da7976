"""What Vertex's failures mean to our callers, and which calls were surely not served (vertex.md §4)."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from app.contract.errors import (
    GatewayError,
    InvalidRequest,
    ModelGone,
    RateLimited,
    SafetyBlocked,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.contract.models import Model
from app.contract.safety import block
from app.providers.attempt import CallFailed, Served, seconds_of
from app.providers.transport import Answer, NotSent, TooLate, TransportError
from app.providers.vertex.shapes import Json, constant, texts

RETRY_AFTER_SECONDS = 10
"""What callers are told if Google names no pause."""
_QUOTA_SECONDS = 30

_SAFETY = re.compile(r"support codes?|responsible ai|usage guidelines|sensitive words", re.IGNORECASE)


def unanswered(exc: TransportError, model: Model) -> CallFailed:
    """Returns the failure of a call that has no answer."""
    code = type(exc).__name__
    match exc:
        case NotSent():
            return _failed(UpstreamUnavailable(retry_after=RETRY_AFTER_SECONDS), "no", code)
        case TooLate():
            return _failed(_timeout(model), "unknown", code)
        case _:
            return _failed(_failure(model), "unknown", code)


def refused(answer: Answer, model: Model) -> CallFailed:
    """Returns the failure of a call whose status is not 200. Google's text is never passed on."""
    error = _read(answer)
    if error is None:  # from a front end or a proxy, which cannot know what became of the call
        error = _Error(f"HTTP_{answer.status}")
    elif answer.status in (429, 503):
        pause = _pause(answer, error)
        return _failed(_not_now(answer.status, pause), "no", error.status, pause)
    elif answer.status in (400, 401, 403, 404):
        return _failed(_never(answer.status, error, model), "refused", error.status)
    meaning = _timeout(model) if answer.status in (408, 504) else _failure(model)
    return _failed(meaning, "unknown", error.status)


@dataclass(frozen=True, slots=True)
class _Error:
    """google.rpc.Status: the name of its code, all that it says, and its details.

    Support codes may stand in the message or only in a detail.
    """

    status: str
    text: str = ""
    details: tuple[Json, ...] = ()


def _read(answer: Answer) -> _Error | None:
    """The error in Google's own format, which may stand in a list of one; None for any other answer."""
    value = answer.value
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or error.get("code") != answer.status:
        return None
    status, details = constant(error.get("status")), error.get("details")
    if status is None:
        return None
    known = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return _Error(status, "\n".join(texts(error)), tuple(known))


def _not_now(status: int, pause: float | None) -> GatewayError:
    if status == 429:
        return RateLimited(math.ceil(pause or _QUOTA_SECONDS), by_vendor=True)
    return UpstreamUnavailable(retry_after=math.ceil(pause or RETRY_AFTER_SECONDS))


def _never(status: int, error: _Error, model: Model) -> GatewayError:
    if status == 400:
        return _not_taken(error, model)
    if status != 404:
        return _failure(model)
    if "gs://" in error.text:  # the only objects we ever name are the caller's
        return InvalidRequest("a gs:// picture could not be read")
    return ModelGone(model.id)


def _not_taken(error: _Error, model: Model) -> GatewayError:
    """A 400 is a blocked prompt, or a value of the caller's that the model does not take."""
    blocked = block(error.text)
    if blocked.category or _SAFETY.search(error.text):
        return SafetyBlocked(blocked)
    fields = {to_camel(field.split(".")[-1]) for field in _violated(error)}
    if named := sorted(fields & _FIELDS.keys()):
        return InvalidRequest(
            [f"{_FIELDS[field]} has a value that {model.id} does not take" for field in named]
        )
    return InvalidRequest(f"{model.id} does not take this request")


_FIELDS = {
    "aspectRatio": "aspectRatio",
    "baseSteps": "baseSteps",
    "compressionQuality": "outputOptions.compressionQuality",
    "dilation": "maskImageConfig.dilation",
    "guidanceScale": "guidanceScale",
    "imageSize": "sampleImageSize",
    "maskClasses": "maskImageConfig.maskClasses",
    "negativePrompt": "negativePrompt",
    "personGeneration": "personGeneration",
    "prompt": "prompt",
    "safetySetting": "safetySetting",
    "sampleImageSize": "sampleImageSize",
    "seed": "seed",
    "threshold": "safetySetting",
}
"""Google's names of fields whose values are the caller's, and the document's names."""


def _violated(error: _Error) -> Iterator[str]:
    """Yields the fields that google.rpc.BadRequest names."""
    for detail in _of_kind(error, "BadRequest"):
        violations = detail.get("fieldViolations")
        for one in violations if isinstance(violations, list) else ():
            if isinstance(one, dict) and isinstance(field := one.get("field"), str):
                yield field


def _pause(answer: Answer, error: _Error) -> float | None:
    """Seconds to wait, from google.rpc.RetryInfo or else from Retry-After."""
    delays = [detail.get("retryDelay") for detail in _of_kind(error, "RetryInfo")]
    said = map(seconds_of, (*delays, answer.headers.get("retry-after")))
    return next((seconds for seconds in said if seconds is not None), None)


def _of_kind(error: _Error, kind: str) -> list[Json]:
    return [one for one in error.details if one.get("@type") == f"type.googleapis.com/google.rpc.{kind}"]


def _timeout(model: Model) -> GatewayError:
    return UpstreamTimeout(f"{model.id} did not answer in time")


def _failure(model: Model) -> GatewayError:
    return UpstreamFailed(f"{model.id} failed")


def _failed(error: GatewayError, served: Served, code: str, pause: float | None = None) -> CallFailed:
    error.vendor_code = code
    return CallFailed(error, served, pause=pause)
