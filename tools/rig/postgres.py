"""Databases for one run on a PostgreSQL server."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.db import migrate


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """Make a database with all tables beside the one that `server` names. Yields its URL, and drops it."""
    address = make_url(server).set(drivername="postgresql+asyncpg")
    name = f"bench_{uuid.uuid4().hex}"
    plain = address.render_as_string(hide_password=False)
    asyncio.run(_execute(plain, f"CREATE DATABASE {name}"))
    try:
        url = address.set(database=name).render_as_string(hide_password=False)
        migrate(url)
        yield url
    finally:
        asyncio.run(_execute(plain, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(statement)
    await engine.dispose()
