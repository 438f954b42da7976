"""Whether the process is up, and whether everything it needs works."""

from fastapi import APIRouter, Request, Response

from app.api.answers import json_response
from app.api.exchange import parts
from app.api.openapi.schemas import schema
from app.contract.health import Health

router = APIRouter(tags=["health"])

_SCHEMA = schema(Health, "serialization")
_OK = {
    "database": {"status": "ok", "required": True},
    "storage": {"status": "ok", "required": True},
    "spool": {"status": "ok", "required": True},
    "vertex": {"status": "ok", "required": False},
    "bedrock": {"status": "ok", "required": False},
    "limits": {"status": "ok", "required": False},
    "claude": {"status": "ok", "required": False},
}
_DEGRADED = _OK | {
    "vertex": {"status": "failed", "required": False},
    "bedrock": {"status": "ok", "required": True},
    "limits": {"status": "degraded", "required": False},
}
_FAILED = _OK | {"database": {"status": "failed", "required": True}}


@router.get("/health", summary="Is the process up?")
async def health() -> dict[str, str]:
    """Returns 200 while the process runs. Needs no token."""
    return {"status": "ok"}


@router.get(
    "/health/ready",
    summary="Does everything work that the gateway needs?",
    response_class=Response,
    response_model=None,
    responses={
        200: {
            "description": "Everything that the gateway needs works",
            "content": {
                "application/json": {
                    "schema": _SCHEMA,
                    "examples": {
                        "all is well": {"value": {"status": "ok", "parts": _OK}},
                        "something is wrong": {"value": {"status": "degraded", "parts": _DEGRADED}},
                    },
                }
            },
        },
        503: {
            "description": "Something that the gateway needs does not work",
            "content": {
                "application/json": {
                    "schema": _SCHEMA,
                    "example": {"status": "failed", "parts": _FAILED},
                }
            },
        },
    },
)
async def ready(request: Request) -> Response:
    """Returns 200 if database, storage, spool and at least one vendor work, else 503. Needs no token.

    A part is `ok`, `degraded` (it works, but something is wrong) or `failed`. It has failed if it does not
    respond within 3 seconds. A vendor is `required` while no other vendor works. The result is valid for 2
    seconds.
    """
    health = await parts(request.scope).readiness.ask()
    return json_response(health, 503 if health.status == "failed" else 200)
