"""Parts that several commands use."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from sqlalchemy.ext.asyncio import AsyncEngine

from app.contract.models import Catalogue, load_catalogue
from app.db import open_database
from app.environment import read_database_url
from app.settings import PriceSettings

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `argparse.ArgumentParser.add_subparsers` returns."""


class CommandFailed(Exception):
    """The command failed. The text is for the operator."""


def on_database(
    run: Callable[[AsyncEngine, argparse.Namespace], Awaitable[None]],
) -> Callable[[argparse.Namespace], None]:
    """Returns a command that calls `run` with the database of DATABASE_URL, and closes it at the end."""

    async def opened(url: str, options: argparse.Namespace) -> None:
        engine = open_database(url)
        try:
            await run(engine, options)
        finally:
            await engine.dispose()

    return lambda options: asyncio.run(opened(read_database_url(), options))


def read_catalogue(settings: PriceSettings) -> Catalogue:
    """Returns the catalogue. Raises CommandFailed if its file cannot be read or is wrong."""
    try:
        return load_catalogue(settings.models_file)
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"MODELS_FILE: {exc}") from exc
