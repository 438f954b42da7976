"""The schema and the table of users, on whichever database the suite runs, and always on SQLite."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Row, text

from app.db import ROOT, User, migrate, open_database
from app.services.users import UsernameTaken, Users

anyio = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "configured"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a SQLite file in a folder that is not there yet, and the suite's own."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/new/gateway.db"
    return str(request.getfixturevalue("database_url"))


def test_migrations_make_what_the_code_declares(url: str) -> None:
    migrate(url)
    migrate(url)  # a second time changes nothing
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    command.check(config)


def test_migrations_go_back(url: str) -> None:
    migrate(url)
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    command.downgrade(config, "base")
    migrate(url)


def test_users_of_before_keep_their_tokens(url: str) -> None:
    """A row of the first schema counts as a user whose password was never changed."""
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    command.upgrade(config, "0001")
    columns = "id, username, password_hash, disabled, created_at"
    asyncio.run(
        execute(url, f"INSERT INTO users ({columns}) VALUES ('1', 'ann', 'x', false, CURRENT_TIMESTAMP)")  # noqa: S608
    )
    migrate(url)
    (row,) = asyncio.run(execute(url, "SELECT username, password_version FROM users"))
    assert tuple(row) == ("ann", 0)


async def execute(url: str, statement: str) -> Sequence[Row[Any]]:
    engine = open_database(url)
    async with engine.begin() as connection:
        result = await connection.execute(text(statement))
        rows = result.all() if result.returns_rows else []
    await engine.dispose()
    return rows


def test_several_processes_may_migrate_at_once(url: str) -> None:
    code = "import sys; from app.db import migrate; migrate(sys.argv[1])"
    processes = [subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]


@anyio
async def test_sqlite_lets_readers_and_writers_in(tmp_path: Path) -> None:
    engine = open_database(f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    async with engine.connect() as connection:
        pragmas = ("journal_mode", "busy_timeout", "synchronous")
        values = [(await connection.execute(text(f"PRAGMA {pragma}"))).scalar() for pragma in pragmas]
    await engine.dispose()
    assert values == ["wal", 5000, 1]


@anyio
async def test_sqlite_opens_while_another_keeps_its_journal(tmp_path: Path) -> None:
    """Two processes that open a new file at once both want to change its mode: one of them is refused."""
    file = tmp_path / "gateway.db"
    with closing(sqlite3.connect(file)) as other:
        other.executescript("CREATE TABLE t (a); BEGIN; SELECT * FROM t")
        engine = open_database(f"sqlite+aiosqlite:///{file}")
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM t"))).scalar() == 0
        await engine.dispose()


@anyio
async def test_two_who_take_the_same_name_at_once(users: Users) -> None:
    outcomes = await asyncio.gather(
        *(users.add("ann", f"hash {n}") for n in range(5)), return_exceptions=True
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert (kinds.count(User), kinds.count(UsernameTaken)) == (1, 4)


@anyio
async def test_users_come_in_the_order_of_their_names(users: Users) -> None:
    for name in ("zoe", "ann", "bob"):
        await users.add(name, "hash")
    assert [user.username for user in await users.all()] == ["ann", "bob", "zoe"]


@anyio
async def test_by_name_and_by_id(users: Users, ann: User) -> None:
    found = [await users.by_name("ann"), await users.by_id(ann.id)]
    assert [user and user.id for user in found] == [ann.id, ann.id]
    nobody = [await users.by_name(None), await users.by_name("bob"), await users.by_id("ann")]
    assert nobody == [None, None, None]
