"""The database: its one table, the engine, and bringing the schema up to date."""

import sqlite3
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, String, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ROOT = Path(__file__).parents[1]


class Base(DeclarativeBase):
    """What Alembic compares the migrations with."""


class User(Base):
    """A person who may log in. `username` is folded (`services/users.py`), so that Ann and ann are the same
    user.

    `password_version` counts the changes of the password. Tokens carry it.
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    username: Mapped[str] = mapped_column(String(128), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    password_version: Mapped[int] = mapped_column(default=0, server_default="0")
    disabled: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def open_database(url: str) -> AsyncEngine:
    """The engine for `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`. Connects on first use.

    Its errors do not show values: password hashes stay out of logs.
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        return create_async_engine(
            address,
            pool_size=5,
            max_overflow=5,
            pool_timeout=5,
            pool_recycle=1800,
            pool_pre_ping=True,
            connect_args={"timeout": 5, "command_timeout": 10},
            hide_parameters=True,
        )
    if address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(address, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _tune_sqlite)
    return engine


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Let readers go on while one process writes, and let writers wait for each other."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 5000")
    # Whoever has the file open keeps its mode, or is changing it at this moment.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def migrate(url: str) -> None:
    """Bring the schema up to date. Safe to run in several processes at once.

    Blocking, and runs an event loop of its own: never call it inside one.
    """
    from alembic import command  # only a command needs it
    from alembic.config import Config

    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    command.upgrade(config, "head")
