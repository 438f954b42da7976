"""`python -m app.cli receipts`: prints what requests have cost."""

import argparse

from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.command import Commands, on_database
from app.cli.names import printable, usernames
from app.contract.budgets import six_decimals
from app.contract.periods import iso
from app.services.receipts import BookedWish, Receipts
from app.services.users import Users, fold

_PAGE = 100


def add_to(commands: Commands) -> None:
    receipts = commands.add_parser("receipts", help="print what requests have cost, the newest first")
    receipts.add_argument(
        "--user", metavar="NAME", help="a username, or the sub of a token; default: all callers"
    )
    receipts.add_argument("--limit", type=int, default=20, metavar="N", help="how many receipts; default: 20")
    receipts.set_defaults(command=on_database(_print))


async def _print(database: AsyncEngine, options: argparse.Namespace) -> None:
    """Print a line for each receipt, the newest first."""
    names = await usernames(database)
    caller = None
    if options.user is not None:
        user = await Users(database).by_name(fold(options.user))
        caller = user.id if user else options.user
    left, after = options.limit, None
    while left > 0:
        page = await Receipts(database).page(caller, limit=min(left, _PAGE), after=after)
        for one in page.receipts:
            print(*_receipt(one, names), sep="\t")
        left, after = left - _PAGE, page.next
        if after is None:
            return


def _receipt(one: BookedWish, names: dict[str, str]) -> tuple[str, ...]:
    states = ",".join(dict.fromkeys(call.state for call in one.calls))
    cost = six_decimals(one.charged) + ("" if one.priced else " (unpriced)")
    name = printable(names.get(one.caller, one.caller))
    return iso(one.created_at), name, one.operation, cost, states, f"{len(one.pictures)}", one.id
