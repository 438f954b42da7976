"""The ledger's database is down, full, or locked, or a COMMIT is not answered: nothing is sent unguarded, and
all is well again without a restart.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.contract.book import Terms
from app.contract.errors import Busy
from app.contract.ledger import Begun
from app.storage import ledger_postgres, ledger_sqlite
from app.storage.ledger import Ledger
from app.storage.ledger_postgres import PostgresStore
from app.storage.ledger_sqlite import SqliteStore
from tests.storage.ledgers import assert_adds_up, begin, begun, call, opened, query, states
from tests.support.small_disk import fill, small_disk
from tools.rig import ends

pytestmark = pytest.mark.anyio

sqlite_only = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
postgres_only = pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)


class Line:
    """A line to the server that can be cut. `url` goes through it.

    down: connections are refused. `lose_commit`: from the next COMMIT on, nothing that the client sends
    (before) or that the server answers (after) gets through.
    """

    def __init__(self, url: str) -> None:
        self.address = make_url(url)
        self.lose_commit: str | None = None
        self.lost_commit = asyncio.Event()
        self._lines: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return self.address.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        if self._server:
            self._server.close()
        for line in list(self._lines):
            line.close()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_connection(self.address.host, self.address.port or 5432)
        lost = asyncio.Event()
        self._lines |= {writer, server[1]}
        await asyncio.gather(
            self._carry(reader, server[1], lost, from_client=True),
            self._carry(server[0], writer, lost, from_client=False),
        )
        self._lines -= {writer, server[1]}

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        lost: asyncio.Event,
        *,
        from_client: bool,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if from_client and b"COMMIT" in data:
                    if self.lose_commit:
                        lost.set()
                        self.lost_commit.set()
                    if self.lose_commit == "before":
                        break
                elif lost.is_set() and not from_client:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    line = Line(url)
    await line.up()
    try:
        yield line
    finally:
        await line.down()


@postgres_only
async def test_the_server_goes_and_comes_back(migrated_url: str) -> None:
    async with line_to(migrated_url) as line, opened(line.url) as ledger:
        reserved, sent = call(), call(slot=1)
        wish = await begun(ledger, reserved, sent, key="k")
        await ledger.fence(sent.id)
        await line.down()
        with pytest.raises(Busy) as busy:
            await begin(ledger, call())
        assert busy.value.retry_after
        with pytest.raises(Busy):
            await ledger.fence(reserved.id)
        settling = asyncio.create_task(ends.settle(ledger, sent.id, charged=70, made=1))
        with pytest.raises(Busy):
            await begin(ledger, call())
        await line.up()
        assert await settling
        await ledger.fence(reserved.id)
        assert isinstance(await begin(ledger, call()), Begun)
        assert await ends.finish(ledger, wish, 200, "body")
    await assert_adds_up(migrated_url)


@postgres_only
async def test_an_idle_connection_that_the_server_has_closed(migrated_url: str) -> None:
    async with opened(migrated_url) as ledger:
        await begun(ledger)
        await query(
            migrated_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'image-gateway ledger' AND datname = current_database()",
        )
        await begun(ledger)


@postgres_only
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_commit_that_is_not_answered(migrated_url: str, lost: str) -> None:
    """The server is asked what became of it: the outcome is true, whether it was committed or not."""
    async with line_to(migrated_url) as line, opened(line.url) as ledger:
        one, two = call(), call(slot=1)
        await begun(ledger, one, two)
        line.lose_commit = lost
        fencing = asyncio.create_task(ledger.fence(one.id))
        await line.lost_commit.wait()
        line.lose_commit = None
        if lost == "after":
            await fencing
            assert (await states(migrated_url))[one.id] == "sent"
        else:
            with pytest.raises(Busy):
                await fencing
            assert (await states(migrated_url))[one.id] == "reserved"
        await ledger.fence(two.id)
    await assert_adds_up(migrated_url)


@postgres_only
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_commit_of_which_nothing_can_be_learned(
    migrated_url: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller may not send. When the server is back, what may have been written is undone."""
    monkeypatch.setattr(ledger_postgres, "_SECONDS", 1.0)
    async with line_to(migrated_url) as line, opened(line.url) as ledger:
        one = call()
        await begun(ledger, one)
        line.lose_commit = lost
        fencing = asyncio.create_task(ledger.fence(one.id))
        beginning = asyncio.create_task(begin(ledger, call(), key="k"))
        await line.lost_commit.wait()
        await line.down()
        for task in (fencing, beginning):
            with pytest.raises(Busy):
                await task
        line.lose_commit = None
        await line.up()
        assert isinstance(await begin(ledger, call(), key="k"), Begun)
        assert (await states(migrated_url))[one.id] == "void"
    assert sorted((await states(migrated_url)).values()) == (
        ["reserved", "void"] if lost == "before" else ["reserved", "void", "void"]
    )
    await assert_adds_up(migrated_url)


