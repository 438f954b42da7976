"""The database is a SQLite file that cannot grow: nothing is paid, and it works again without a restart."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import make_url

from app.emulator.server import Emulator
from app.storage.ledger_sqlite import SqliteStore
from tests.api.conftest import Client, Start, client_of
from tests.conftest import Lend
from tests.storage.ledgers import assert_adds_up, query
from tests.support.small_disk import fill, small_disk

PATH = "/api/v1/image/text-to-image"
CAT = {"prompt": "a cat", "responseFormat": "b64_json"}
MOST = 200


class Database(NamedTuple):
    """`fill` takes the room that is left, `free` gives it back."""

    url: str
    fill: Callable[[], None]
    free: Callable[[], None]


@pytest.fixture(params=["disk", "file"])
def database(
    request: pytest.FixtureRequest, lend: Lend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """On a small disk; and a file with a limit, for those who cannot mount a disk."""
    sqlite = make_url("sqlite+aiosqlite://")
    with ExitStack() as stack:
        if request.param == "disk":
            disk = stack.enter_context(small_disk(tmp_path / "disk", "1m"))
            ballast = disk / "ballast"
            yield Database(stack.enter_context(lend(sqlite, disk)), lambda: fill(ballast), ballast.unlink)
        else:
            limit = Limit(monkeypatch)
            url = stack.enter_context(lend(sqlite, tmp_path))
            yield Database(url, lambda: limit.set(1), lambda: limit.set(2**30))


class Limit:
    """How many pages the ledger's file may have. It never shrinks: 1 is as many as it has."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._connections: list[sqlite3.Connection] = []
        self._pages = 2**30
        connect = SqliteStore._connect

        def limited(store: SqliteStore) -> sqlite3.Connection:
            self._connections.append(connect(store))
            self.set(self._pages)
            return self._connections[-1]

        patch.setattr(SqliteStore, "_connect", limited)

    def set(self, pages: int) -> None:
        self._pages = pages
        for connection in self._connections:
            with suppress(sqlite3.ProgrammingError):  # it is closed
                connection.execute(f"PRAGMA max_page_count = {pages}")


def ask(client: Client, key: str | None = None, prompt: str = "a cat") -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(PATH, {**CAT, "prompt": prompt}, **headers)


def fill_up(database: Database, client: Client) -> int:
    """Fill the database until requests are refused. Returns how many were served before."""
    for served in range(MOST):
        database.fill()
        if ask(client).status_code != 200:
            return served
    raise AssertionError(f"{MOST} requests were served")


def test_nothing_is_paid_that_cannot_be_recorded(
    start: Start, emulator: Emulator, database: Database
) -> None:
    with start(database_url=database.url) as url, closing(client_of(url).http) as http:
        client = Client(http)
        assert ask(client).status_code == 200
        served = 1 + fill_up(database, client)
        for refused in (ask(client), ask(client, "a"), ask(client, "a")):
            assert (refused.status_code, refused.headers["x-error-code"]) == (503, "busy")
            assert "retry-after" in refused.headers
            assert "x-receipt-id" not in refused.headers or refused.headers["x-cost-usd"] == "0.000000"
        assert http.get("/health").status_code == 200
        assert (len(emulator.calls.list()), emulator.calls.paid) == (served, served)
        database.free()
        first, again = ask(client, "a"), ask(client, "a")
        assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
        assert emulator.calls.paid == served + 1
    asyncio.run(assert_adds_up(database.url))
    states = asyncio.run(query(database.url, "SELECT state FROM calls WHERE state <> 'void'"))
    assert [state for (state,) in states] == ["settled"] * (served + 1)


def test_what_is_paid_meanwhile_is_recorded_later(
    start: Start, emulator: Emulator, database: Database
) -> None:
    """The disk fills up while the vendor works: the caller gets the picture, and it is charged once."""
    with (
        start(database_url=database.url) as url,
        closing(client_of(url).http) as http,
        ThreadPoolExecutor(1) as thread,
    ):
        client = Client(http)
        asking = thread.submit(ask, client, "a", "a cat #trouble:slow=2")
        emulator.calls.wait_for(lambda calls: len(calls) == 1)
        served = 1 + fill_up(database, client)
        first = asking.result()
        assert first.status_code == 200
        assert ask(client).status_code == 503
        database.free()
        again = ask(client, "a", "a cat #trouble:slow=2")
        assert (again.status_code, again.content) == (200, first.content)
        assert (len(emulator.calls.list()), emulator.calls.paid) == (served, served)
    asyncio.run(assert_adds_up(database.url))
    states = asyncio.run(query(database.url, "SELECT state FROM calls WHERE state <> 'void'"))
    assert [state for (state,) in states] == ["settled"] * served
