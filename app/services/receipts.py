"""Receipts: reads what the ledger has recorded about each wish, and removes it when it is old.

Every method raises Busy if the database fails.
"""

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from time import time
from typing import NamedTuple

import structlog
from sqlalchemy import ColumnElement, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.contract.ledger import CallState, StoredPicture
from app.contract.periods import day_of
from app.db import CallRow, CounterRow, PictureRow, WishRow, answering
from app.logs import causes

DAY_MS = 86_400_000
_HOUR_SECONDS = 3600.0
_PAUSE_SECONDS = 0.1
_WISHES = 100
"""How many are removed in one transaction. With their calls and pictures these are hundreds of rows."""
_COUNTERS = 1000

_ID = re.compile(r"[0-9a-f]{32}")
CURSOR = r"^[A-Za-z0-9_-]{32}$"

log = structlog.get_logger()


class Cursor(NamedTuple):
    """A position in the list of receipts: after the one of this time and id."""

    created_at: int
    id: str

    def __str__(self) -> str:
        return urlsafe_b64encode(self.created_at.to_bytes(8, signed=True) + bytes.fromhex(self.id)).decode()

    @classmethod
    def read(cls, text: str) -> "Cursor | None":
        """Returns None if the text is not a cursor."""
        if not re.fullmatch(CURSOR, text):
            return None
        data = urlsafe_b64decode(text)
        return cls(int.from_bytes(data[:8], signed=True), data[8:].hex())


class BookedCall(NamedTuple):
    """A call on a receipt: the columns of `calls` with these names."""

    model: str
    operation: str
    state: CallState
    samples: int
    charged: int
    priced: bool
    sent_at: int | None
    done_at: int | None


class Booked(NamedTuple):
    """A wish, its calls in the order of slots and attempts, and their pictures."""

    id: str
    caller: str
    created_at: int
    replayed: bool
    calls: tuple[BookedCall, ...]
    pictures: tuple[StoredPicture, ...]

    @property
    def operation(self) -> str:
        """The requested operation, of which the rewrite of a prompt is only a part."""
        names = [call.operation for call in self.calls]
        return next((name for name in names if name != "rewrite"), names[0])

    @property
    def charged(self) -> int:
        """In micro-USD. What is reserved or void is charged with 0."""
        return sum(call.charged for call in self.calls)

    @property
    def priced(self) -> bool:
        return all(call.priced for call in self.calls)


class Page(NamedTuple):
    """Some receipts, and where the next ones begin, if there are more."""

    receipts: tuple[Booked, ...]
    next: Cursor | None


_CALL = [getattr(CallRow, name) for name in BookedCall._fields]
_PICTURE = [getattr(PictureRow, name) for name in StoredPicture._fields]
_HAS_CALLS = select(CallRow.id).where(CallRow.wish == WishRow.id).exists()
_IS_OPEN = (
    select(CallRow.id).where(CallRow.wish == WishRow.id, CallRow.state.in_(("reserved", "sent"))).exists()
)


