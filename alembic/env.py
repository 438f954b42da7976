"""Runs the migrations: all of them in one transaction, one process at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from app.db import Base, open_database
from app.environment import read_database_url

ONE_AT_A_TIME = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_xact_lock(7203446015127)",  # any number that nobody else uses
}


def upgrade(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    context.run_migrations()


async def run() -> None:
    engine = open_database(context.config.attributes.get("url") or read_database_url())
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(ONE_AT_A_TIME[connection.dialect.name])
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


asyncio.run(run())
