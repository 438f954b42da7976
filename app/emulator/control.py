"""The control routes: show the calls and what they cost, and order the next trouble.

An order is JSON, for example `{"kind": "429", "arg": 7, "vendor": "bedrock", "times": 2}` or
`{"travel": {"gzip": true, "cut": 1000}, "model": "gemini-3-pro-image"}`. `trouble.Kind` and `travel.Travel`
list what can be ordered. Without `times` an order holds until DELETE.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.emulator.calls import Calls
from app.emulator.travel import Travel
from app.emulator.trouble import Kind, Troubles, Vendor


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Kind | None = None
    travel: Travel | None = None
    vendor: Vendor | None = None
    times: int | None = None
    arg: Any = None
    model: str | None = None

    @model_validator(mode="after")
    def _orders_something(self) -> Self:
        if self.kind is None and self.travel is None:
            raise ValueError("an order needs kind, travel, or both")
        return self


def routes(calls: Calls, troubles: Troubles) -> list[Route]:
    """GET and DELETE /__emulator/calls, POST and DELETE /__emulator/trouble."""

    async def show(_: Request) -> Response:
        return JSONResponse({"paid": calls.paid, "calls": [call.as_json() for call in calls.list()]})

    async def forget(_: Request) -> Response:
        calls.clear()
        return Response(status_code=204)

    async def order(request: Request) -> Response:
        try:
            wanted = _Order.model_validate_json(await request.body())
        except ValidationError as exc:
            return JSONResponse({"errors": exc.errors(include_url=False, include_context=False)}, 400)
        troubles.set(**dict(wanted))
        return Response(status_code=204)

    async def calm(_: Request) -> Response:
        troubles.clear()
        return Response(status_code=204)

    return [
        Route("/__emulator/calls", show, methods=["GET"]),
        Route("/__emulator/calls", forget, methods=["DELETE"]),
        Route("/__emulator/trouble", order, methods=["POST"]),
        Route("/__emulator/trouble", calm, methods=["DELETE"]),
    ]
