"""What a failed call of Bedrock means: for the caller, and for whether it was served."""

import math
import re

from app.contract.errors import GatewayError, ModelGone, RateLimited, UpstreamFailed, UpstreamTimeout
from app.contract.models import Model
from app.providers.attempt import CallFailed, Served, seconds_of
from app.providers.bedrock.answer import refused
from app.providers.transport import Answer, NotSent, TooLate, TransportError

_NAME = re.compile(r"[A-Za-z]{1,64}")
_RETRY_AFTER_SECONDS = 10
"""What callers are told when the vendor did not say."""
_BUSY = (429, 503)
_REFUSED = (400, 401, 403, 404)


def failed_answer(answer: Answer, model: Model) -> CallFailed:
    """An answer with an error status. AWS's text names accounts, so none of it is passed on."""
    name = _name(answer)
    pause = seconds_of(answer.headers.get("retry-after"))
    error = _meaning(answer, name, pause, model)
    error.vendor_code = name or str(answer.status)
    return CallFailed(error, _served(answer.status, name), pause=pause)


def failed_transport(exc: TransportError, *, late: bool) -> CallFailed:
    """No answer at all. `late`: the call's time is up."""
    error = UpstreamTimeout() if late or isinstance(exc, TooLate) else UpstreamFailed()
    error.vendor_code = type(exc).__name__
    return CallFailed(error, "no" if isinstance(exc, NotSent) else "unknown")


def not_signed(exc: Exception) -> CallFailed:
    """There are no keys, or they cannot be renewed: nothing was sent, and another try would not help."""
    error = UpstreamTimeout() if isinstance(exc, TimeoutError) else UpstreamFailed()
    error.vendor_code = type(exc).__name__
    return CallFailed(error, "refused")


def _name(answer: Answer) -> str | None:
    """AWS's name of the error ("ThrottlingException"), or None if the answer is not in AWS's format.

    The header holds a name, or a name and an address: `Name:http://…`.
    """
    name = answer.headers.get("x-amzn-errortype", "").partition(":")[0]
    return name if _NAME.fullmatch(name) and isinstance(answer.value, dict) else None


def _served(status: int, name: str | None) -> Served:
    if name and status in _BUSY:
        return "no"
    return "refused" if name and status in _REFUSED else "unknown"


def _meaning(answer: Answer, name: str | None, pause: float | None, model: Model) -> GatewayError:
    if name == "ResourceNotFoundException":
        return ModelGone(model.id)
    if name == "ValidationException" and "content filter" in _message(answer.value):
        return refused("The content filter refused the prompt or the init_image", "prompt")
    if answer.status in (408, 504):
        return UpstreamTimeout()
    if answer.status == 429:
        return RateLimited(math.ceil(pause or _RETRY_AFTER_SECONDS), by_vendor=True)
    return UpstreamFailed()  # 503 too: /gen's document has no such answer


def _message(value: object) -> str:
    found = (value.get("message") or value.get("Message")) if isinstance(value, dict) else None
    return found.lower() if isinstance(found, str) else ""
