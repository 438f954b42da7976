"""The ledger: one writer per process that joins commits.

Callers give commands and wait. When the writer is free, all waiting commands go into one transaction, and
callers get the outcomes when it is committed. So they share a commit, which costs as much as the rest.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import make_url

from app.contract.book import Terms
from app.contract.bookkeeping import Begin, Command, Fence, Look, Reserve
from app.contract.errors import Busy
from app.contract.ledger import (
    Begun,
    NewCall,
    NotRunning,
    OtherRequest,
    OverBudget,
    Record,
    Replay,
    Reserved,
    Running,
    TakenOver,
    Unpriced,
    new_id,
)
from app.logs import causes
from app.storage.ledger_sqlite import SqliteStore
from app.storage.ledger_store import Store, Unsure

R = TypeVar("R")

_BATCH = 64
_COMPANY_SECONDS = 0.05
"""A command without a waiting caller is committed with the next one that has one, or after this long."""
_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)


def open_store(url: str, terms: Terms, *, clock: Callable[[], int] | None = None) -> Store:
    """The ledger's tables in `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`. Connects on first use."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        return SqliteStore(str(address.database), terms, clock=clock)
    from app.storage.ledger_postgres import PostgresStore  # asyncpg: memory that SQLite need not spend

    return PostgresStore(url, terms, clock=clock)


@dataclass(slots=True, eq=False)
class _Member:
    """A command in the queue. `outcome` is None if no caller waits, and cancelled if the caller has left."""

    command: Command[Any]
    outcome: asyncio.Future[Any] | None = None

    @property
    def wanted(self) -> bool:
        return self.command.lasting or (self.outcome is not None and not self.outcome.done())


class Ledger:
    """The ledger, for the process with the id `process`.

    Each method waits at most `wait_seconds`, and raises Busy if the database cannot do it now; then nothing
    may be sent. What has happened to a call or a wish is written as soon as the database is back, even if the
    caller has got Busy or has left. If a caller leaves without knowing that a wish was begun, that calls were
    reserved or that a call was fenced, this is undone.

    To be closed after the last use.
    """

    def __init__(self, store: Store, process: str, *, wait_seconds: float = 10) -> None:
        self.process = process
        self._store = store
        self._wait_seconds = wait_seconds
        self._queue: deque[_Member] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._later_on: asyncio.TimerHandle | None = None

    async def begin(
        self,
        *,
        caller: str,
        route: str,
        key: str | None,
        fingerprint: str,
        scopes: Sequence[str],
        calls: Sequence[NewCall] = (),
    ) -> Begun | TakenOver | Replay | Running | OtherRequest | OverBudget | Unpriced:
        """Record a wish and reserve its first calls, or return the state of the same wish.

        `scopes`: the budgets that apply, the caller's own first.
        """
        return await self.do(
            Begin(new_id(), caller, route, key, fingerprint, tuple(calls), tuple(scopes), self.process)
        )

    async def reserve(
        self, wish: str, calls: Sequence[NewCall], scopes: Sequence[str]
    ) -> Reserved | OverBudget | Unpriced | NotRunning:
        """Reserve further calls of a running wish: all of them or none."""
        return await self.do(Reserve(wish, tuple(calls), tuple(scopes), self.process))

    async def fence(self, call: str, *, bucket: str | None = None, stem: str | None = None) -> None:
        """Mark a reserved call as sent: it may be sent when this returns, once, and never if it raises.

        `bucket` and `stem`: where its pictures will be, and what their names begin with. Raises Busy, also if
        the call is not reserved any more.
        """
        if not await self.do(Fence(call, bucket, stem)):
            raise Busy

    async def look(self, wish: str) -> Record | None:
        """Returns the wish with its calls and pictures, or None if there is no such wish."""
        return await self.do(Look(wish))

    async def do(self, command: Command[R]) -> R:
        """Carry out a command. Returns its outcome, which is committed."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[R] = loop.create_future()
        member = _Member(command, outcome)
        self._add(member)
        deadline = loop.call_later(self._wait_seconds, _fail, member, Busy())
        try:
            return await outcome
        except asyncio.CancelledError:
            if outcome.done() and not outcome.cancelled() and not outcome.exception():
                self._undo(command, outcome.result())  # it came at the same moment
            raise
        finally:
            deadline.cancel()

    def submit(self, command: Command[object]) -> None:
        """Carry out a lasting command soon, after those that came before it. Does not wait for it."""
        self._add(_Member(command))

    async def written(self) -> None:
        """Return when everything is committed that was passed to `submit` so far. Raises Busy."""
        if self._queue or self._is_writing:
            await self.look("")

    async def aclose(self) -> None:
        """Write what has happened, as far as the database takes it within `wait_seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_seconds):
                while self._queue or self._is_writing:
                    await asyncio.wait([self._start()])
        if self._later_on:
            self._later_on.cancel()
        if self._writer and self._writer.cancel():
            log.error("the ledger ends with commands that are not written", number=len(self._queue))
            with suppress(asyncio.CancelledError):
                await self._writer
        await self._store.aclose()

    @property
    def _is_writing(self) -> bool:
        return self._writer is not None and not self._writer.done()

    def _add(self, *members: _Member) -> None:
        self._queue.extend(members)
        if any(member.outcome for member in members):
            self._start()
        elif not self._later_on:
            self._later_on = asyncio.get_running_loop().call_later(_COMPANY_SECONDS, self._start)

    def _start(self) -> asyncio.Task[None]:
        """Write everything that is in the queue. Returns the writer."""
        if self._later_on:
            self._later_on.cancel()
            self._later_on = None
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return self._writer

    def _undo(self, command: Command[object], outcome: object) -> None:
        self._add(*(_Member(undone) for undone in command.undo(outcome)))

    async def _write(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            if batch := [member for member in batch if member.wanted]:
                await self._commit(batch)
            if self._later_on and not any(member.outcome for member in self._queue):
                return

    async def _commit(self, batch: list[_Member]) -> None:
        try:
            outcomes = await self._store.run([member.command for member in batch])
        except Busy as busy:
            await self._later(batch, busy)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the others are carried out
            await self._one_by_one(batch, exc)
        else:
            for member, outcome in zip(batch, outcomes, strict=True):
                if member.outcome and not member.outcome.done():
                    member.outcome.set_result(outcome)
                else:
                    self._undo(member.command, outcome)

    async def _one_by_one(self, batch: list[_Member], exc: Exception) -> None:
        """Find the command that cannot be carried out, and carry out the others."""
        if len(batch) > 1:
            for member in batch:
                if member.wanted:
                    await self._commit([member])
            return
        command = type(batch[0].command).__name__
        log.error("the ledger cannot carry out a command", command=command, cause=causes(exc))
        _fail(batch[0], exc)

    async def _later(self, batch: list[_Member], busy: Busy) -> None:
        """Refuse what can be refused, and put the rest back, before what came meanwhile."""
        log.warning("the ledger's database does not answer", commands=len(batch), cause=causes(busy))
        lasting = [member for member in batch if member.command.lasting]
        for n, member in enumerate(batch):
            if not member.command.lasting:
                refused = Busy()  # one for each: an exception collects a traceback whenever it is raised
                refused.__cause__ = busy
                _fail(member, refused)
                if isinstance(busy, Unsure):
                    lasting += [_Member(undone) for undone in member.command.undo(busy.outcomes[n])]
        self._queue.extendleft(reversed(lasting))
        if lasting:
            await asyncio.sleep(_PAUSE_SECONDS)


def _fail(member: _Member, error: Exception) -> None:
    if member.outcome and not member.outcome.done():
        member.outcome.set_exception(error)
