"""Finds what dead processes have left in the ledger, and ends it.

Each process has a row with a heartbeat, and a folder that is locked as long as the process lives. A process
on the same host is dead when its lock is free, one on another host when its heartbeat is old.
"""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import structlog

from app.contract.ledger import Census, PaidCall, Process, Recovered
from app.contract.recovery import Beat, Bury, Sweep, recovered
from app.logs import causes
from app.pictures.process_folder import ProcessFolder, has_ended, remove_empty
from app.storage.ledger import Ledger

BEAT_SECONDS = 10.0
DEAD_SECONDS = 30.0
_FIND_SECONDS = 60.0
PREFIX = "ledger-"

log = structlog.get_logger(__name__)


Find = Callable[[PaidCall], Awaitable[Recovered]]
"""Looks for the pictures of a sent call by its stem. If it raises, the next sweep tries again.
"""


class Recovery:
    """Keeps the row of this process, and ends what dead processes have left. `folder`: of this process."""

    def __init__(self, ledger: Ledger, folder: ProcessFolder, find: Find, *, host: str | None = None) -> None:
        self._ledger = ledger
        self._folder = folder.path
        self._find = find
        self._host = host or socket.gethostname()
        self._steady_since = math.inf  # since when every heartbeat was written

    async def run(self) -> None:
        """Beat and sweep every 10 s, until cancelled. A slow sweep does not hold up the heartbeat."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_repeat(self._beat))
            tasks.create_task(_repeat(self.sweep))

    async def sweep(self) -> None:
        """Write the heartbeat, and end what dead processes have left. Raises Busy."""
        now, processes = await self._beat()
        dead = [one for one in processes if one.id != self._ledger.process and self._is_dead(one, now)]
        for call in await self._ledger.do(Sweep(tuple(one.id for one in dead))):
            try:
                async with asyncio.timeout(_FIND_SECONDS):
                    found = await self._find(call)
                await self._ledger.do(recovered(call, found))
                log.info("a sent call is resolved", call=call.id, found=found.made)
            except Exception as exc:  # noqa: BLE001 - the store may be down: the others may be found
                log.warning("a sent call cannot be looked for", call=call.id, cause=causes(exc))
        for one in dead:
            if await self._ledger.do(Bury(one.id)):
                log.info("what a dead process had under way is resolved", process=one.id, host=one.host)
                if one.host == self._host:
                    await asyncio.to_thread(remove_empty, Path(one.folder))

    async def _beat(self) -> Census:
        try:
            census = await self._ledger.do(Beat(self._ledger.process, self._host, str(self._folder)))
        except BaseException:
            self._steady_since = math.inf
            raise
        self._steady_since = min(self._steady_since, monotonic())
        return census

    def _is_dead(self, process: Process, now: int) -> bool:
        ended = has_ended(Path(process.folder)) if process.host == self._host else None
        if ended is not None:
            return ended
        # After an outage of the database all heartbeats are old: the others first need time to beat.
        steady = monotonic() - self._steady_since >= DEAD_SECONDS
        return steady and now - process.heartbeat_at > DEAD_SECONDS * 1000


async def _repeat(step: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await step()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the next time may be better
            log.warning("the ledger is not swept", cause=causes(exc))
        await asyncio.sleep(BEAT_SECONDS)
