"""What a failed call of Bedrock means.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html lists the errors.
"""

import re

from app.contract.errors import GatewayError
from app.contract.models import Model
from app.providers.bedrock.answer import refused
from app.providers.failures import (
    ErrorAnswer,
    Said,
    Table,
    failed,
    model_gone,
    rate_limited,
    retry_after,
    timed_out,
)
from app.providers.transport import NotSent, NotSentInTime, TooLate, TransportError

_NAME = re.compile(r"[A-Za-z]{1,64}")


def said(exc: Exception) -> Said:
    """Reads an error answer. AWS's text names accounts, so none of it is passed on."""
    if not isinstance(exc, ErrorAnswer):
        return Said(exc)
    answer = exc.answer
    # The header holds a name, or a name and an address: `Name:http://…`.
    name = answer.headers.get("x-amzn-errortype", "").partition(":")[0]
    known = _NAME.fullmatch(name) and isinstance(answer.value, dict)
    return Said(
        exc,
        answer.status,
        name if known else None,
        pause=retry_after(answer.headers),
        text=_message(answer.value),
    )


def _message(value: object) -> str:
    found = (value.get("message") or value.get("Message")) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _invalid(said: Said, model: Model) -> GatewayError:
    if "content filter" in said.text.lower():
        return refused("The content filter refused the prompt or the init_image", "prompt")
    return failed(said, model)


FAILURES: Table = {
    NotSentInTime: (timed_out, "no"),
    NotSent: (failed, "no"),
    TooLate: (timed_out, "unknown"),
    TransportError: (failed, "unknown"),
    (400, "ValidationException"): (_invalid, "refused"),
    400: (failed, "refused"),
    401: (failed, "refused"),
    403: (failed, "refused"),
    (404, "ResourceNotFoundException"): (model_gone, "refused"),
    404: (failed, "refused"),
    408: (timed_out, "unknown"),
    (408, None): (timed_out, "unknown"),
    429: (rate_limited, "no"),
    (429, None): (rate_limited, "unknown"),
    503: (failed, "no"),  # /gen's document has no 503
    504: (timed_out, "unknown"),
    (504, None): (timed_out, "unknown"),
    ErrorAnswer: (failed, "unknown"),
}
