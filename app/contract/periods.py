"""The periods of budgets. Times are milliseconds since 1970 in UTC, days are texts like `2026-11-22`."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args

Period = Literal["day", "month", "total"]
PERIODS: tuple[Period, ...] = get_args(Period)


def day_of(time: int) -> str:
    return _utc(time).date().isoformat()


def period_keys(day: str) -> Mapping[Period, str]:
    """Returns the keys of the counters for a day: the day, its month, and `total`."""
    return {"day": day, "month": day[:7], "total": "total"}


def resets_at(period: Period, day: str) -> int | None:
    """Returns the end of the period that contains the day; None for `total`, which has no end."""
    first = date.fromisoformat(day)
    match period:
        case "day":
            end = first + timedelta(days=1)
        case "month":
            end = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
        case "total":
            return None
    return int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) * 1000


def iso(time: int, precision: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """Returns a time as `2026-11-22T00:00:00Z`."""
    return _utc(time).isoformat(timespec=precision).replace("+00:00", "Z")


def _utc(time: int) -> datetime:
    return datetime.fromtimestamp(time / 1000, UTC)
