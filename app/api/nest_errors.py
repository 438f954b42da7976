"""Error bodies in the format of the NestJS gateway, for all routes without another dialect."""

from http import HTTPStatus
from typing import Any, Literal

from app.api.error_codes import status
from app.contract import errors
from app.contract.answer import Answer, Filtered, StoredImage
from app.contract.safety import Block

_INTERNAL = "Terjadi kesalahan internal"
"""The API document's sentence for every 500: "An internal error occurred", in Indonesian."""


class NestError(Answer):
    status_code: int
    message: str | tuple[str, ...]
    error: str | None = None
    pending: tuple[StoredImage, ...] | None = None
    receipt_id: str | None = None


class SafetyError(Filtered):
    success: Literal[False] | None = None
    status_code: Literal[400]
    message: str


def nest_body(error: errors.GatewayError) -> dict[str, Any]:
    """Returns the body. As in NestJS, `error` has the status phrase if the message is a different text."""
    code = status(error)
    phrase = HTTPStatus(code).phrase
    match error:
        case errors.SafetyBlocked():
            return _blocked(error.block)
        case errors.InvalidRequest():
            message: Any = error.message if error.sentences is None else list(error.sentences)
            return {"statusCode": code, "message": message, "error": phrase}
        case (
            errors.BudgetExhausted()
            | errors.Forbidden()
            | errors.NotFound()
            | errors.KeyInFlight()
            | errors.KeyReused()
        ):
            return {"statusCode": code, "message": error.message, "error": phrase}
        case errors.PayloadTooLarge(file=True):
            return {"statusCode": code, "message": "File too large", "error": "Payload Too Large"}
        case errors.PayloadTooLarge() | errors.UnsupportedMedia():
            return {"statusCode": code, "message": error.message}
        case errors.RateLimited(by_vendor=False):
            return {"statusCode": code, "message": "ThrottlerException: Too Many Requests"}
        case errors.UpstreamFailed():
            return {"statusCode": code, "message": _INTERNAL}
        case errors.StorageDown(pending=pending) if pending:
            return {"statusCode": code, "message": phrase, "pending": pending}
        case _:
            return {"statusCode": code, "message": phrase}


def _blocked(block: Block) -> dict[str, Any]:
    """Returns one of the API document's two safety bodies: the long one if the support code is known."""
    known = Filtered.of(block).model_dump(by_alias=True, exclude_none=True)
    body = {"statusCode": 400, "message": block.message, **known}
    return body if block.code is None else {"success": False, **body}