@postgres_only
async def test_a_gateway_that_is_stopped_in_a_transaction(migrated_url: str) -> None:
    """Others wait no longer than the server lets an idle transaction live."""
    async with opened(migrated_url) as ledger, opened(migrated_url, "p2") as other:
        await begun(ledger, key="k")
        stopped = PostgresStore(migrated_url, Terms())
        connection = await stopped._connect()
        await connection.execute("SET idle_in_transaction_session_timeout = '300ms'; BEGIN")
        await connection.execute(
            ledger_postgres._LOCK.replace("$1", f"'{{{ledger_postgres._number('ann')}}}'")
        )
        await begun(other, call())
        connection.terminate()


@sqlite_only
async def test_another_process_keeps_the_file_locked(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_sqlite, "_BUSY_SECONDS", 0.05)
    async with opened(migrated_url) as ledger:
        one = call()
        await begun(ledger, one)
        await ledger.fence(one.id)
        with closing(sqlite3.connect(str(make_url(migrated_url).database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy):
                await begin(ledger, call())
            settling = asyncio.create_task(ends.settle(ledger, one.id, charged=70, made=1))
            with pytest.raises(Busy):
                await begin(ledger, call())
            other.execute("ROLLBACK")
        assert await settling
        await begun(ledger, call())
    await assert_adds_up(migrated_url)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as disk:
        yield disk


@sqlite_only
async def test_the_disk_is_full(migrated_url: str, disk: Path) -> None:
    file = disk / "gateway.db"
    file.write_bytes(Path(str(make_url(migrated_url).database)).read_bytes())
    url = f"sqlite+aiosqlite:///{file}"
    async with opened(url) as ledger:
        one = call()
        await begun(ledger, one)
        await ledger.fence(one.id)
        ballast = disk / "ballast"
        admitted = 0
        outcome: object = Begun("")
        while isinstance(outcome, Begun):  # the write-ahead log has some room
            fill(ballast)
            twenty = (call(slot=slot) for slot in range(20))
            (outcome,) = await asyncio.gather(begin(ledger, *twenty), return_exceptions=True)
            admitted += 20 if isinstance(outcome, Begun) else 0
        assert isinstance(outcome, Busy)
        ballast.unlink()
        assert await ends.settle(ledger, one.id, charged=70, made=1)
        await begun(ledger, call())
        assert len(await states(url)) == admitted + 2
        await assert_adds_up(url)


@sqlite_only
async def test_the_file_is_full(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a full disk, for those who cannot mount one."""
    connect = SqliteStore._connect
    pages = 0

    def limited(store: SqliteStore) -> sqlite3.Connection:
        connection = connect(store)
        connection.execute(f"PRAGMA max_page_count = {pages or 2**30}")
        return connection

    monkeypatch.setattr(SqliteStore, "_connect", limited)
    pages = 1
    ledger = Ledger(SqliteStore(str(make_url(migrated_url).database), Terms()), "p1")
    outcome: object = Begun("")
    admitted = 0
    while isinstance(outcome, Begun):
        (outcome,) = await asyncio.gather(begin(ledger, call()), return_exceptions=True)
        admitted += isinstance(outcome, Begun)
    assert isinstance(outcome, Busy)
    assert len(await states(migrated_url)) == admitted
    pages = 0
    await begun(ledger, call())
    await ledger.aclose()
    await assert_adds_up(migrated_url)


async def test_without_tables(tmp_path: Path) -> None:
    """`migrate` was not run."""
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/empty.db") as ledger:
        with pytest.raises(Busy):
            await begin(ledger)


async def test_closing_while_the_database_is_down() -> None:
    ledger = Ledger(
        PostgresStore("postgresql+asyncpg://nobody@127.0.0.1:1/x", Terms()), "p1", wait_seconds=0.2
    )
    with pytest.raises(Busy):
        await ends.settle(ledger, "c", charged=1, made=1)
    await ledger.aclose()
