"""One HTTP call to the emulator, from the moment that its body is read until its answer is sent.

Every HTTP front ends its route with `return await exchange(…)`.
"""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.emulator.calls import Call, Calls
from app.emulator.travel import TRANSPORT, TravellingResponse, wait_for_disconnect
from app.emulator.trouble import Trouble

_GONE = Response(status_code=499)  # never arrives: the client has disconnected


async def exchange(
    request: Request,
    calls: Calls,
    call: Call,
    trouble: Trouble | None,
    work: Callable[[], Response],
    *,
    in_thread: bool = True,
) -> Response:
    """Runs `work` as the trouble asks, and finishes the call with the status of its response.

    The request's body must have been read. `work` books what it draws with `calls.pay`, and plays every
    trouble except slow, hang, drop and travel, which are played here. If the client disconnects first, the
    call is cancelled. A call that waits holds no thread.
    """
    leaving = asyncio.ensure_future(wait_for_disconnect(request.receive))
    answering = asyncio.ensure_future(_answer(trouble, work, in_thread))
    try:
        await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            calls.cancel(call)
            return _GONE
        response = answering.result()
        if trouble and trouble.kind == "drop":
            calls.finish(call, None)
            request.scope[TRANSPORT].abort()
            await leaving
            return _GONE
        if trouble and trouble.travel:
            response = await asyncio.to_thread(TravellingResponse, response, trouble.travel)
        unseen = trouble and trouble.travel and trouble.travel.cut == "before"
        calls.finish(call, None if unseen else response.status_code)
        return response
    finally:
        leaving.cancel()
        answering.cancel()


async def _answer(trouble: Trouble | None, work: Callable[[], Response], in_thread: bool) -> Response:
    if trouble and trouble.kind == "hang":
        await asyncio.Event().wait()
    if trouble and trouble.waits:
        await asyncio.sleep(trouble.waits)
    return await asyncio.to_thread(work) if in_thread else work()


def ordered_response(trouble: Trouble) -> Response:
    """Returns the response that a trouble of kind `answer` orders: status, headers and body.

    A body of text is sent as it is, any other as JSON.
    """
    status, body, headers = trouble.arg["status"], trouble.arg["body"], trouble.arg.get("headers")
    return Response(body, status, headers) if isinstance(body, str) else JSONResponse(body, status, headers)


class Cuttable:
    """ASGI middleware that puts the connection's transport into the scope, so that a response can cut it.

    With uvicorn, `send` is a bound method of the object that has the transport.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[TRANSPORT] = send.__self__.transport  # type: ignore[attr-defined]
        await self._app(scope, receive, send)
