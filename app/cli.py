"""The operator's commands: `python -m app.cli migrate | users … | keys … | budgets … | receipts | prices`."""

import argparse
import asyncio
import getpass
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, get_args

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.contract.budgets import MAX_SCOPE, read_limit, six_decimals, user_scope
from app.contract.errors import UpstreamUnavailable
from app.contract.models import Catalogue, Operation, load_catalogue
from app.contract.periods import iso
from app.contract.prices import Price, load_prices, platform_ids
from app.db import migrate, open_database
from app.services.budgets import Budgets
from app.services.keys import NAME, KeyNameTaken, Keys, NoSuchUser, now, over
from app.services.passwords import MAX_LENGTH, MIN_LENGTH, Passwords
from app.services.receipts import Booked, Receipts
from app.services.users import UsernameTaken, Users, fold
from app.settings import PriceSettings, read_database_url, read_price_settings

Command = Callable[[Users, argparse.Namespace], Awaitable[None]]
KeyCommand = Callable[[Keys, argparse.Namespace], Awaitable[None]]

_GEN = ("text2img", "img2img")
_OPERATIONS = [operation for operation in get_args(Operation) if operation != "rewrite"]
"""What a key may be limited to. A rewrite is a part of /gen."""
_HOURS = {"h": 1, "d": 24}


class Books(NamedTuple):
    """What the commands about money work on."""

    users: Users
    budgets: Budgets
    receipts: Receipts


def _books(database: AsyncEngine) -> Books:
    return Books(Users(database), Budgets(database), Receipts(database))


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
            asyncio.run(_run(read_database_url(), options))
    except CommandFailed as exc:
        print(exc, file=sys.stderr)
        return 1
    except (UpstreamUnavailable, SQLAlchemyError, OSError) as exc:
        reason = exc.__cause__ or exc
        print(f"The database does not answer, or `migrate` was not run: {reason}", file=sys.stderr)
        return 1
    return 0


async def _run(url: str, options: argparse.Namespace) -> None:
    engine = open_database(url)
    try:
        await options.command(options.table(engine), options)
    finally:
        await engine.dispose()


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


async def _set_budget(books: Books, options: argparse.Namespace) -> None:
    caller, scope = await _subject(books.users, options.subject)
    try:
        limits = [read_limit(scope, "usd", text) for text in options.usd]
        limits += [read_limit(scope, "pictures", text) for text in options.pictures]
    except ValueError as exc:
        raise CommandFailed(exc) from exc
    if not limits:
        raise CommandFailed("Name a limit: --usd 5/day, --pictures 100/month, or both.")
    await books.budgets.set(limits)
    print(f"{options.subject}: {', '.join(limit.text for limit in await books.budgets.all(scope))}")
    if caller is None and scope != options.subject:
        print(f"There is no user {options.subject}: this is for tokens whose sub is {options.subject}.")


async def _list_budgets(books: Books, _options: argparse.Namespace) -> None:
    names = await _names(books.users)
    for limit in await books.budgets.all():
        caller = limit.scope.removeprefix(user_scope(""))
        print(_shown(names.get(caller, caller)), limit.text, sep="\t")


async def _clear_budget(books: Books, options: argparse.Namespace) -> None:
    _, scope = await _subject(books.users, options.subject)
    if not await books.budgets.clear(scope):
        raise CommandFailed(f"{options.subject} has no budget.")
    print(f"Cleared the budget of {options.subject}.")


async def _receipts(books: Books, options: argparse.Namespace) -> None:
    """Print a line for each receipt, the newest first."""
    names = await _names(books.users)
    caller = None
    if options.user is not None:
        user = await books.users.by_name(fold(options.user))
        caller = user.id if user else options.user
    left, after = options.limit, None
    while left > 0:
        page = await books.receipts.page(caller, limit=min(left, _PAGE), after=after)
        for one in page.receipts:
            print(*_receipt(one, names), sep="\t")
        left, after = left - _PAGE, page.next
        if after is None:
            return


_PAGE = 100


def _receipt(one: Booked, names: dict[str, str]) -> tuple[str, ...]:
    states = ",".join(dict.fromkeys(call.state for call in one.calls))
    cost = six_decimals(one.charged) + ("" if one.priced else " (unpriced)")
    name = _shown(names.get(one.caller, one.caller))
    return iso(one.created_at), name, one.operation, cost, states, f"{len(one.pictures)}", one.id


async def _subject(users: Users, subject: str) -> tuple[str | None, str]:
    """Returns the id of the user with this name, if there is one, and the subject's scope.

    A subject is a username, `key:` and the name of a key, or the `sub` of tokens.
    """
    is_key = subject.startswith("key:")
    user = None if is_key else await users.by_name(fold(subject))
    scope = subject if is_key else user_scope(user.id if user else subject)
    if len(scope) > MAX_SCOPE:
        raise CommandFailed("This subject is too long.")
    return user.id if user else None, scope


async def _names(users: Users) -> dict[str, str]:
    return {user.id: user.username for user in await users.all()}


def _shown(name: str) -> str:
    """The `sub` of a token may hold line breaks, and codes that a terminal obeys."""
    return name if name.isprintable() else ascii(name)


