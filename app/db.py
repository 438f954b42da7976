"""The database: its tables, the engine, and the migration of its schema."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    event,
    false,
    make_url,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.contract.errors import Busy

ROOT = Path(__file__).parents[1]


class Base(DeclarativeBase):
    """The base of all tables. Alembic compares the migrations with its metadata."""


def _only(condition: str) -> dict[str, Any]:
    """Returns keyword arguments for an Index of the rows that meet the condition."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class User(Base):
    """A user who can log in.

    `username` is folded (`services/users.py`), so that Ann and ann are the same user. `password_version`
    counts the changes of the password. Tokens contain it.
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    username: Mapped[str] = mapped_column(String(128), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    password_version: Mapped[int] = mapped_column(default=0, server_default="0")
    disabled: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ApiKeyRow(Base):
    """An API key (`services/keys.py`). Rows are never deleted, because budgets and receipts name keys.

    `hash` is the SHA-256 of the key. `operations` and `models` are null if all are allowed. Times are in Unix
    milliseconds. A key of a deleted user is refused: user ids are never used again.
    """

    __tablename__ = "api_keys"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    user: Mapped[str] = mapped_column(String(36))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    operations: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    models: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────
#
# `app/contract/ledger.py` says what the rows mean; `app/storage/ledger.py` writes them with the raw drivers.
# Money is in micro-USD, times are milliseconds since 1970 (UTC). The order of the columns is the order of the
# fields of the types in `app/contract/ledger.py`.


class ProcessRow(Base):
    """A process that writes the ledger.

    It is dead if its heartbeat is old, or if the lock of its `folder`, on its `host`, is free.
    """

    __tablename__ = "processes"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    folder: Mapped[str] = mapped_column(Text)
    heartbeat_at: Mapped[int] = mapped_column(BigInteger)


class WishRow(Base):
    """One request of a caller that can cost money, and its response, if a repeated request gets it again."""

    __tablename__ = "wishes"
    __table_args__ = (
        UniqueConstraint("caller", "route", "key", name="uq_wishes_key"),
        Index("ix_wishes_caller", "caller", "created_at", "id"),
        Index("ix_wishes_created", "created_at", "id"),
        Index("ix_wishes_running", "process", **_only("state = 'running'")),
        Index("ix_wishes_expiring", "expires_at", **_only("key IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    caller: Mapped[str] = mapped_column(String(255))
    route: Mapped[str] = mapped_column(String(255))
    key: Mapped[str | None] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    process: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[int | None] = mapped_column(BigInteger)
    body: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    replayed: Mapped[bool] = mapped_column(default=False, server_default=false())


class CallRow(Base):
    """A paid call, and its price, which is reserved until the call ends."""

    __tablename__ = "calls"
    __table_args__ = (
        UniqueConstraint("wish", "slot", "attempt", name="uq_calls_slot"),
        Index("ix_calls_open", "process", "deadline_at", **_only("state IN ('reserved', 'sent')")),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    wish: Mapped[str] = mapped_column(ForeignKey("wishes.id", ondelete="CASCADE"))
    slot: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str] = mapped_column(String(255))
    operation: Mapped[str] = mapped_column(String(64))
    micros: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int] = mapped_column(BigInteger)
    priced: Mapped[bool]
    state: Mapped[str] = mapped_column(String(16))
    charged: Mapped[int] = mapped_column(BigInteger)
    made: Mapped[int] = mapped_column(BigInteger)
    process: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str] = mapped_column(Text)
    day: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[int] = mapped_column(BigInteger)
    deadline_at: Mapped[int] = mapped_column(BigInteger)
    sent_at: Mapped[int | None] = mapped_column(BigInteger)
    done_at: Mapped[int | None] = mapped_column(BigInteger)
    bucket: Mapped[str | None] = mapped_column(Text)
    stem: Mapped[str | None] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text)


class PictureRow(Base):
    """Where a picture of a call is stored."""

    __tablename__ = "pictures"

    call: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    bucket: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    mime_type: Mapped[str] = mapped_column(String(64))


class LimitRow(Base):
    """How much a scope may spend in each period, in micro-USD or pictures."""

    __tablename__ = "limits"

    scope: Mapped[str] = mapped_column(String(255), primary_key=True)
    unit: Mapped[str] = mapped_column(String(16), primary_key=True)
    period: Mapped[str] = mapped_column(String(16), primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)


class CounterRow(Base):
    """What a scope has spent and reserved in one period: `2026-11-21`, `2026-11` or `total`."""

    __tablename__ = "counters"

    scope: Mapped[str] = mapped_column(String(255), primary_key=True)
    period: Mapped[str] = mapped_column(String(10), primary_key=True)
    spent_micros: Mapped[int] = mapped_column(BigInteger)
    reserved_micros: Mapped[int] = mapped_column(BigInteger)
    spent_pictures: Mapped[int] = mapped_column(BigInteger)
    reserved_pictures: Mapped[int] = mapped_column(BigInteger)


def open_database(url: str) -> AsyncEngine:
    """Returns an engine for `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`. It connects on first use.

    Its errors do not contain values, so that password hashes stay out of logs.
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
    # Fails while another connection uses the file, which keeps its mode, or while one changes it.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


_ANSWER_SECONDS = 5.0


@asynccontextmanager
async def busy_on_failure() -> AsyncIterator[None]:
    """Raises Busy if the database fails in the `with` block, or if the block takes longer than 5 s."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            yield
    except (SQLAlchemyError, OSError) as exc:  # asyncpg's failed connections and timeouts are OSErrors
        raise Busy(retry_after=5) from exc


def migrate(url: str) -> None:
    """Bring the schema up to date. Several processes can do this at once.

    Blocks, and runs its own event loop: do not call it on a running loop.
    """
    from alembic import command  # only this function needs it
    from alembic.config import Config

    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    command.upgrade(config, "head")
