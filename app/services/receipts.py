"""Receipts: reads what the ledger has recorded about each request, and removes it when it is old.

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
from app.db import CallRow, CounterRow, PictureRow, WishRow, busy_on_failure
from app.logs import causes

DAY_MS = 86_400_000
_HOUR_SECONDS = 3600.0
_PAUSE_SECONDS = 0.1
_WISHES = 100
"""Wishes that one transaction removes. With their calls and pictures these are hundreds of rows."""
_COUNTERS = 1000

_ID = re.compile(r"[0-9a-f]{32}")
CURSOR = r"^[A-Za-z0-9_-]{32}$"

log = structlog.get_logger()


class Cursor(NamedTuple):
    """A position in the list of receipts: after the receipt with this time (Unix ms) and id."""

    created_at: int
    id: str

    def __str__(self) -> str:
        return urlsafe_b64encode(self.created_at.to_bytes(8, signed=True) + bytes.fromhex(self.id)).decode()

    @classmethod
    def read(cls, text: str) -> "Cursor | None":
        """Returns the cursor that `str` has written, or None if the text is not a cursor."""
        if not re.fullmatch(CURSOR, text):
            return None
        data = urlsafe_b64decode(text)
        return cls(int.from_bytes(data[:8], signed=True), data[8:].hex())


class BookedCall(NamedTuple):
    """A paid call on a receipt: the columns of `calls` with these names."""

    model: str
    operation: str
    state: CallState
    samples: int
    charged: int
    priced: bool
    sent_at: int | None
    done_at: int | None


class BookedWish(NamedTuple):
    """A receipt: a wish, its calls by slot and attempt, and their pictures. Times are in Unix ms."""

    id: str
    caller: str
    created_at: int
    replayed: bool
    calls: tuple[BookedCall, ...]
    pictures: tuple[StoredPicture, ...]

    @property
    def operation(self) -> str:
        """The requested operation: that of the first call which is not the rewrite of a prompt."""
        names = [call.operation for call in self.calls]
        return next((name for name in names if name != "rewrite"), names[0])

    @property
    def charged(self) -> int:
        """The cost in micro-USD. Reserved and void calls count as 0."""
        return sum(call.charged for call in self.calls)

    @property
    def priced(self) -> bool:
        return all(call.priced for call in self.calls)


class Page(NamedTuple):
    """Some receipts, and the cursor of the next page. `next` is None on the last page."""

    receipts: tuple[BookedWish, ...]
    next: Cursor | None


_CALL = [getattr(CallRow, name) for name in BookedCall._fields]
_PICTURE = [getattr(PictureRow, name) for name in StoredPicture._fields]
_HAS_CALLS = select(CallRow.id).where(CallRow.wish == WishRow.id).exists()
_IS_OPEN = (
    select(CallRow.id).where(CallRow.wish == WishRow.id, CallRow.state.in_(("reserved", "sent"))).exists()
)


class Receipts:
    """Reads and removes receipts. A wish with at least one call, sent or not, has a receipt."""

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def page(self, caller: str | None, *, limit: int, after: Cursor | None = None) -> Page:
        """Returns at most `limit` receipts of a caller, or of all for None, the newest first."""
        wanted = [] if caller is None else [WishRow.caller == caller]
        if after:
            wanted.append(tuple_(WishRow.created_at, WishRow.id) < tuple_(*after))
        async with busy_on_failure(), self._database.connect() as connection:
            found = await _booked(connection, wanted, limit + 1)
        shown = found[:limit]
        more = len(found) > limit
        return Page(tuple(shown), Cursor(shown[-1].created_at, shown[-1].id) if more else None)

    async def one(self, caller: str, id: str) -> BookedWish | None:
        """Returns a receipt, or None if the caller has no receipt with this id."""
        if not _ID.fullmatch(id):
            return None
        async with busy_on_failure(), self._database.connect() as connection:
            found = await _booked(connection, [WishRow.caller == caller, WishRow.id == id], 1)
        return found[0] if found else None

    async def remove_old(self, days: int) -> None:
        """Remove receipts that are older than `days`, every hour until cancelled."""
        while True:
            try:
                number = await self.remove(int(time() * 1000) - days * DAY_MS)
                if number:
                    log.info("old receipts are removed", number=number)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the next time may be better
                log.warning("old receipts are not removed", cause=causes(exc))
            await asyncio.sleep(_HOUR_SECONDS)

    async def remove(self, before: int) -> int:
        """Remove wishes begun before this time (Unix ms), and counters of days and months that ended by then.

        Returns the number of wishes removed.

        A wish is not removed while it is running, holds its Idempotency-Key or has an open call.
        """
        removed = 0
        while number := await self._remove_some(before):
            removed += number
            await asyncio.sleep(_PAUSE_SECONDS)  # let other writers in
        while await self._remove_counters(day_of(before)):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(_PAUSE_SECONDS)
        return removed

    async def _remove_some(self, before: int) -> int:
        """Returns the number of wishes removed: 0 if none is left, or if another gateway is removing them."""
        old = (
            select(WishRow.id)
            .where(WishRow.created_at < before, WishRow.state != "running", WishRow.key.is_(None), ~_IS_OPEN)
            .order_by(WishRow.created_at)
            .limit(_WISHES)
            .with_for_update(skip_locked=True)  # several gateways do this at once
        )
        async with busy_on_failure(), self._database.begin() as connection:
            ids = (await connection.scalars(old)).all()
            if not ids:
                return 0
            # Not by ON DELETE CASCADE: SQLite ignores foreign keys unless each connection turns them on.
            calls = select(CallRow.id).where(CallRow.wish.in_(ids))
            await connection.execute(delete(PictureRow).where(PictureRow.call.in_(calls)))
            await connection.execute(delete(CallRow).where(CallRow.wish.in_(ids)))
            gone = await connection.execute(delete(WishRow).where(WishRow.id.in_(ids)))
        return gone.rowcount

    async def _remove_counters(self, day: str) -> bool:
        """Remove some counters. Returns whether there can be more."""
        days = (CounterRow.period.like("____-__-__")) & (CounterRow.period < day)
        months = (CounterRow.period.like("____-__")) & (CounterRow.period < day[:7])
        key = tuple_(CounterRow.scope, CounterRow.period)
        old = (
            select(CounterRow.scope, CounterRow.period)
            .where(days | months)
            .limit(_COUNTERS)
            .with_for_update(skip_locked=True)
        )
        async with busy_on_failure(), self._database.begin() as connection:
            gone = await connection.execute(delete(CounterRow).where(key.in_(old)))
        return gone.rowcount == _COUNTERS


async def _booked(
    connection: AsyncConnection, wanted: Sequence[ColumnElement[bool]], limit: int
) -> list[BookedWish]:
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
        BookedWish(*wish, tuple(calls[wish.id]), tuple(pictures[wish.id]))
        for wish in wishes
        if calls[wish.id]  # it may have been removed meanwhile
    ]
