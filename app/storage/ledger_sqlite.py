"""The ledger in a SQLite file, written by one thread."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import time
from typing import Any

import orjson
from sqlalchemy import Table

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
    changes,
    forget,
    insert,
    select,
)

_BUSY_SECONDS = 5.0
_AT_FAULT = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

_WRITE = {
    kind: f"{insert(table)} VALUES ({', '.join('?' * len(table.columns))}) {end}"
    for kind, (table, end) in WRITES.items()
}


def _each(table: Table, condition: str) -> str:
    """Returns a SELECT of the rows for which the condition holds with a `wanted.value` of a JSON array.

    One statement for many rows costs a third of a statement for each.
    """
    return f"{select(table, f'json_each(?) AS wanted CROSS JOIN {table.name}')} WHERE {condition}"


_KEYS = _each(
    WISHES, "caller = wanted.value ->> 0 AND route = wanted.value ->> 1 AND wishes.key = wanted.value ->> 2"
)
_WISHES = _each(WISHES, "wishes.id = wanted.value")
_RUNNING = _each(WISHES, "state = 'running' AND process = wanted.value")
_EXPIRED = f"{select(WISHES)} WHERE key IS NOT NULL AND expires_at <= ? LIMIT 1000"
_CALLS = _each(CALLS, "calls.id = wanted.value")
_CALLS_OF = _each(CALLS, "wish = wanted.value")
_OPEN = _each(CALLS, "state IN ('reserved', 'sent') AND process = wanted.value")
_OVERDUE = f"{select(CALLS)} WHERE state IN ('reserved', 'sent') AND deadline_at <= ?"
_PICTURES_OF = _each(PICTURES, "call = wanted.value ORDER BY call, number")
_LIMITS = _each(LIMITS, "scope = wanted.value")
_FORGET = forget("id = ?")
_COUNTERS = _each(COUNTERS, "scope = wanted.value AND period IN (?, ?, ?)")


class SqliteStore:
    """Implements Store. `clock` returns the time in ms; without one it is the machine's."""

    def __init__(self, path: str, terms: Terms, *, clock: Callable[[], int] | None = None) -> None:
        self._path = path
        self._terms = terms
        self._clock = clock or _now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._connection: sqlite3.Connection | None = None

    async def run(self, commands: Commands, /) -> list[object]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, commands)

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _run(self, commands: Commands) -> list[object]:
        try:
            connection = self._connection = self._connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
            book = self._load(connection, commands)
            outcomes = [command.apply(book) for command in commands]
            self._save(connection, book)
            connection.execute("COMMIT")
        except BaseException as exc:
            self._close()  # rolls back
            if isinstance(exc, sqlite3.Error) and not isinstance(exc, _AT_FAULT):
                raise Busy from exc  # locked, full, broken, without tables
            raise
        return outcomes

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        with suppress(sqlite3.OperationalError):  # another process has the file open, and keeps its mode
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a paid call must outlive a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(sqlite3.Error):
                connection.close()

    def _load(self, connection: sqlite3.Connection, commands: Commands) -> Book:
        needs = Needs()
        for command in commands:
            command.needs(needs)
        book = Book(self._clock(), self._terms, needs.scopes)
        read = connection.execute
        if needs.keys:
            _wishes(book, read(_KEYS, _json(map(list, needs.keys))))
        if needs.wishes:
            _wishes(book, read(_WISHES, _json(needs.wishes)))
        if needs.running_of:
            needs.of_wishes |= _wishes(book, read(_RUNNING, _json(needs.running_of)))
        if needs.calls:
            _calls(book, read(_CALLS, _json(needs.calls)))
        if needs.open_of:
            _calls(book, read(_OPEN, _json(needs.open_of)))
        if needs.overdue:
            _calls(book, read(_OVERDUE, (book.now,)))
            _wishes(book, read(_EXPIRED, (book.now,)))
        if needs.of_wishes:
            _calls(book, read(_CALLS_OF, _json(needs.of_wishes)))
        if needs.pictures_of:
            calls = [call.id for wish in needs.pictures_of for call in book.calls_of(wish)]
            for row in read(_PICTURES_OF, _json(calls)):
                book.load_picture(StoredPicture(*row))
        if needs.scopes:
            for row in read(_LIMITS, _json(needs.scopes)):
                book.limits[row[0]].append(Limit(*row))
            for row in read(_COUNTERS, (*_json(needs.scopes), *period_keys(book.today).values())):
                book.counters[row[0], row[1]] = Counter(*row[2:])
        if needs.processes:
            book.processes = {row[0]: Process(*row) for row in read(select(PROCESSES))}
        return book

    def _save(self, connection: sqlite3.Connection, book: Book) -> None:
        if book.forgotten:  # first: another wish may have got the key
            connection.executemany(_FORGET, [(wish,) for wish in book.forgotten])
        for kind, rows in changes(book):
            if rows:
                connection.executemany(_WRITE[kind], rows)
        for process in book.buried:
            connection.execute("DELETE FROM processes WHERE id = ?", (process,))


def _json(values: Iterable[object]) -> tuple[str]:
    return (orjson.dumps(list(values)).decode(),)


def _now() -> int:
    return int(time() * 1000)


_REPLAYED, _PRICED = WISHES.columns.keys().index("replayed"), CALLS.columns.keys().index("priced")


def _wishes(book: Book, rows: sqlite3.Cursor) -> set[str]:
    wishes = [Wish(*_with_bool(row, _REPLAYED)) for row in rows]
    for wish in wishes:
        book.load_wish(wish)
    return {wish.id for wish in wishes}


def _calls(book: Book, rows: sqlite3.Cursor) -> None:
    for row in rows:
        book.load_call(PaidCall(*_with_bool(row, _PRICED)))


def _with_bool(row: tuple[Any, ...], place: int) -> list[Any]:
    """SQLite stores booleans as integers."""
    values = list(row)
    values[place] = bool(values[place])
    return values
