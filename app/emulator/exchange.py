"""One HTTP call at the emulator: troubled as ordered, drawn off the loop, cancelled when the client leaves.

Every HTTP front ends its route with `return await exchange(…)`.
"""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.emulator.calls import Call, Calls
from app.emulator.travel import TRANSPORT, Travelling
from app.emulator.trouble import Trouble

_GONE = Response(status_code=499)  # returned to a client that is no longer there


async def exchange(
    request: Request,
    calls: Calls,
    call: Call,
    trouble: Trouble | None,
    work: Callable[[], Response],
    *,
    in_thread: bool = True,
) -> Response:
    """Wait as the model's pause, `slow` and `hang` ask, run `work`, finish the call with its status.

    The request's body must have been read. `work` books what it draws with `calls.pay`; it sees to every
    trouble but slow, hang, drop and how the answer travels. A call that waits holds no thread.
    """
    leaving = asyncio.ensure_future(_left(request))
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
            response = await asyncio.to_thread(Travelling, response, trouble.travel)
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


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Cuttable:
    """Lets answers end their connection: uvicorn's `send` is a method of the transport's owner."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[TRANSPORT] = send.__self__.transport  # type: ignore[attr-defined]
        await self._app(scope, receive, send)
