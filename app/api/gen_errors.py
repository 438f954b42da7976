"""Error bodies of /gen, as its API document defines them."""

from http import HTTPStatus
from typing import Any, Literal

from app.api.dialect import Dialect, DialectRoute
from app.api.error_codes import status
from app.contract import errors
from app.contract.answer import StoredImage
from app.contract.gen import InvalidGen
from app.contract.words import Described


class GenError(Described):
    status: Literal["error"]
    error: str
    details: str
    pending: tuple[StoredImage, ...] | None = None
    receiptId: str | None = None


def gen_body(error: errors.GatewayError) -> dict[str, Any]:
    """Returns the body: `error` says what was wrong, `details` what can help the caller."""
    code = status(error)
    details = error.hint
    match error:
        case errors.SafetyBlocked():
            text, details = error.block.message, error.block.hint or "Rephrase the prompt and try again"
        case InvalidGen():
            text, details = error.error, error.details
        case errors.InvalidRequest():  # the body's parser, or a model that is retired
            text, _, rest = error.message.partition(": ")
            details = details or rest
        case errors.BudgetExhausted() | errors.Forbidden() | errors.KeyInFlight() | errors.KeyReused():
            text, details = HTTPStatus(code).phrase, error.message
        case errors.UpstreamFailed():
            text = "Internal Server Error"
        case errors.StorageDown(pending=()):
            text, details = HTTPStatus(code).phrase, "Pictures cannot be stored now: wait and try again"
        case errors.StorageDown(pending=pending):
            details = (
                "The picture is made; its URL under 'pending' will work when the storage is available again"
            )
            return {
                "status": "error",
                "error": HTTPStatus(code).phrase,
                "details": details,
                "pending": pending,
            }
        case errors.NotFound() | errors.UnsupportedMedia() | errors.PayloadTooLarge():
            text = error.message
        case _:
            text = HTTPStatus(code).phrase
    return {"status": "error", "error": text, "details": details or _GEN_DETAILS.get(code, text)}


_GEN_DETAILS = {
    401: "A valid Bearer token is required",
    404: "POST is the only method of this path",
    408: "The request body did not arrive in time",
    413: "The request body or a picture in it is too large",
    429: "Too many requests: wait and try again",
    500: "The picture could not be made; try again later",
    503: "The service is busy: wait and try again",
    504: "The picture was not ready in time; it is not known whether it was made",
}


GEN = Dialect(gen_body, lambda _status: (GenError,))


class GenRoute(DialectRoute):
    dialect = GEN
