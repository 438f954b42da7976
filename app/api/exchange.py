"""Typed access to the gateway's parts, and to what belongs to one request and its response."""

from contextlib import ExitStack
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from starlette.types import Scope

from app.parts import Parts
from app.pictures.blob import Blobs


class Gateway(FastAPI):
    """The ASGI app. `parts` is None until it starts."""

    parts: Parts | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What belongs to one request and its response. Made by RequestLog.

    `log`: fields for the request's log line. `headers`: response headers (names in lower case), added to
    whatever the handler returns. `closing` is closed when the response is sent or the client has left.
    """

    request_id: str
    log: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    closing: ExitStack = field(default_factory=ExitStack)


def exchange(request: Request) -> Exchange:
    """Returns the request's Exchange."""
    found: Exchange = request.scope["exchange"]
    return found


def blobs(request: Request, owner: str | None = None) -> Blobs:
    """Returns a scope of blobs that is closed with the request. `owner`: the caller's id."""
    return exchange(request).closing.enter_context(parts(request.scope).work.blobs(owner))


def parts(scope: Scope) -> Parts:
    """Returns the parts of the running app."""
    app = scope["app"]
    if not isinstance(app, Gateway) or app.parts is None:
        raise RuntimeError("the app is not running")
    return app.parts
