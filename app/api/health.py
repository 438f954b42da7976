"""Whether the process is up, and whether everything it needs answers."""

from fastapi import APIRouter, Request, Response

from app.api.answers import json_response
from app.api.exchange import parts

router = APIRouter(tags=["health"])


@router.get("/health", summary="Is the process up?")
async def health() -> dict[str, str]:
    """Returns 200 while the process runs. Needs no token."""
    return {"status": "ok"}


@router.get(
    "/health/ready",
    summary="Does everything work that the gateway needs?",
    responses={503: {"description": "Something the gateway needs does not answer"}},
)
async def ready(request: Request) -> Response:
    """Returns 200 if everything that the gateway needs works, else 503. Each part is `ok` or `failed`. Needs
    no token."""
    told = await parts(request.scope).readiness.ask()
    good = "failed" not in told.values()
    return json_response({"status": "ok" if good else "failed", "parts": told}, 200 if good else 503)
