"""Reading budgets that operators write, and finding the limits that apply to a scope.

A budget is a limit of micro-USD or pictures per period. Its scope is `user:` with the id of a user or the
subject of a token, or `key:` with the name of an API key.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import get_args

from app.contract.ledger import Limit, Unit
from app.contract.periods import PERIODS

UNITS: tuple[Unit, ...] = get_args(Unit)
MAX_SCOPE = 255
"""Characters, as in the tables."""
_MAX_CALLER = MAX_SCOPE - len("user:")

_AMOUNTS: dict[Unit, re.Pattern[str]] = {
    "usd": re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?"),
    "pictures": re.compile(r"([0-9]{1,12})()"),
}
_LIKE: dict[Unit, str] = {"usd": "5/day or 0.50/month", "pictures": "100/month"}
_IN_A_LIST = re.compile(r"(.+?)\s*(usd|pictures)\s*(/.*)", re.IGNORECASE)


def user_scope(caller: str) -> str:
    """Returns the scope of a caller: the id of a user, or the subject of a token.

    A subject that is too long for the tables is replaced by its SHA-256.
    """
    if len(caller) > _MAX_CALLER:
        caller = f"sha256:{hashlib.sha256(caller.encode()).hexdigest()}"
    return f"user:{caller}"


def read_limit(scope: str, unit: Unit, text: str) -> Limit:
    """Returns the limit that a text like `5/day` means: an amount in the unit, per period.

    Raises ValueError with a sentence that shows how to write it.
    """
    amount, _, period = (part.strip() for part in text.partition("/"))
    found = _AMOUNTS[unit].fullmatch(amount)
    if not found or period not in PERIODS:
        raise ValueError(
            f"{text.strip()} is not a budget. Write an amount and a period (day, month or total), "
            f"like {_LIKE[unit]}"
        )
    whole = int(found[1])
    if unit == "usd":
        whole = whole * 1_000_000 + int((found[2] or "").ljust(6, "0"))
    return Limit(scope, unit, period, whole)


def read_budget(text: str) -> tuple[Limit, ...]:
    """Returns the limits that a text like `5 USD/day; 100 pictures/month` means. Their scope is empty.

    An empty text has no limits. Raises ValueError with a sentence that shows how to write them.
    """
    limits = []
    for one in filter(None, map(str.strip, text.split(";"))):
        try:
            found = _IN_A_LIST.fullmatch(one)
            if not found:
                raise ValueError
            limits.append(
                read_limit("", "usd" if found[2].lower() == "usd" else "pictures", found[1] + found[3])
            )
        except ValueError:
            raise ValueError(
                f"{one} is not a budget. Write an amount, a unit and a period (day, month or total), "
                "like 5 USD/day; 100 pictures/month"
            ) from None
    if len({(limit.unit, limit.period) for limit in limits}) < len(limits):
        raise ValueError("two limits have the same unit and period: leave out one of them")
    return tuple(limits)


def in_force(scope: str, own: Iterable[Limit], defaults: Iterable[Limit] = ()) -> list[Limit]:
    """Returns the limits of a scope, in the order in which they are checked.

    These are its `own` limits, and the defaults for each unit without an own limit.
    """
    limits = list(own)
    units = {limit.unit for limit in limits}
    limits += [limit._replace(scope=scope) for limit in defaults if limit.unit not in units]
    return sorted(limits, key=lambda limit: (limit.unit, PERIODS.index(limit.period)))


def six_decimals(micros: int) -> str:
    """Returns micro-USD as a text in USD, for programs: `0.040000`."""
    return f"{micros // 1_000_000}.{micros % 1_000_000:06}"
