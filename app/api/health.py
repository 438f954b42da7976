"""Whether the process is up, and whether everything it needs answers."""

import asyncio
import time

import structlog
from fastapi import APIRouter, Request, Response

from app.api.answers import json_response
from app.logs import causes
from app.ports import Part

router = APIRouter(tags=["health"])

log = structlog.get_logger()

_READY_SECONDS = 3
_HOLDS_SECONDS = 2.0
"""Anybody may ask, and each asking reaches the database and the vendors."""


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
    state = request.app.state
    asked_at, told = getattr(state, "readiness", (-_HOLDS_SECONDS, {}))
    if time.monotonic() - asked_at >= _HOLDS_SECONDS:
        told = await _ask_all(state.parts)
        state.readiness = time.monotonic(), told
    good = "failed" not in told.values()
    return json_response({"status": "ok" if good else "failed", "parts": told}, 200 if good else 503)


async def _ask_all(parts: dict[str, Part]) -> dict[str, str]:
    answers = await asyncio.gather(*(_ask(name, part) for name, part in parts.items()))
    return {name: "ok" if answer else "failed" for name, answer in zip(parts, answers, strict=True)}


async def _ask(name: str, part: Part) -> bool:
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await part.ready()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the part is not ready
        log.warning("not ready", part=name, cause=causes(exc))
        return False
    return True
