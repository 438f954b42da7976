"""The ledger in PostgreSQL, written over one connection.

Several gateways write it at once. What may not have a row yet, a key or a scope's counters, is locked by its
name; rows are locked in the order of their ids. All writers lock in the same order: names, wishes, calls,
counters. So none waits for another that waits for it, and each sees what the others have committed.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from time import monotonic
from typing import Any

import asyncpg
import orjson
from sqlalchemy import Table, make_url

from app.contract.book import Book, Needs, Terms
from app.contract.errors import Busy
from app.contract.ledger import Counter, Limit, PaidCall, Process, StoredPicture, Wish
from app.contract.periods import period_keys
from app.storage.ledger_store import (
    CALLS,
    COUNTERS,
    LIMITS,
    PICTURES,
    PROCESSES,
    WISHES,
    WRITES,
    Commands,
    Unsure,
    changes,
    forget,
    insert,
    select,
)

_CONNECT_SECONDS = 3.0
_SECONDS = 5.0
_CLOCK_SECONDS = 60.0
_IN_PROGRESS = "in progress"
_AT_FAULT = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
_TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that broke in the middle of an answer
    OSError,
    TimeoutError,
)
_SESSION = {
    "application_name": "image-gateway ledger",
    "synchronous_commit": "on",  # a paid call must outlive a crash of the server
    "statement_timeout": "5000",
    "idle_in_transaction_session_timeout": "5000",  # a process that is stopped does not hold up the others
}

_LOCK = "SELECT pg_advisory_xact_lock(name) FROM unnest($1::int8[]) AS name"
_WISHES = f"""{select(WISHES)} WHERE id IN (
    SELECT unnest($1::text[]) UNION
    SELECT id FROM wishes JOIN unnest($2::text[], $3::text[], $4::text[]) AS k(caller, route, key)
        USING (caller, route, key)
) ORDER BY id FOR UPDATE"""  # noqa: S608 - no values in it
_RUNNING = "SELECT id FROM wishes WHERE state = 'running' AND process = ANY($1::text[])"
_EXPIRED = "SELECT id FROM wishes WHERE key IS NOT NULL AND expires_at <= $1 LIMIT 1000"
_CALLS = f"""{select(CALLS)} WHERE id IN (
    SELECT unnest($1::text[]) UNION SELECT id FROM calls WHERE wish = ANY($2::text[])
) ORDER BY id FOR UPDATE"""  # noqa: S608 - no values in it
_OPEN = "SELECT id FROM calls WHERE state IN ('reserved', 'sent') AND process = ANY($1::text[])"
_OVERDUE = "SELECT id FROM calls WHERE state IN ('reserved', 'sent') AND deadline_at <= $1"
_PICTURES_OF = f"{select(PICTURES)} WHERE call = ANY($1::text[]) ORDER BY call, number"
_LIMITS = f"{select(LIMITS)} WHERE scope = ANY($1::text[])"
_COUNTERS = f"{select(COUNTERS)} WHERE scope = ANY($1::text[]) AND period = ANY($2::text[])"
_FORGET = forget("id = ANY($1::text[])")


def _save_statement() -> str:
    """One statement that writes all rows of a batch. Its parameters are the rows of each table, as JSON (an
    array for each column costs asyncpg three times as much), and the processes to be deleted.
    """
    parts = []
    for n, (kind, (table, end)) in enumerate(WRITES.items(), 1):
        rows = select(table, f"json_populate_recordset(NULL::{table.name}, ${n}::json) AS {table.name}")
        parts.append(f"{kind}_written AS ({insert(table)} {rows} {end})")
    parts.append(f"buried AS (DELETE FROM processes WHERE id = ANY(${len(parts) + 1}::text[]))")  # noqa: S608
    return f"WITH {', '.join(parts)} SELECT pg_current_xact_id()::text"


_SAVE = _save_statement()


class PostgresStore:
    """Implements Store. `clock` returns the time in ms; without one it is the server's, for all gateways."""

    def __init__(self, url: str, terms: Terms, *, clock: Callable[[], int] | None = None) -> None:
        address = make_url(url)
        self._options = dict(address.get_dialect()().create_connect_args(address)[1])
        self._options.pop("prepared_statement_cache_size", None)  # SQLAlchemy's own
        self._terms = terms
        self._clock = clock
        self._connection: asyncpg.Connection | None = None
        self._ahead = 0.0  # the server's clock, in seconds, before `monotonic`
        self._compared_at = -_CLOCK_SECONDS

    async def run(self, commands: Commands, /) -> list[object]:
        idle = self._connection
        try:
            return await self._run(commands)
        except Unsure:
            raise
        except Busy:
            if not idle or self._connection:
                raise
        return await self._run(commands)  # the server had closed an idle connection

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(*_TROUBLE):
                await connection.close(timeout=1)

    async def _run(self, commands: Commands) -> list[object]:
        outcomes: list[object] = []
        transaction: str | None = None
        try:
            async with asyncio.timeout(_SECONDS):
                connection = self._connection = self._connection or await self._connect()
                await connection.execute("BEGIN")
                book = await self._load(connection, commands)
                outcomes = [command.apply(book) for command in commands]
                transaction = await self._save(connection, book)
                await connection.execute("COMMIT")
            return outcomes
        except BaseException as exc:
            self._drop()
            if isinstance(exc, _AT_FAULT) or not isinstance(exc, _TROUBLE):
                raise
            if transaction is None:
                raise Busy from exc
            cause = exc
        if await self._committed(transaction, outcomes):
            return outcomes
        raise Busy from cause

    async def _committed(self, transaction: str, outcomes: list[object]) -> bool:
        """Ask for the outcome of a transaction when the connection broke in COMMIT. Raises Unsure."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                while (status := await self._status(transaction)) == _IN_PROGRESS:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.1)
                return status == "committed"
        self._drop()
        raise Unsure(outcomes)

    async def _status(self, transaction: str) -> str | None:
        """Returns the state of a transaction; "in progress" also if the server does not say."""
        with suppress(*_TROUBLE):
            self._connection = self._connection or await self._connect()
            status: str | None = await self._connection.fetchval(
                "SELECT pg_xact_status($1::text::xid8)", transaction
            )
            return status
        return _IN_PROGRESS

    async def _connect(self) -> "asyncpg.Connection":
        connection = await asyncpg.connect(
            **self._options, timeout=_CONNECT_SECONDS, command_timeout=None, server_settings=_SESSION
        )
        self._compared_at = -_CLOCK_SECONDS
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.terminate()

    async def _now(self, connection: "asyncpg.Connection") -> int:
        if self._clock:
            return self._clock()
        if monotonic() - self._compared_at >= _CLOCK_SECONDS:
            seconds = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
            self._compared_at = monotonic()
            self._ahead = seconds - self._compared_at
        return int((monotonic() + self._ahead) * 1000)

    async def _load(self, connection: "asyncpg.Connection", commands: Commands) -> Book:
        needs = Needs()
        for command in commands:
            command.needs(needs)
        read = connection.fetch
        if names := sorted(
            {_number(*key) for key in needs.keys} | {_number(scope) for scope in needs.scopes}
        ):
            await read(_LOCK, names)
        book = Book(await self._now(connection), self._terms, needs.scopes)
        if needs.running_of:
            running = {row[0] for row in await read(_RUNNING, needs.running_of)}
            needs.wishes |= running
            needs.of_wishes |= running
        if needs.overdue:
            needs.wishes |= {row[0] for row in await read(_EXPIRED, book.now)}
            needs.calls |= {row[0] for row in await read(_OVERDUE, book.now)}
        if needs.open_of:
            needs.calls |= {row[0] for row in await read(_OPEN, needs.open_of)}
        if needs.wishes or needs.keys:
            keys = tuple(zip(*needs.keys, strict=True)) or ((), (), ())
            for row in await read(_WISHES, needs.wishes, *keys):
                book.load_wish(Wish(*row))
        if needs.calls or needs.of_wishes:
            for row in await read(_CALLS, needs.calls, needs.of_wishes):
                book.load_call(PaidCall(*row))
        if needs.pictures_of:
            calls = [call.id for wish in needs.pictures_of for call in book.calls_of(wish)]
            for row in await read(_PICTURES_OF, calls):
                book.load_picture(StoredPicture(*row))
        if needs.scopes:
            for row in await read(_LIMITS, needs.scopes):
                book.limits[row[0]].append(Limit(*row))
            for row in await read(_COUNTERS, needs.scopes, period_keys(book.today).values()):
                book.counters[row[0], row[1]] = Counter(*row[2:])
        if needs.processes:
            book.processes = {row[0]: Process(*row) for row in await read(select(PROCESSES))}
        return book

    async def _save(self, connection: "asyncpg.Connection", book: Book) -> str | None:
        """Returns the id of the transaction, or None if there is nothing to write."""
        written = changes(book)
        if not book.buried and not book.forgotten and not any(rows for _, rows in written):
            return None
        if book.forgotten:  # first: another wish may have got the key
            await connection.execute(_FORGET, book.forgotten)
        json = (_json(WRITES[kind][0], rows) for kind, rows in written)
        return str(await connection.fetchval(_SAVE, *json, book.buried))


def _json(table: Table, rows: list[tuple[Any, ...]]) -> str:
    columns = table.columns.keys()
    return orjson.dumps([dict(zip(columns, row, strict=True)) for row in rows]).decode() if rows else "[]"


def _number(*name: str) -> int:
    """Returns the number that stands for a name in locks. Two names with the same number share a lock."""
    return int.from_bytes(blake2b("\n".join(name).encode(), digest_size=8).digest(), signed=True)
