"""The only place where an error gets a body: Nest's everywhere, the document's own on `/gen`."""

import logging
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.answers import json_response
from app.contract import errors
from app.contract.answer import Filtered
from app.contract.gen import InvalidGen
from app.contract.safety import Block

Body = dict[str, Any]

log = structlog.get_logger()

_INTERNAL = "Terjadi kesalahan internal"
"""The document's sentence for every 500. It never says more."""

_STATUS: dict[type[errors.GatewayError], int] = {
    errors.InvalidRequest: 400,
    errors.SafetyBlocked: 400,
    errors.Unauthorized: 401,
    errors.RouteNotFound: 404,
    errors.RequestTimedOut: 408,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.RateLimited: 429,
    errors.UpstreamFailed: 500,
    errors.UpstreamUnavailable: 503,
    errors.UpstreamTimeout: 504,
}

GEN_PATHS = ("/gen", "/pro/gen")


class ClientGone(Exception):
    """The client hung up; nobody reads an answer."""


def status(error: errors.GatewayError) -> int:
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
        case errors.RouteNotFound():
            return {"statusCode": code, "message": error.message, "error": phrase}
        case errors.PayloadTooLarge(file=True):
            return {"statusCode": code, "message": "File too large", "error": "Payload Too Large"}
        case errors.PayloadTooLarge() | errors.UnsupportedMedia():
            return {"statusCode": code, "message": error.message}
        case errors.RateLimited(by_vendor=False):
            return {"statusCode": code, "message": "ThrottlerException: Too Many Requests"}
        case errors.UpstreamFailed():
            return {"statusCode": code, "message": _INTERNAL}
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
    details: str | None = None
    match error:
        case errors.SafetyBlocked():
            text, details = error.block.message, error.block.hint or "Rephrase the prompt and try again"
        case InvalidGen():
            text, details = error.error, error.details
        case errors.InvalidRequest():  # the body's parser, or a model that is retired
            text, _, details = error.message.partition(": ")
        case errors.UpstreamFailed():
            text = "Internal Server Error"
        case errors.RouteNotFound() | errors.UnsupportedMedia() | errors.PayloadTooLarge():
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


def respond(request: Request, error: errors.GatewayError) -> Response:
    """Log the failure (the reason is in `__cause__`) and answer it."""
    code = status(error)
    level = logging.ERROR if code >= 500 else logging.INFO
    log.log(
        level,
        "request failed",
        status=code,
        error=type(error).__name__,
        exc_info=error if code >= 500 else None,
    )
    body = gen(error) if request.url.path in GEN_PATHS else nest(error)
    retry_after = getattr(error, "retry_after", None)
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return json_response(body, code, headers, head=request.method == "HEAD")


def crashed(request: Request, exc: Exception) -> Response:
    """The answer to a failure that nobody foresaw: the document's 500."""
    error = errors.UpstreamFailed()
    error.__cause__ = exc
    return respond(request, error)


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
    app.add_exception_handler(ClientGone, nobody_reads)
    app.add_exception_handler(ClientDisconnect, nobody_reads)
