"""The ledger's types: wishes, paid calls, budgets, and what the ledger returns.

A wish is one request of a caller that may cost money. A wish makes calls, each of which may be paid:

    reserved ──fence──> sent ──┬──> settled      the vendor served it (a blocked call is settled too)
        │                      ├──> unknown      its outcome is not known: charged, never repeated
        │                      ├──> abandoned    nobody wanted it any more: charged
        └──────────────────────┴──> void         surely not served: nothing is charged

A call reserves its price and its pictures in the budgets of its scopes as long as it is reserved or sent; a
void call gives them back, every other end counts what was charged. What is unknown or abandoned may still
become settled or void, when somebody finds out.

Money is in micro-USD (integers), times are milliseconds since 1970 in UTC. What is a row of a table is a
NamedTuple of its columns: rows are made and changed by the thousand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple, get_args
from uuid import uuid4

CallState = Literal["reserved", "sent", "settled", "unknown", "abandoned", "void"]
WishState = Literal["running", "interrupted", "done"]
"""running: its process works on it. interrupted: it has no answer, although something may be charged: whoever
repeats it goes on with it. done: finished; only with a key its answer is kept.
"""
Unit = Literal["usd", "pictures"]
Period = Literal["day", "month", "total"]
PERIODS: tuple[Period, ...] = get_args(Period)


def new_id() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to be reserved. (`slot`, `attempt`) is unique within its wish.

    `micros`: what it will cost at most, 0 if the model has no price (`priced` false). `samples`: how many
    pictures it will make at most. Its id is part of the names of the pictures.
    """

    slot: int
    model: str
    operation: str
    micros: int
    samples: int
    attempt: int = 1
    priced: bool = True
    id: str = field(default_factory=new_id)


class PaidCall(NamedTuple):
    """A row of `calls`.

    `charged` and `made` count from the end of the call: micro-USD and pictures. `scopes`: a JSON list,
    since a caller's name may hold any character. `day`: the day of the reservation, and with it the month.
    `bucket` and `stem`: set at the fence if pictures will be stored; all their names begin with the stem.
    `text`: what a rewrite answered.
    """

    id: str
    wish: str
    slot: int
    attempt: int
    model: str
    operation: str
    micros: int
    samples: int
    priced: bool
    state: CallState
    charged: int
    made: int
    process: str
    scopes: str
    day: str
    created_at: int
    deadline_at: int
    sent_at: int | None = None
    done_at: int | None = None
    bucket: str | None = None
    stem: str | None = None
    text: str | None = None


class Wish(NamedTuple):
    """A row of `wishes`. `key` is the caller's Idempotency-Key, None without one or when it is free again.

    `status` and `body` are kept for replays until `expires_at`. `replayed`: the answer was told again.
    """

    id: str
    caller: str
    route: str
    key: str | None
    fingerprint: str
    state: WishState
    process: str
    created_at: int
    status: int | None = None
    body: str | None = None
    expires_at: int | None = None
    replayed: bool = False


class Key(NamedTuple):
    """What a wish is found by when its caller repeats it."""

    caller: str
    route: str
    key: str


class StoredPicture(NamedTuple):
    """A row of `pictures`. `bucket` is a bucket's name, or the folder of private copies."""

    call: str
    number: int
    bucket: str
    name: str
    mime_type: str


class Recovered(NamedTuple):
    """How many pictures of an interrupted call are found, and those in buckets by name."""

    made: int = 0
    pictures: tuple[StoredPicture, ...] = ()


class Process(NamedTuple):
    """A row of `processes`."""

    id: str
    host: str
    folder: str
    heartbeat_at: int


class Limit(NamedTuple):
    """A budget: micro-USD or pictures per period."""

    scope: str
    unit: Unit
    period: Period
    amount: int

    @property
    def text(self) -> str:
        """For people: `5.00 USD/day`."""
        unit = "USD" if self.unit == "usd" else "pictures"
        return f"{_amount(self.unit, self.amount)} {unit}/{self.period}"


