"""The only place where an error gets a body: Nest's everywhere, the document's own on `/gen`."""

from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.answers import json_response
from app.api.error_codes import Code
from app.api.exchange import exchange
from app.contract import errors
from app.contract.answer import Filtered
from app.contract.gen import InvalidGen
from app.contract.safety import Block
from app.logs import causes, places
from app.pictures.room import NoRoom

Body = dict[str, Any]

log = structlog.get_logger()

_INTERNAL = "Terjadi kesalahan internal"
"""The document's sentence for every 500. It never says more."""

_STATUS: dict[type[errors.GatewayError], tuple[int, Code]] = {
    errors.InvalidRequest: (400, "validation"),
    errors.SafetyBlocked: (400, "blocked"),
    errors.Unauthorized: (401, "unauthorized"),
    errors.BudgetExhausted: (402, "budget_exhausted"),
    errors.Forbidden: (403, "forbidden"),
    errors.NotFound: (404, "not_found"),
    errors.RequestTimedOut: (408, "timeout"),
    errors.KeyInFlight: (409, "key_in_flight"),
    errors.PayloadTooLarge: (413, "payload_too_large"),
    errors.UnsupportedMedia: (415, "unsupported_media"),
    errors.KeyReused: (422, "key_reused"),
    errors.RateLimited: (429, "too_many_requests"),
    errors.UpstreamFailed: (500, "vendor_failed"),
    errors.UpstreamUnavailable: (503, "vendor_unavailable"),
    errors.Busy: (503, "busy"),
    errors.StorageDown: (503, "storage_down"),
    errors.UpstreamTimeout: (504, "timeout"),
}

GEN_PATHS = ("/gen", "/pro/gen")


class ClientGone(Exception):
    """The client hung up; nobody reads an answer."""


class Crashed(errors.UpstreamFailed):
    """An unexpected exception. The caller gets the same body as for any other 500."""


def status(error: errors.GatewayError) -> int:
    return _status(error)[0]


def _status(error: errors.GatewayError) -> tuple[int, Code]:
    if isinstance(error, errors.RateLimited) and error.by_vendor:
        return 429, "vendor_quota"
    if isinstance(error, Crashed):
        return 500, "internal"
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def nest(error: errors.GatewayError) -> Body:
    """Nest's body. `error` holds the status phrase when the message is another text."""
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


def _blocked(block: Block) -> Body:
    """The document's two safety bodies: the long one when the support code is known."""
    told = Filtered.of(block).model_dump(by_alias=True, exclude_none=True)
    body = {"statusCode": 400, "message": block.message, **told}
    return body if block.code is None else {"success": False, **body}


def gen(error: errors.GatewayError) -> Body:
    """`/gen`'s body: a sentence, and details that may help the caller."""
    code = status(error)
    details: str | None = getattr(error, "hint", None)
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


def told(request: Request, error: errors.GatewayError) -> tuple[int, Body]:
    """Returns status and body, in the dialect of the request's path."""
    body = gen(error) if request.scope["path"] in GEN_PATHS else nest(error)
    return status(error), body if error.receipt is None else {**body, "receiptId": error.receipt}


def respond(request: Request, error: errors.GatewayError) -> Response:
    """Returns the error response. Its reason goes into the request's log line, a failure's into its own."""
    number, code = _status(error)
    reason = _reason(error, code)
    if number >= 500:
        log.error("request failed", status=number, **reason)
    else:
        exchange(request).log.update(reason)
    _, body = told(request, error)
    headers: dict[str, str] = {"X-Error-Code": code}
    if (retry_after := getattr(error, "retry_after", None)) is not None:
        headers["Retry-After"] = str(retry_after)
    if hint := getattr(error, "hint", None):
        headers["X-Error-Hint"] = hint
    return json_response(body, number, headers, head=request.method == "HEAD")


def _reason(error: errors.GatewayError, code: Code) -> dict[str, object]:
    """What the log says, without values: the broken rules, the vendor's code, the classes of the causes."""
    fields: dict[str, object] = {"code": code}
    if isinstance(error, errors.InvalidRequest):
        fields["rules"] = [rule[:_MAX_RULE] for rule in (error.sentences or (error.message,))[:_MAX_RULES]]
    if error.__cause__:
        fields["cause"] = causes(error.__cause__)
    if vendor_code := _vendor_code(error):
        fields["vendor_code"] = vendor_code
    if isinstance(error, Crashed):
        fields["trace"] = places(error.__cause__)
    return fields


_MAX_RULES, _MAX_RULE = 5, 200
"""How many broken rules of a request are logged, and how many characters of each."""


def _vendor_code(error: BaseException | None) -> str | None:
    """Returns the vendor's error code, of this error or of one of its causes."""
    while error is not None:
        if isinstance(error, errors.GatewayError) and error.vendor_code:
            return error.vendor_code
        error = error.__cause__
    return None


def crashed(request: Request, exc: Exception) -> Response:
    """Returns the document's 500 for an unexpected exception."""
    error = Crashed()
    error.__cause__ = exc
    return respond(request, error)


async def no_room(request: Request, exc: Exception) -> Response:
    """Returns 503 if temporary files have no room for a picture."""
    log.warning("no room for a picture", reason=str(exc))  # names the folder
    error = errors.Busy(retry_after=_RETRY_AFTER_SECONDS)
    error.__cause__ = exc
    return respond(request, error)


_RETRY_AFTER_SECONDS = 5


def install(app: FastAPI) -> None:
    """Answer our own errors and the router's."""

    async def ours(request: Request, exc: Exception) -> Response:
        return respond(request, cast(errors.GatewayError, exc))

    async def routers(request: Request, exc: Exception) -> Response:
        target = request.scope.get("raw_path") or request.url.path.encode()
        query = request.scope.get("query_string") or b""
        where = (target + (b"?" + query if query else b"")).decode("latin-1")
        error = errors.RouteNotFound(f"Cannot {request.method} {where}")
        return respond(request, error)

    async def nobody_reads(_request: Request, _exc: Exception) -> Response:
        return Response(status_code=499)

    app.add_exception_handler(errors.GatewayError, ours)
    app.add_exception_handler(HTTPException, routers)
    app.add_exception_handler(NoRoom, no_room)
    app.add_exception_handler(ClientGone, nobody_reads)
    app.add_exception_handler(ClientDisconnect, nobody_reads)