class Receipts:
    """Reads and removes receipts. A receipt is a wish that has made at least one call."""

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def page(self, caller: str | None, *, limit: int, after: Cursor | None = None) -> Page:
        """Returns a caller's receipts, or everybody's, the newest first."""
        wanted = [] if caller is None else [WishRow.caller == caller]
        if after:
            wanted.append(tuple_(WishRow.created_at, WishRow.id) < tuple_(*after))
        async with answering(), self._database.connect() as connection:
            found = await _booked(connection, wanted, limit + 1)
        shown = found[:limit]
        more = len(found) > limit
        return Page(tuple(shown), Cursor(shown[-1].created_at, shown[-1].id) if more else None)

    async def one(self, caller: str, id: str) -> Booked | None:
        """Returns None if the caller has no such receipt."""
        if not _ID.fullmatch(id):
            return None
        async with answering(), self._database.connect() as connection:
            found = await _booked(connection, [WishRow.caller == caller, WishRow.id == id], 1)
        return found[0] if found else None

    async def keep(self, days: int) -> None:
        """Remove older receipts every hour, until cancelled."""
        while True:
            try:
                number = await self.remove(int(time() * 1000) - days * DAY_MS)
                if number:
                    log.info("old receipts are removed", number=number)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the next time may be better
                log.warning("old receipts are not removed", cause=causes(exc))
            await asyncio.sleep(_HOUR_SECONDS)

    async def remove(self, before: int) -> int:
        """Remove wishes that were begun before this time, and counters of days and months that ended before
        it. Returns the number of wishes.

        A wish is not removed while it is running, holds its Idempotency-Key or has an open call.
        """
        removed = 0
        while number := await self._remove_some(before):
            removed += number
            await asyncio.sleep(_PAUSE_SECONDS)  # others write, too
        while await self._remove_counters(day_of(before)):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(_PAUSE_SECONDS)
        return removed

    async def _remove_some(self, before: int) -> int:
        """Returns 0 if there are no more, or if another gateway is removing them."""
        old = (
            select(WishRow.id)
            .where(WishRow.created_at < before, WishRow.state != "running", WishRow.key.is_(None), ~_IS_OPEN)
            .order_by(WishRow.created_at)
            .limit(_WISHES)
            .with_for_update(skip_locked=True)  # several gateways remove
        )
        async with answering(), self._database.begin() as connection:
            ids = (await connection.scalars(old)).all()
            if not ids:
                return 0
            # Not left to the foreign keys: SQLite looks at them only if each connection asks for it.
            calls = select(CallRow.id).where(CallRow.wish.in_(ids))
            await connection.execute(delete(PictureRow).where(PictureRow.call.in_(calls)))
            await connection.execute(delete(CallRow).where(CallRow.wish.in_(ids)))
            gone = await connection.execute(delete(WishRow).where(WishRow.id.in_(ids)))
        return gone.rowcount

    async def _remove_counters(self, day: str) -> bool:
        """Returns whether there can be more."""
        days = (CounterRow.period.like("____-__-__")) & (CounterRow.period < day)
        months = (CounterRow.period.like("____-__")) & (CounterRow.period < day[:7])
        key = tuple_(CounterRow.scope, CounterRow.period)
        old = (
            select(CounterRow.scope, CounterRow.period)
            .where(days | months)
            .limit(_COUNTERS)
            .with_for_update(skip_locked=True)
        )
        async with answering(), self._database.begin() as connection:
            gone = await connection.execute(delete(CounterRow).where(key.in_(old)))
        return gone.rowcount == _COUNTERS


async def _booked(
    connection: AsyncConnection, wanted: Sequence[ColumnElement[bool]], limit: int
) -> list[Booked]:
    """Returns the newest receipts for which the conditions hold."""
    wishes = (
        await connection.execute(
            select(WishRow.id, WishRow.caller, WishRow.created_at, WishRow.replayed)
            .where(_HAS_CALLS, *wanted)
            .order_by(WishRow.created_at.desc(), WishRow.id.desc())
            .limit(limit)
        )
    ).all()
    ids = [wish.id for wish in wishes]
    calls: dict[str, list[BookedCall]] = {id: [] for id in ids}
    pictures: dict[str, list[StoredPicture]] = {id: [] for id in ids}
    of_wishes = CallRow.wish.in_(ids)
    in_order = (CallRow.slot, CallRow.attempt)
    for wish, *values in await connection.execute(
        select(CallRow.wish, *_CALL).where(of_wishes).order_by(*in_order)
    ):
        calls[wish].append(BookedCall(*values))
    for wish, *values in await connection.execute(
        select(CallRow.wish, *_PICTURE)
        .join(CallRow, CallRow.id == PictureRow.call)
        .where(of_wishes)
        .order_by(*in_order, PictureRow.number)
    ):
        pictures[wish].append(StoredPicture(*values))
    return [
        Booked(*wish, tuple(calls[wish.id]), tuple(pictures[wish.id]))
        for wish in wishes
        if calls[wish.id]  # it may have been removed meanwhile
    ]