class Counter(NamedTuple):
    """What a scope has spent and reserved in one period."""

    spent_micros: int = 0
    reserved_micros: int = 0
    spent_pictures: int = 0
    reserved_pictures: int = 0

    def of(self, unit: Unit) -> tuple[int, int]:
        """Returns what is spent and what is reserved."""
        if unit == "usd":
            return self.spent_micros, self.reserved_micros
        return self.spent_pictures, self.reserved_pictures

    def taken(self, unit: Unit) -> int:
        """Returns how much of a budget is gone: spent or reserved."""
        return sum(self.of(unit))

    def plus(self, other: "Counter") -> "Counter":
        return Counter(self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3])

    def minus(self, other: "Counter") -> "Counter":
        return Counter(self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3])


# ── what `begin` and `reserve` return ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Begun:
    """The wish is recorded, and its calls are reserved."""

    wish: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The same request was interrupted and is this process's now. No call was reserved: look at the calls of
    the wish first, some of which may be paid.
    """

    wish: str


@dataclass(frozen=True, slots=True)
class Replay:
    """The same request was finished with this answer."""

    wish: str
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Running:
    """The same request is under way in this process, which may be another one, or dead."""

    wish: str
    process: str


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """The key was used with a different request."""

    wish: str


@dataclass(frozen=True, slots=True)
class OverBudget:
    """A budget has no room. `taken` includes what is reserved; `resets_at` is None for a total."""

    limit: Limit
    taken: int
    resets_at: int | None

    @property
    def sentence(self) -> str:
        """For the caller: `Budget exhausted: 5.00 USD per day, 4.98 spent, resets at 2026-11-22T…Z`."""
        unit = "USD" if self.limit.unit == "usd" else "pictures"
        period = "in total" if self.limit.period == "total" else f"per {self.limit.period}"
        resets = "never resets" if self.resets_at is None else f"resets at {iso(self.resets_at)}"
        limit, taken = (_amount(self.limit.unit, amount) for amount in (self.limit.amount, self.taken))
        return f"Budget exhausted: {limit} {unit} {period}, {taken} spent, {resets}"


@dataclass(frozen=True, slots=True)
class Unpriced:
    """The model has no price, and the scope has a money budget."""

    model: str
    scope: str


@dataclass(frozen=True, slots=True)
class Reserved:
    """The calls are reserved."""


@dataclass(frozen=True, slots=True)
class NotRunning:
    """The wish is finished or unknown: nothing can be reserved for it."""


@dataclass(frozen=True, slots=True)
class Record:
    """A wish with its calls, in the order of their slots and attempts, and their pictures."""

    wish: Wish
    calls: tuple[PaidCall, ...]
    pictures: tuple[StoredPicture, ...]


class Census(NamedTuple):
    """All processes that write the ledger, dead ones included, and the ledger's time."""

    now: int
    processes: tuple[Process, ...]


# ── periods ──────────────────────────────────────────────────────────────────────────────────────────────


def day_of(now: int) -> str:
    return _utc(now).date().isoformat()


def period_keys(day: str) -> Mapping[Period, str]:
    """Returns the names under which a day is counted: the day, its month, and `total`."""
    return {"day": day, "month": day[:7], "total": "total"}


def resets_at(period: Period, day: str) -> int | None:
    """Returns when the period that contains the day ends."""
    first = date.fromisoformat(day)
    match period:
        case "day":
            end = first + timedelta(days=1)
        case "month":
            end = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
        case "total":
            return None
    return int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) * 1000


def _utc(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1000, UTC)


def iso(now: int, precision: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """Returns a time as `2026-11-22T00:00:00Z`."""
    return _utc(now).isoformat(timespec=precision).replace("+00:00", "Z")


def _amount(unit: Unit, amount: int) -> str:
    """Pictures, or dollars with two digits, and with more if there are more."""
    if unit == "pictures":
        return str(amount)
    dollars = f"{amount // 1_000_000}.{amount % 1_000_000:06d}"
    return dollars[:-4] + dollars[-4:].rstrip("0")
