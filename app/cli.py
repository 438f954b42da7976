"""The operator's commands: `python -m app.cli migrate | users …`."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from app.contract.errors import UpstreamUnavailable
from app.db import migrate, open_database
from app.services.passwords import MAX_LENGTH, MIN_LENGTH, Passwords
from app.services.users import UsernameTaken, Users, fold
from app.settings import read_database_url

Command = Callable[[Users, argparse.Namespace], Awaitable[None]]


class CommandFailed(Exception):
    """The text is for the operator."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after a line on stderr. Wrong usage or settings raise SystemExit."""
    options = _parser().parse_args(argv)
    url = read_database_url()
    try:
        if options.command is None:
            migrate(url)
        else:
            asyncio.run(_run(url, options.command, options))
    except CommandFailed as exc:
        print(exc, file=sys.stderr)
        return 1
    except (UpstreamUnavailable, SQLAlchemyError, OSError) as exc:
        reason = exc.__cause__ or exc
        print(f"The database does not answer, or `migrate` was not run: {reason}", file=sys.stderr)
        return 1
    return 0


async def _run(url: str, command: Command, options: argparse.Namespace) -> None:
    users = Users(open_database(url))
    try:
        await command(users, options)
    finally:
        await users.aclose()


async def _add(users: Users, options: argparse.Namespace) -> None:
    name = fold(options.username)
    if name is None:
        raise CommandFailed("A username has 1 to 128 visible characters and no blanks.")
    try:
        await users.add(name, await _password_hash(options))
    except UsernameTaken as exc:
        raise CommandFailed(f"There is a user {name} already.") from exc
    print(f"Added {name}.")


async def _list(users: Users, _options: argparse.Namespace) -> None:
    for user in await users.all():
        state = "disabled" if user.disabled else "active"
        print(user.username, state, f"{user.created_at:%Y-%m-%d}", user.id, sep="\t")


async def _disable(users: Users, options: argparse.Namespace) -> None:
    _known(options, await users.set_disabled(fold(options.username), True))
    print(f"Disabled {options.username}: tokens stop working within 30 seconds.")


async def _enable(users: Users, options: argparse.Namespace) -> None:
    _known(options, await users.set_disabled(fold(options.username), False))
    print(f"Enabled {options.username}.")


async def _passwd(users: Users, options: argparse.Namespace) -> None:
    _known(options, await users.set_password_hash(fold(options.username), await _password_hash(options)))
    print(f"Changed the password of {options.username}: older tokens stop working within 30 seconds.")


async def _delete(users: Users, options: argparse.Namespace) -> None:
    _known(options, await users.delete(fold(options.username)))
    print(f"Deleted {options.username}: tokens stop working within 30 seconds.")


def _known(options: argparse.Namespace, found: bool) -> None:
    if not found:
        raise CommandFailed(f"There is no user {options.username}.")


async def _password_hash(options: argparse.Namespace) -> str:
    password = sys.stdin.readline().rstrip("\r\n") if options.password_stdin else _ask()
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise CommandFailed(f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters.")
    passwords = Passwords(threads=1)
    try:
        return await passwords.hash(password)
    finally:
        passwords.close()


def _ask() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandFailed("The two passwords differ.")
    return password


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.cli", description="Look after the gateway.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migration = commands.add_parser("migrate", help="bring the database's schema up to date")
    migration.set_defaults(command=None)

    users = commands.add_parser("users", help="look after those who may log in")
    verbs = users.add_subparsers(required=True, metavar="COMMAND")
    verbs.add_parser("list", help="name, state, day of creation and id of every user").set_defaults(
        command=_list
    )
    named: dict[str, tuple[str, Command]] = {
        "add": ("add a user", _add),
        "passwd": ("change a password, which ends the user's older tokens", _passwd),
        "disable": ("refuse a user's logins and tokens", _disable),
        "enable": ("let a disabled user in again", _enable),
        "delete": ("delete a user, which ends the user's tokens", _delete),
    }
    for verb, (summary, command) in named.items():
        one = verbs.add_parser(verb, help=summary)
        one.add_argument("username")
        one.set_defaults(command=command)
        if command in (_add, _passwd):
            one.add_argument("--password-stdin", action="store_true", help="read a line of standard input")
    return parser


if __name__ == "__main__":
    sys.exit(main())
