"""Reads and sets budgets, and returns what is spent. Every method raises Busy if the database fails."""

from collections.abc import Callable, Sequence
from time import time
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.contract.budgets import UNITS, in_force
from app.contract.ledger import Counter, Limit, Unit
from app.contract.periods import Period, day_of, period_keys, resets_at
from app.db import CounterRow, LimitRow, busy_on_failure

_LIMIT = [getattr(LimitRow, name) for name in Limit._fields]
_COUNTER = [getattr(CounterRow, name) for name in Counter._fields]


def _now() -> int:
    return int(time() * 1000)


class Used(NamedTuple):
    """What a scope has spent and reserved in the present period, in micro-USD or pictures.

    `limit` is None if there is no limit. `resets_at` is None for a total.
    """

    unit: Unit
    period: Period
    limit: int | None
    spent: int
    reserved: int
    resets_at: int | None


class Budgets:
    """The spending limits of users and keys. A change takes effect with the ledger's next transaction.

    `defaults` apply to a caller without limits of their own in that unit. `clock` returns Unix milliseconds.
    """

    def __init__(
        self,
        database: AsyncEngine,
        defaults: tuple[Limit, ...] = (),
        *,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._database = database
        self._defaults = defaults
        self._clock = clock or _now

    async def set(self, limits: Sequence[Limit]) -> None:
        """Set limits. Each replaces the limit of the same scope, unit and period."""
        async with busy_on_failure(), AsyncSession(self._database) as session, session.begin():
            for limit in limits:
                await session.merge(LimitRow(**limit._asdict()))

    async def clear(self, scope: str) -> bool:
        """Remove all limits of a scope. Returns False if there were none."""
        async with busy_on_failure(), self._database.begin() as connection:
            gone = await connection.execute(delete(LimitRow).where(LimitRow.scope == scope))
            return gone.rowcount > 0

    async def all(self, scope: str | None = None) -> list[Limit]:
        """Returns the limits of one scope, or of all, in the order of scopes, units and periods."""
        found = select(*_LIMIT)
        if scope is not None:
            found = found.where(LimitRow.scope == scope)
        async with busy_on_failure(), self._database.connect() as connection:
            rows = [Limit(*row) for row in await connection.execute(found)]
        by_scope: dict[str, list[Limit]] = {}
        for limit in rows:
            by_scope.setdefault(limit.scope, []).append(limit)
        return [limit for one in sorted(by_scope) for limit in in_force(one, by_scope[one])]

    async def usage(self, scopes: Sequence[str]) -> list[Used]:
        """Returns what is spent of each limit of `scopes`, which begin with the caller's own scope.

        For a unit without a limit, returns what the caller's own scope has spent in the present month.
        """
        keys = period_keys(day_of(self._clock()))
        counted = select(CounterRow.scope, CounterRow.period, *_COUNTER).where(
            CounterRow.scope.in_(scopes), CounterRow.period.in_(keys.values())
        )
        async with busy_on_failure(), self._database.connect() as connection:
            own = [
                Limit(*row)
                for row in await connection.execute(select(*_LIMIT).where(LimitRow.scope.in_(scopes)))
            ]
            counters = {
                (scope, period): Counter(*counts)
                for scope, period, *counts in await connection.execute(counted)
            }
        limits = [
            limit
            for n, scope in enumerate(scopes)
            for limit in in_force(
                scope, [one for one in own if one.scope == scope], self._defaults if n == 0 else ()
            )
        ]
        used = []
        for unit in UNITS:
            limited = [limit for limit in limits if limit.unit == unit]
            for limit in limited or [Limit(scopes[0], unit, "month", 0)]:
                spent, reserved = counters.get((limit.scope, keys[limit.period]), Counter()).of(unit)
                ends = resets_at(limit.period, keys["day"])
                amount = limit.amount if limited else None
                used.append(Used(unit, limit.period, amount, spent, reserved, ends))
        return used
