"""Turns exceptions into responses: status and headers here, the body in the route's dialect."""

from typing import Any, cast

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.answers import json_response
from app.api.dialect import dialect_of
from app.api.error_codes import Code, Crashed, status, status_and_code
from app.api.exchange import exchange
from app.contract import errors
from app.logs import causes, places
from app.pictures.room import NoRoom

log = structlog.get_logger()

_CLIENT_GONE = 499
_MAX_RULES, _MAX_RULE = 5, 200
"""The number of broken rules that are logged per request, and the number of characters of each."""


class ClientGone(Exception):
    """The client closed the connection before the response was ready."""


def refusal(request: Request, error: errors.GatewayError) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error, in the dialect of the request's route."""
    body = dialect_of(request).body(error)
    return status(error), body if error.receipt is None else {**body, "receiptId": error.receipt}


def respond(request: Request, error: errors.GatewayError) -> Response:
    """Returns the response to an error. Logs a 5xx in its own line, any other in the request's line."""
    number, code = status_and_code(error)
    reason = _reason(error, code)
    if number >= 500:
        log.error("request failed", status=number, **reason)
    else:
        exchange(request).log.update(reason)
    _, body = refusal(request, error)
    headers: dict[str, str] = {"X-Error-Code": code}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.hint:
        headers["X-Error-Hint"] = error.hint
    return json_response(body, number, headers, head=request.method == "HEAD")


def _reason(error: errors.GatewayError, code: Code) -> dict[str, object]:
    """Returns log fields without values of the request: broken rules, the vendor's code, the causes."""
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


def _vendor_code(error: BaseException | None) -> str | None:
    """Returns the vendor's code of this error, or of its nearest cause with a code."""
    while error is not None:
        if isinstance(error, errors.GatewayError) and error.vendor_code:
            return error.vendor_code
        error = error.__cause__
    return None


def crashed(request: Request, exc: Exception) -> Response:
    """Returns a 500 response for an unexpected exception."""
    error = Crashed()
    error.__cause__ = exc
    return respond(request, error)


def install(app: FastAPI) -> None:
    """Register a handler for each kind of exception."""

    async def gateway_error(request: Request, exc: Exception) -> Response:
        return respond(request, cast(errors.GatewayError, exc))

    async def no_route(request: Request, _exc: Exception) -> Response:
        """Handles the router's 404 and 405. NestJS returns 404 for both."""
        target = request.scope.get("raw_path") or request.url.path.encode()
        query = request.scope.get("query_string") or b""
        where = (target + (b"?" + query if query else b"")).decode("latin-1")
        return respond(request, errors.RouteNotFound(f"Cannot {request.method} {where}"))

    async def no_room(request: Request, exc: Exception) -> Response:
        """Handles a full folder for temporary files with a 503."""
        log.warning("no room for a picture", reason=str(exc))  # names the folder
        error = errors.Busy()
        error.__cause__ = exc
        return respond(request, error)

    async def client_gone(_request: Request, _exc: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    app.add_exception_handler(errors.GatewayError, gateway_error)
    app.add_exception_handler(HTTPException, no_route)
    app.add_exception_handler(NoRoom, no_room)
    app.add_exception_handler(ClientGone, client_gone)
    app.add_exception_handler(ClientDisconnect, client_gone)
