"""What the failures of Google's client mean to our callers, and which calls were surely not served."""

import math
import re

import grpc
from google.api_core import exceptions as google_errors
from google.rpc import error_details_pb2 as details
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

_NEVER_SENT = re.compile(r"failed to connect to all addresses|(DNS|name) resolution", re.IGNORECASE)
_CUT = re.compile(
    r"socket|stream (removed|closed)|connection|transport|broken pipe|recvmsg|sendmsg|goaway|rst_stream"
    r"|\bping\b|keepalive|endpoint closing|cancelling all calls|metadata from plugin",
    re.IGNORECASE,
)
"""Words of gRPC's own UNAVAILABLE, which differs from the server's in nothing but its text. Such a call may
have been served and paid (or, "metadata from plugin", our credentials failed)."""

_SAFETY = re.compile(r"support codes?|responsible ai|usage guidelines|sensitive words", re.IGNORECASE)


def translate(exc: Exception, model: Model) -> GatewayError:
    """What a failure of Google's client means to our caller (vertex.md §4). Google's words are never told."""
    error = _meaning(exc, model)
    error.vendor_code = code(exc)
    return error


def code(exc: Exception) -> str:
    """Returns Google's error code, for example RESOURCE_EXHAUSTED, or the exception's class if there is
    none."""
    status = getattr(exc, "grpc_status_code", None)
    return status.name if isinstance(status, grpc.StatusCode) else type(exc).__name__


def _meaning(exc: Exception, model: Model) -> GatewayError:
    match exc:
        case google_errors.NotFound():
            # The only objects we ever name are the caller's.
            if "gs://" in _text(exc):
                return InvalidRequest("a gs:// picture could not be read")
            return ModelGone(model.id)
        case google_errors.TooManyRequests():
            return RateLimited(math.ceil(told_to_wait(exc) or 30), by_vendor=True)
        case google_errors.BadRequest():
            return _refused(exc, model)
        case google_errors.ServiceUnavailable() if may_be_repeated(exc):
            return UpstreamUnavailable(retry_after=math.ceil(told_to_wait(exc) or 10))
        case google_errors.GatewayTimeout():
            return UpstreamTimeout(f"{model.id} did not answer in time")
        case _:
            return UpstreamFailed(f"{model.id} failed")


def may_be_repeated(exc: Exception) -> bool:
    """Whether the call was surely not served: refused by quota or overload, or never sent."""
    match exc:
        case google_errors.TooManyRequests():
            return True
        case google_errors.ServiceUnavailable():
            return bool(_NEVER_SENT.search(exc.message)) or not _CUT.search(exc.message)
        case _:
            return False


def _refused(exc: google_errors.BadRequest, model: Model) -> GatewayError:
    """A 400 is a blocked prompt, or a value of the caller's that the model does not take."""
    text = _text(exc)
    blocked = block(text)
    if blocked.category or _SAFETY.search(text):
        return SafetyBlocked(blocked)
    violations = [
        one
        for detail in exc.details
        if isinstance(detail, details.BadRequest)
        for one in detail.field_violations
    ]
    fields = {to_camel(one.field.split(".")[-1]) for one in violations}
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


def _text(exc: google_errors.GoogleAPICallError) -> str:
    """All that the error says: support codes may be in its message or only in a detail."""
    return "\n".join([exc.message, *map(str, exc.details)])


def told_to_wait(exc: Exception) -> float | None:
    """Seconds, from google.rpc.RetryInfo."""
    for detail in getattr(exc, "details", ()):
        if isinstance(detail, details.RetryInfo):
            return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    return None
