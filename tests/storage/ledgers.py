"""Ledgers for tests, and whether their books add up."""

import asyncio
import json
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text

from app.contract.book import Terms
from app.contract.bookkeeping import Command
from app.contract.ledger import Begun, NewCall
from app.db import open_database
from app.storage.ledger import Ledger, open_store

SCOPES = ("ann", "key:web")


@asynccontextmanager
async def opened(
    url: str,
    process: str = "p1",
    *,
    terms: Terms | None = None,
    clock: Callable[[], int] | None = None,
    wait_seconds: float = 20,
) -> AsyncIterator[Ledger]:
    ledger = Ledger(open_store(url, terms or Terms(), clock=clock), process, wait_seconds=wait_seconds)
    try:
        yield ledger
    finally:
        await ledger.aclose()


class Watched:
    """A store that counts batches, those that are `done` too, and holds them up while `go` is not set."""

    def __init__(self, url: str, terms: Terms | None = None) -> None:
        self.store = open_store(url, terms or Terms())
        self.batches: list[int] = []
        self.done = 0
        self.go = asyncio.Event()
        self.go.set()
        self.late = False

    async def run(self, commands: Sequence[Command[object]], /) -> list[object]:
        self.batches.append(len(commands))
        if not self.late:
            await self.go.wait()
        try:
            return await self.store.run(commands)
        finally:
            if self.late:
                await self.go.wait()
            self.done += 1

    async def aclose(self) -> None:
        await self.store.aclose()


def call(*, slot: int = 0, micros: int = 100, samples: int = 1) -> NewCall:
    return NewCall(slot, "model", "gen", micros, samples)


async def begin(ledger: Ledger, *calls: NewCall, key: str | None = None, fingerprint: str = "f") -> Any:
    return await ledger.begin(
        caller="ann", route="/gen", key=key, fingerprint=fingerprint, scopes=SCOPES, calls=calls
    )


async def begun(ledger: Ledger, *calls: NewCall, key: str | None = None) -> str:
    """Returns the id of a new wish."""
    outcome = await begin(ledger, *calls, key=key)
    assert isinstance(outcome, Begun), outcome
    return outcome.wish


async def query(url: str, *statements: str) -> Sequence[Any]:
    """Runs the statements over a connection of its own. Returns the rows of the last."""
    engine = open_database(url)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
            return result.all() if result.returns_rows else []
    finally:
        await engine.dispose()


async def states(url: str) -> dict[str, str]:
    return {row[0]: row[1] for row in await query(url, "SELECT id, state FROM calls")}


async def assert_adds_up(url: str) -> None:
    """The counters are the sums over the calls, in every scope and period."""
    expected: Tally[tuple[str, str, str]] = Tally()
    rows = await query(url, "SELECT scopes, day, state, micros, samples, charged, made FROM calls")
    for scopes, day, state, micros, samples, charged, made in rows:
        for scope in json.loads(scopes):
            for period in (day, day[:7], "total"):
                if state in ("reserved", "sent"):
                    expected[scope, period, "reserved_micros"] += micros
                    expected[scope, period, "reserved_pictures"] += samples
                elif state != "void":
                    expected[scope, period, "spent_micros"] += charged
                    expected[scope, period, "spent_pictures"] += made if state == "settled" else samples
    found: Tally[tuple[str, str, str]] = Tally()
    names = ("spent_micros", "reserved_micros", "spent_pictures", "reserved_pictures")
    counters = f"SELECT scope, period, {', '.join(names)} FROM counters"  # noqa: S608
    for scope, period, *values in await query(url, counters):
        for name, value in zip(names, values, strict=True):
            assert value >= 0, (scope, period, name)
            found[scope, period, name] = value
    assert +found == +expected


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that the event loop brings about."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
