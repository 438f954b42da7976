"""`python -m app.cli budgets …`: what callers can spend."""

import argparse

from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.command import CommandFailed, Commands, on_database
from app.cli.names import printable, usernames
from app.contract.budgets import MAX_SCOPE, read_limit, user_scope
from app.services.budgets import Budgets
from app.services.users import Users, fold


def add_to(commands: Commands) -> None:
    budgets = commands.add_parser("budgets", help="manage what callers can spend")
    verbs = budgets.add_subparsers(required=True, metavar="COMMAND")
    listing = verbs.add_parser("list", help="list all limits with their subjects")
    listing.set_defaults(command=on_database(_list))
    setting = verbs.add_parser("set", help="set limits, which replace those of the same unit and period")
    setting.add_argument("--usd", action="append", default=[], metavar="5/day")
    setting.add_argument("--pictures", action="append", default=[], metavar="100/month")
    setting.set_defaults(command=on_database(_set))
    clearing = verbs.add_parser("clear", help="remove all limits of a subject")
    clearing.set_defaults(command=on_database(_clear))
    for one in (setting, clearing):
        one.add_argument("subject", help="a username, the sub of a token, or key:NAME")


async def _set(database: AsyncEngine, options: argparse.Namespace) -> None:
    caller, scope = await _subject(Users(database), options.subject)
    try:
        limits = [read_limit(scope, "usd", text) for text in options.usd]
        limits += [read_limit(scope, "pictures", text) for text in options.pictures]
    except ValueError as exc:
        raise CommandFailed(exc) from exc
    if not limits:
        raise CommandFailed("Name a limit: --usd 5/day, --pictures 100/month, or both.")
    await Budgets(database).set(limits)
    print(f"{options.subject}: {', '.join(limit.text for limit in await Budgets(database).all(scope))}")
    if caller is None and scope != options.subject:
        print(f"There is no user {options.subject}: this is for tokens whose sub is {options.subject}.")


async def _list(database: AsyncEngine, _options: argparse.Namespace) -> None:
    names = await usernames(database)
    for limit in await Budgets(database).all():
        caller = limit.scope.removeprefix(user_scope(""))
        print(printable(names.get(caller, caller)), limit.text, sep="\t")


async def _clear(database: AsyncEngine, options: argparse.Namespace) -> None:
    _, scope = await _subject(Users(database), options.subject)
    if not await Budgets(database).clear(scope):
        raise CommandFailed(f"{options.subject} has no budget.")
    print(f"Cleared the budget of {options.subject}.")


async def _subject(users: Users, subject: str) -> tuple[str | None, str]:
    """Returns the id of the user with this name, None if there is none, and the subject's scope.

    A subject is a username, `key:` and the name of a key, or the `sub` of tokens.
    """
    is_key = subject.startswith("key:")
    user = None if is_key else await users.by_name(fold(subject))
    scope = subject if is_key else user_scope(user.id if user else subject)
    if len(scope) > MAX_SCOPE:
        raise CommandFailed("This subject is too long.")
    return user.id if user else None, scope
