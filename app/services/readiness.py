"""Whether everything works that the gateway needs."""

import asyncio
import time
from collections.abc import Mapping

import structlog

from app.logs import causes
from app.ports import Part

log = structlog.get_logger()

_READY_SECONDS = 3
_HOLDS_SECONDS = 2.0
"""Anybody may ask, and each check reaches the database and the vendors."""


class Readiness:
    """Checks the parts, one check at a time. Its result is valid for 2 seconds."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._checking = asyncio.Lock()
        self._checked_at = -_HOLDS_SECONDS
        self._found: dict[str, str] = {}

    async def ask(self) -> dict[str, str]:
        """Returns `ok` or `failed` for each part."""
        async with self._checking:
            if time.monotonic() - self._checked_at >= _HOLDS_SECONDS:
                good = await asyncio.gather(*(_ask(name, part) for name, part in self._parts.items()))
                self._found = {
                    name: "ok" if one else "failed" for name, one in zip(self._parts, good, strict=True)
                }
                self._checked_at = time.monotonic()
            return self._found


async def _ask(name: str, part: Part) -> bool:
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await part.ready()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the part is not ready
        log.warning("not ready", part=name, cause=causes(exc))
        return False
    return True
