"""What a failed call of Vertex AI means.

https://cloud.google.com/apis/design/errors describes the format and the details of Google's errors.
"""

import math
import re
from collections.abc import Iterator

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
from app.providers.failures import ErrorAnswer, Said, Table, retry_after, seconds_of, unavailable
from app.providers.transport import NotSent, TooLate, TransportError
from app.providers.vertex.shapes import Json, constant, texts

_QUOTA_SECONDS = 30
_SAFETY = re.compile(r"support codes?|responsible ai|usage guidelines|sensitive words", re.IGNORECASE)
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
"""Google's names of the fields that hold values of the caller, and the names in the gateway's document."""


def said(exc: Exception) -> Said:
    """Reads an error answer. Google's text names projects, so none of it is passed on.

    Support codes can stand in the message or only in a detail.
    """
    if not isinstance(exc, ErrorAnswer):
        return Said(exc)
    answer = exc.answer
    error = _error(answer.value, answer.status)
    if error is None:
        return Said(exc, answer.status, code=f"HTTP_{answer.status}")
    details = error.get("details")
    known = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    delays = [seconds_of(one.get("retryDelay")) for one in _of_kind(known, "RetryInfo")]
    return Said(
        exc,
        answer.status,
        constant(error.get("status")),
        pause=next((delay for delay in delays if delay is not None), retry_after(answer.headers)),
        text="\n".join(texts(error)),
        fields=frozenset(_violated(known)),
    )


def _error(value: object, status: int) -> Json | None:
    """Returns an answer's google.rpc.Status, which can stand in a list of one; None for another format."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or error.get("code") != status or not constant(error.get("status")):
        return None
    return error


def _violated(details: list[Json]) -> Iterator[str]:
    """Yields the fields that google.rpc.BadRequest names."""
    for detail in _of_kind(details, "BadRequest"):
        violations = detail.get("fieldViolations")
        for one in violations if isinstance(violations, list) else ():
            if isinstance(one, dict) and isinstance(field := one.get("field"), str):
                yield field


def _of_kind(details: list[Json], kind: str) -> list[Json]:
    return [one for one in details if one.get("@type") == f"type.googleapis.com/google.rpc.{kind}"]


def _invalid(said: Said, model: Model) -> GatewayError:
    """The prompt is blocked, or the model does not take one of the caller's values."""
    blocked = block(said.text)
    if blocked.category or _SAFETY.search(said.text):
        return SafetyBlocked(blocked)
    fields = {to_camel(field.split(".")[-1]) for field in said.fields}
    if named := sorted(fields & _FIELDS.keys()):
        return InvalidRequest(
            [f"{_FIELDS[field]} has a value that {model.id} does not take" for field in named]
        )
    return InvalidRequest(f"{model.id} does not take this request")


def _not_found(said: Said, model: Model) -> GatewayError:
    if "gs://" in said.text:  # the gateway names no objects but the caller's
        return InvalidRequest("a gs:// picture could not be read")
    return ModelGone(model.id)


def _out_of_quota(said: Said, model: Model) -> GatewayError:
    return RateLimited(math.ceil(said.pause or _QUOTA_SECONDS), by_vendor=True)


def _timed_out(said: Said, model: Model) -> GatewayError:
    return UpstreamTimeout(f"{model.id} did not answer in time")


def _failed(said: Said, model: Model) -> GatewayError:
    return UpstreamFailed(f"{model.id} failed")


def _no_token(said: Said, model: Model) -> GatewayError:
    assert isinstance(said.exc, GatewayError)  # noqa: S101 - its row says so
    return said.exc


FAILURES: Table = {
    NotSent: (unavailable, "no"),
    TooLate: (_timed_out, "unknown"),
    TransportError: (_failed, "unknown"),
    400: (_invalid, "refused"),
    401: (_failed, "refused"),
    403: (_failed, "refused"),
    404: (_not_found, "refused"),
    408: (_timed_out, "unknown"),
    (408, None): (_timed_out, "unknown"),
    429: (_out_of_quota, "no"),
    503: (unavailable, "no"),
    504: (_timed_out, "unknown"),
    (504, None): (_timed_out, "unknown"),
    ErrorAnswer: (_failed, "unknown"),
}

NO_TOKEN: Table = {
    UpstreamFailed: (_no_token, "refused"),
    UpstreamUnavailable: (_no_token, "no"),
    TimeoutError: (unavailable, "no"),
}
"""Without a token nothing is sent."""
