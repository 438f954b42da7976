"""Commands for operators: `python -m app.cli migrate | users … | keys … | budgets … | receipts | prices`."""

import argparse
import os
import sys
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from app.cli import budgets, keys, prices, receipts, users
from app.cli.command import CommandFailed
from app.contract.errors import UpstreamUnavailable
from app.db import migrate
from app.environment import read_database_url


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0, or 1 after an error on stderr.

    Raises SystemExit if the arguments or the settings are wrong.
    """
    options = _parser().parse_args(argv)
    try:
        options.command(options)
    except CommandFailed as exc:
        print(exc, file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has closed the pipe, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UpstreamUnavailable, SQLAlchemyError, OSError) as exc:
        reason = exc.__cause__ or exc
        print(f"The database does not answer, or `migrate` was not run: {reason}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.cli", description="Manage the gateway.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migration = commands.add_parser("migrate", help="bring the database's schema up to date")
    migration.set_defaults(command=_migrate)
    for group in (prices, budgets, receipts, users, keys):
        group.add_to(commands)
    return parser


def _migrate(_options: argparse.Namespace) -> None:
    migrate(read_database_url())
