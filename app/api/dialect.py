"""Dialects: each router can have its own format for errors. NestJS's format is the default."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.api.nest_errors import NestError, SafetyError, nest_body
from app.contract.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Dialect:
    """A format for errors.

    `body` returns the JSON body of an error. `models(status)` returns the types that document the bodies.
    """

    body: Callable[[GatewayError], dict[str, Any]]
    models: Callable[[int], tuple[type[BaseModel], ...]]


NEST = Dialect(nest_body, lambda status: (NestError, SafetyError) if status == 400 else (NestError,))


class DialectRoute(APIRoute):
    """A route with its own dialect. Subclass it, and pass the subclass as `APIRouter(route_class=...)`."""

    dialect: ClassVar[Dialect]


def dialect_of(request: Request) -> Dialect:
    """Returns the dialect of the request's route, even if only its path matches and the method does not."""
    route = request.scope.get("route")
    return route.dialect if isinstance(route, DialectRoute) else NEST
