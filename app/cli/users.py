"""`python -m app.cli users …`: the accounts that can log in."""

import argparse
import getpass
import sys

from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.command import CommandFailed, Commands, on_database
from app.services.passwords import MAX_LENGTH, MIN_LENGTH, Passwords
from app.services.users import UsernameTaken, Users, fold


def add_to(commands: Commands) -> None:
    users = commands.add_parser("users", help="manage the accounts that can log in")
    verbs = users.add_subparsers(required=True, metavar="COMMAND")
    listing = verbs.add_parser("list", help="list users: name, state, day of creation and id")
    listing.set_defaults(command=on_database(_list))
    for verb, summary, run in (
        ("add", "add a user", _add),
        ("passwd", "change a password, and end the user's older tokens", _passwd),
        ("disable", "refuse a user's logins and tokens", _disable),
        ("enable", "let a disabled user in again", _enable),
        ("delete", "delete a user, and end the user's tokens", _delete),
    ):
        one = verbs.add_parser(verb, help=summary)
        one.add_argument("username")
        one.set_defaults(command=on_database(run))
        if run in (_add, _passwd):
            one.add_argument(
                "--password-stdin",
                action="store_true",
                help="read the password from standard input, one line",
            )


async def _add(database: AsyncEngine, options: argparse.Namespace) -> None:
    name = fold(options.username)
    if name is None:
        raise CommandFailed("A username has 1 to 128 visible characters and no spaces.")
    try:
        await Users(database).add(name, await _password_hash(options))
    except UsernameTaken as exc:
        raise CommandFailed(f"A user {name} exists already.") from exc
    print(f"Added {name}.")


async def _list(database: AsyncEngine, _options: argparse.Namespace) -> None:
    for user in await Users(database).all():
        state = "disabled" if user.disabled else "active"
        print(user.username, state, f"{user.created_at:%Y-%m-%d}", user.id, sep="\t")


async def _disable(database: AsyncEngine, options: argparse.Namespace) -> None:
    _known(options, await Users(database).set_disabled(fold(options.username), True))
    print(f"Disabled {options.username}: tokens stop working within 30 seconds.")


async def _enable(database: AsyncEngine, options: argparse.Namespace) -> None:
    _known(options, await Users(database).set_disabled(fold(options.username), False))
    print(f"Enabled {options.username}.")


async def _passwd(database: AsyncEngine, options: argparse.Namespace) -> None:
    _known(
        options,
        await Users(database).set_password_hash(fold(options.username), await _password_hash(options)),
    )
    print(f"Changed the password of {options.username}: older tokens stop working within 30 seconds.")


async def _delete(database: AsyncEngine, options: argparse.Namespace) -> None:
    _known(options, await Users(database).delete(fold(options.username)))
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
