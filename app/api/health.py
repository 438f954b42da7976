"""Whether the process is up, and whether everything it needs answers."""

import asyncio

import structlog
from fastapi import APIRouter, Request, Response

from app.api.answers import json_response
from app.ports import Part

router = APIRouter(tags=["health"])

log = structlog.get_logger()

_READY_SECONDS = 3


@router.get("/health")
async def health() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/health/ready", responses={503: {"description": "Something the gateway needs does not answer"}})
async def ready(request: Request) -> Response:
    """Everything the gateway needs answers; each part says `ok` or `failed`."""
    parts: dict[str, Part] = request.app.state.parts
    answers = await asyncio.gather(*(_ask(name, part) for name, part in parts.items()))
    good = all(answers)
    told = {name: "ok" if answer else "failed" for name, answer in zip(parts, answers, strict=True)}
    return json_response({"status": "ok" if good else "failed", "parts": told}, 200 if good else 503)


async def _ask(name: str, part: Part) -> bool:
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await part.ready()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the part is not ready
        log.warning("not ready", part=name, error=repr(exc))
        return False
    return True
