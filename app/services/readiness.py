"""Checks whether the gateway and everything it depends on works, for /health/ready."""

import asyncio
import time
from collections.abc import Mapping

import structlog

from app.contract.health import Health, PartHealth, Status
from app.logs import causes
from app.ports import Part

log = structlog.get_logger()

_VALID_SECONDS = 2.0
"""How long a result is reused: a check calls the vendors, and /health/ready needs no token."""
_GIVE_UP_SECONDS = 30.0
"""A check of one part is given up after this time, and can then be repeated."""


class Readiness:
    """Checks all parts at the same time. A result is valid for 2 seconds.

    The gateway is ready if all `required` parts and one of the `vendors` work. A vendor is required while no
    other one works. A part that does not return within `seconds` has failed. It is not checked again before
    it returns, so a part that hangs has one call under way, not one for each check.
    """

    def __init__(
        self,
        *,
        required: Mapping[str, Part],
        vendors: Mapping[str, Part],
        optional: Mapping[str, Part],
        seconds: float = 3,
    ) -> None:
        self._required = required
        self._vendors = vendors
        self._parts = {**required, **vendors, **optional}
        self._seconds = seconds
        self._checking: asyncio.Task[None] | None = None
        self._checked_at = -_VALID_SECONDS
        self._asking: dict[str, asyncio.Task[tuple[Status, str | None]]] = {}
        self._statuses: dict[str, Status] = dict.fromkeys(self._parts, "ok")
        self._health = self._result()

    async def ask(self) -> Health:
        """Returns the result within `seconds`. Concurrent callers share one check."""
        if self._checking is None and time.monotonic() - self._checked_at >= _VALID_SECONDS:
            self._checking = asyncio.create_task(self._check())
        if self._checking:
            await asyncio.shield(self._checking)
        return self._health

    async def aclose(self) -> None:
        """Cancel the checks under way."""
        tasks = [*self._asking.values(), *([self._checking] if self._checking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _check(self) -> None:
        try:
            await self._ask_all()
            self._health = self._result()
            self._checked_at = time.monotonic()
        finally:
            self._checking = None

    async def _ask_all(self) -> None:
        begun = [self._begin(name, part) for name, part in self._parts.items() if not self._hangs(name)]
        if begun:
            await asyncio.wait(begun, timeout=self._seconds)
        for name in self._parts:
            asking = self._asking[name]
            status, reason = asking.result() if asking.done() else ("failed", TimeoutError.__name__)
            self._note(name, status, reason)

    def _hangs(self, name: str) -> bool:
        return name in self._asking and not self._asking[name].done()

    def _begin(self, name: str, part: Part) -> asyncio.Task[tuple[Status, str | None]]:
        self._asking[name] = asyncio.create_task(_ask(part))
        return self._asking[name]

    def _note(self, name: str, status: Status, reason: str | None) -> None:
        """Log the status of a part if it has changed."""
        if status == self._statuses[name]:
            return
        self._statuses[name] = status
        if status == "ok":
            log.info("part works again", part=name)
        else:
            log.warning(f"part {status}", part=name, reason=reason)

    def _result(self) -> Health:
        parts = {
            name: PartHealth(status=status, required=self._needs(name))
            for name, status in self._statuses.items()
        }
        overall: Status = "degraded"
        if any(part.required and part.status == "failed" for part in parts.values()):
            overall = "failed"
        elif all(part.status == "ok" for part in parts.values()):
            overall = "ok"
        return Health(status=overall, parts=parts)

    def _needs(self, name: str) -> bool:
        if name not in self._vendors:
            return name in self._required
        return all(self._statuses[other] == "failed" for other in self._vendors if other != name)


async def _ask(part: Part) -> tuple[Status, str | None]:
    """Returns the status, and why it is not `ok`: a few words, or the exception's class."""
    try:
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            reason = await part.ready()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the part does not work
        return "failed", causes(exc)
    return ("degraded", reason) if reason else ("ok", None)
