"""What both databases of the ledger have in common: their statements, made from the tables, and one error."""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Table

from app.contract.book import Book
from app.contract.bookkeeping import Command
from app.contract.errors import Busy
from app.contract.ledger import Counter
from app.db import Base

WISHES, CALLS, PICTURES, LIMITS, COUNTERS, PROCESSES = (
    Base.metadata.tables[name] for name in ("wishes", "calls", "pictures", "limits", "counters", "processes")
)

_CHANGING = {
    WISHES: ("key", "state", "process", "status", "body", "expires_at", "replayed"),
    CALLS: ("state", "charged", "made", "deadline_at", "sent_at", "done_at", "bucket", "stem", "text"),
    PICTURES: ("bucket", "name", "mime_type"),
    COUNTERS: Counter._fields,
    PROCESSES: ("host", "folder", "heartbeat_at"),
}
"""The columns that change in existing rows. The fewer they are, the fewer indexes are written."""

Commands = Sequence[Command[object]]


class Unsure(Busy):
    """The connection was lost in COMMIT, and the outcome of the transaction could not be found in time.

    `outcomes`: those of the batch, if it was committed.
    """

    def __init__(self, outcomes: list[object]) -> None:
        super().__init__()
        self.outcomes = outcomes


class Store(Protocol):
    """A database with the ledger's tables, used for one batch at a time."""

    async def run(self, commands: Commands, /) -> list[object]:
        """Carry out the commands in one transaction, and return their outcomes when it is committed.

        Raises Busy if the database cannot do it now: nothing is changed, unless it is Unsure. Raises any
        other exception if one of the commands is at fault: nothing is changed.
        """

    async def aclose(self) -> None: ...


def select(table: Table, source: str | None = None) -> str:
    """Returns a SELECT of all columns of a table, from a source that has them."""
    columns = ", ".join(f"{table.name}.{column}" for column in table.columns.keys())  # noqa: SIM118
    return f"SELECT {columns} FROM {source or table.name}"  # noqa: S608 - no values in it


def insert(table: Table) -> str:
    return f"INSERT INTO {table.name} ({', '.join(table.columns.keys())})"


def or_change(table: Table) -> str:
    """Returns the end of an INSERT: an existing row gets the new values, counters get the sums."""
    key = ", ".join(column.name for column in table.primary_key)
    old = f"{table.name}.{{0}} + " if table is COUNTERS else ""
    values = (f"{{0}} = {old}excluded.{{0}}".format(name) for name in _CHANGING[table])
    return f"ON CONFLICT ({key}) DO UPDATE SET {', '.join(values)}"


def forget(condition: str) -> str:
    """Returns a DELETE of the wishes for which the condition holds and which have no calls."""
    calls = f"SELECT 1 FROM {CALLS.name} WHERE {CALLS.name}.wish = {WISHES.name}.id"  # noqa: S608 - no values in it
    return f"DELETE FROM {WISHES.name} WHERE {condition} AND NOT EXISTS ({calls})"  # noqa: S608 - as above


def changes(book: Book) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Returns the rows that are to be written, each kind with its name in WRITES.

    The counters are sorted: all writers lock them in the same order.
    """
    return [
        ("wishes", list(book.changed_wishes.values())),
        ("new_calls", list(book.new_calls.values())),
        ("calls", list(book.changed_calls.values())),
        ("pictures", list(book.new_pictures)),
        ("counters", [(*at, *counter) for at, counter in sorted(book.added.items())]),
        ("processes", list(book.beating.values())),
    ]


WRITES = {
    "wishes": (WISHES, or_change(WISHES)),
    "new_calls": (CALLS, ""),  # one that is there already is an error: its price would be lost
    "calls": (CALLS, or_change(CALLS)),
    "pictures": (PICTURES, or_change(PICTURES)),
    "counters": (COUNTERS, or_change(COUNTERS)),
    "processes": (PROCESSES, or_change(PROCESSES)),
}
"""The table of each kind of rows, and the end of its INSERT."""
