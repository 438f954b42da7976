"""The operator's commands: `python -m app.cli migrate | users … | prices`."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence

from sqlalchemy.exc import SQLAlchemyError

from app.contract.errors import UpstreamUnavailable
from app.contract.models import load_catalogue
from app.contract.prices import Price, load_prices, platform_ids
from app.db import migrate, open_database
from app.services.passwords import MAX_LENGTH, MIN_LENGTH, Passwords
from app.services.users import UsernameTaken, Users, fold
from app.settings import read_database_url, read_price_settings

Command = Callable[[Users, argparse.Namespace], Awaitable[None]]


class CommandFailed(Exception):
    """The text is for the operator."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after a line on stderr. Wrong usage or settings raise SystemExit."""
    options = _parser().parse_args(argv)
    try:
        if options.command is _prices:
            _prices()
        elif options.command is None:
            migrate(read_database_url())
        else:
            asyncio.run(_run(read_database_url(), options.command, options))
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


def _prices() -> None:
    """Print a line for each price, and for each model without one the reason."""
    settings = read_price_settings()
    variable = "MODELS_FILE"
    try:
        catalogue = load_catalogue(settings.models_file)
        variable = "PRICES_FILE"
        prices = load_prices(catalogue, settings.prices_file)
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"{variable}: {exc}") from exc
    rows = [("model", "operation", "tier", "unit", "USD", "valid from", "checked")]
    rows += [row for price in prices.price for row in _rows(price)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[4] = row[4].rjust(widths[4])
        print("  ".join(cells).rstrip())
    missing = dict.fromkeys(sorted(platform_ids(catalogue) - prices.models), "not in the file")
    for model, reason in {**prices.unpriced, **missing}.items():
        print(f"{model.ljust(widths[0])}  no price: {reason}")


def _rows(price: Price) -> Iterator[tuple[str, str, str, str, str, str, str]]:
    tier = " ".join([*price.sizes, *price.qualities]) or "all"
    tiers = [
        ("image", tier, price.image),
        ("input_mtok", tier, price.input_mtok),
        ("output_mtok", tier, price.output_mtok),
        *(
            ("output_image_mtok", f"{size} ({tokens} tokens)", price.output_image_mtok)
            for size, tokens in price.image_tokens.items()
        ),
    ]
    for model in price.models:
        for unit, tier, micros in tiers:
            if micros is not None:
                usd = f"{micros // 1_000_000}.{micros % 1_000_000:06}"
                operations = " ".join(price.operations) or "all"
                yield model, operations, tier, unit, usd, f"{price.valid_from}", f"{price.checked}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.cli", description="Look after the gateway.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migration = commands.add_parser("migrate", help="bring the database's schema up to date")
    migration.set_defaults(command=None)

    prices = commands.add_parser("prices", help="print what each model costs")
    prices.set_defaults(command=_prices)

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