async def _add_key(keys: Keys, options: argparse.Namespace) -> None:
    """The key goes to standard output, alone, so that a script can take it."""
    if not NAME.fullmatch(options.name):
        raise CommandFailed("A key's name has 1 to 64 of the characters A-Z, a-z, 0-9, dot, - and _.")
    lifetime = _milliseconds(options.expires) if options.expires is not None else None
    try:
        secret = await keys.add(
            options.name,
            fold(options.user),
            operations=_operations(options.operations),
            models=_models(options.models),
            expires_at=now() + lifetime if lifetime else None,
        )
    except NoSuchUser as exc:
        raise CommandFailed(f"There is no user {options.user}.") from exc
    except KeyNameTaken as exc:
        raise CommandFailed(
            f"There is a key {options.name} already, or there was: a name is not used again."
        ) from exc
    print(f"Added {options.name}. This is the only time that the key is shown:", file=sys.stderr)
    print(secret)


async def _list_keys(keys: Keys, _options: argparse.Namespace) -> None:
    for key, username in await keys.all():
        state = "revoked" if key.revoked_at else "expired" if over(key.expires_at) else "active"
        print(
            key.name,
            state,
            _day(key.created_at),
            username or "(deleted)",
            "all operations" if key.operations is None else ",".join(key.operations),
            "all models" if key.models is None else ",".join(key.models),
            f"until {_day(key.expires_at)}" if key.expires_at else "no expiry",
            sep="\t",
        )


async def _revoke_key(keys: Keys, options: argparse.Namespace) -> None:
    if not await keys.revoke(options.name):
        raise CommandFailed(f"There is no key {options.name}.")
    print(f"Revoked {options.name}: it stops working within a minute.")


def _operations(words: str | None) -> list[str] | None:
    if words is None:
        return None
    named = _split(words)
    _check("operation", named, ["gen", *_OPERATIONS])
    return list(dict.fromkeys(one for word in named for one in (_GEN if word == "gen" else (word,))))


def _models(words: str | None) -> list[str] | None:
    if words is None:
        return None
    named = _split(words)
    _check("model", named, [model.id for model in _catalogue(read_price_settings()).model])
    return list(dict.fromkeys(named))


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")]


def _check(kind: str, named: Collection[str], known: Collection[str]) -> None:
    for name in named:
        if name not in known:
            raise CommandFailed(f"There is no {kind} {name!r}. There are: {', '.join(known)}.")


def _milliseconds(words: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,3})([hd])", words, re.ASCII)
    if found is None:
        raise CommandFailed("--expires takes days or hours: 90d, 12h.")
    return int(found[1]) * _HOURS[found[2]] * 3_600_000


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"


def _prices() -> None:
    """Print a line for each price, and for each model without one the reason."""
    settings = read_price_settings()
    catalogue = _catalogue(settings)
    try:
        prices = load_prices(catalogue, settings.prices_file)
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"PRICES_FILE: {exc}") from exc
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


def _catalogue(settings: PriceSettings) -> Catalogue:
    try:
        return load_catalogue(settings.models_file)
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"MODELS_FILE: {exc}") from exc


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
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migration = commands.add_parser("migrate", help="bring the database's schema up to date")
    migration.set_defaults(command=None)

    prices = commands.add_parser("prices", help="print what each model costs")
    prices.set_defaults(command=_prices)

    budgets = commands.add_parser("budgets", help="look after what callers may spend")
    budgets.set_defaults(table=_books)
    verbs = budgets.add_subparsers(required=True, metavar="COMMAND")
    verbs.add_parser("list", help="every limit, with its subject").set_defaults(command=_list_budgets)
    setting = verbs.add_parser("set", help="set limits, which replace those of the same unit and period")
    setting.add_argument("--usd", action="append", default=[], metavar="5/day")
    setting.add_argument("--pictures", action="append", default=[], metavar="100/month")
    setting.set_defaults(command=_set_budget)
    clearing = verbs.add_parser("clear", help="remove all limits of a subject")
    clearing.set_defaults(command=_clear_budget)
    for one in (setting, clearing):
        one.add_argument("subject", help="a username, the sub of a token, or key:NAME")

    receipts = commands.add_parser("receipts", help="print what requests have cost, the newest first")
    receipts.add_argument(
        "--user", metavar="NAME", help="a username, or the sub of a token; default: everybody"
    )
    receipts.add_argument("--limit", type=int, default=20, metavar="N", help="how many; default: 20")
    receipts.set_defaults(command=_receipts, table=_books)

    users = commands.add_parser("users", help="look after those who may log in")
    users.set_defaults(table=Users)
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
    _keys_parser(commands.add_parser("keys", help="look after API keys"))
    return parser


def _keys_parser(keys: argparse.ArgumentParser) -> None:
    keys.set_defaults(table=Keys)
    verbs = keys.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, command: KeyCommand, summary: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary)
        parser.set_defaults(command=command)
        return parser

    verb("list", _list_keys, "name, state, day of creation, user and limits of every key")
    verb("revoke", _revoke_key, "refuse a key").add_argument("name")
    add = verb("add", _add_key, "add a key and print it")
    add.add_argument("name")
    add.add_argument("--user", required=True, help="whose key it is: what it spends counts for this user too")
    add.add_argument("--operations", help=f"default: all. Of: gen, {', '.join(_OPERATIONS)}")
    add.add_argument("--models", help="ids of the catalogue; default: all")
    add.add_argument("--expires", help="90d or 12h from now; default: never")


if __name__ == "__main__":
    sys.exit(main())
