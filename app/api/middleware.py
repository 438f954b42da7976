"""Gives every request an id and a log line, and every response its common headers."""

import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import crashed
from app.api.exchange import Exchange
from app.api.pace import Pace

log = structlog.get_logger()

_NO_ANSWER = 499
"""The logged status if the client left before the response began."""

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class RequestLog:
    """ASGI middleware. Makes and closes the `Exchange`, to which handlers add log fields and headers.

    Logs the method, path, status, milliseconds, and bytes in and out; never bodies, query strings or tokens.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._pace = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith("/api/"):
            scope["path"] = scope["raw_path"].decode("latin-1")  # as sent: %2F is not a slash
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        exchange = scope["exchange"] = Exchange(request_id, headers={"x-request-id": request_id})
        started = time.perf_counter()
        status, received, sent = _NO_ANSWER, 0, 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(exchange.headers)
            sent += len(message.get("body", b""))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if scope["method"] == "POST":  # other methods, as for /health, do not wait
                    await self._pace.begin()
                await self._app(scope, counted_receive, counted_send)
            except Exception as exc:
                if status != _NO_ANSWER:
                    raise  # too late for another response
                await crashed(Request(scope), exc)(scope, receive, counted_send)
            finally:
                exchange.closing.close()
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round((time.perf_counter() - started) * 1000, 1),
                    bytes_in=received,
                    bytes_out=sent,
                    **exchange.log,
                )
