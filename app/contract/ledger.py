"""The ledger's types: wishes, paid calls, budgets, and the outcomes of commands.

A wish is one request of a caller that can cost money. It makes calls, each of which can be charged:

    reserved ──fence──> sent ──┬──> settled      the vendor served it, or blocked the request
        │                      ├──> unknown      the outcome is not known: charged, never repeated
        │                      ├──> abandoned    cancelled after it was sent: charged
        └──────────────────────┴──> void         certainly not served: nothing is charged

While a call is reserved or sent, its price and its pictures are reserved in the budgets of its scopes. A void
call gives them back. Every other end counts what is charged. An unknown or abandoned call can still become
settled or void when its outcome is found.

Money is in micro-USD (integers), times are milliseconds since 1970 in UTC. A row of a table is a NamedTuple
of its columns, because thousands of rows are made and changed.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from uuid import uuid4

from app.contract.periods import Period, iso

CallState = Literal["reserved", "sent", "settled", "unknown", "abandoned", "void"]
WishState = Literal["running", "interrupted", "done"]
"""running: its process works on it. interrupted: it has no answer, although something may be charged; a
repeated request continues it. done: finished; its answer is kept only if it has a key.
"""
Unit = Literal["usd", "pictures"]


def new_id() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to reserve. The pair of `slot` and `attempt` is unique within its wish.

    `micros`: the most that it can cost; 0 if the model has no price (`priced` is false). `samples`: the most
    pictures that it can make. The id is part of the names of the pictures.
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

    `charged` (micro-USD) and `made` (pictures) are 0 until the call ends. `scopes`: a JSON list, since a
    caller's name can contain any character. `day`: the day of the reservation, in whose budgets the call
    counts. `bucket` and `stem`: set at the fence if pictures will be stored; their names begin with the stem.
    `text`: the text that a rewrite returned.
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
    """A row of `wishes`. `key` is the caller's Idempotency-Key; None without one, or when it is free again.

    `status` and `body` are kept for replays until `expires_at`. `replayed`: the answer was sent again.
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
    """By this the ledger finds the wish of a repeated request."""

    caller: str
    route: str
    key: str


class StoredPicture(NamedTuple):
    """A row of `pictures`. `bucket` is the name of a bucket, or the folder of private pictures."""

    call: str
    number: int
    bucket: str
    name: str
    mime_type: str


class Recovered(NamedTuple):
    """The pictures of an interrupted call that were found: how many, and the names of those in buckets."""

    made: int = 0
    pictures: tuple[StoredPicture, ...] = ()


class Process(NamedTuple):
    """A row of `processes`."""

    id: str
    host: str
    folder: str
    heartbeat_at: int


class Limit(NamedTuple):
    """A budget: an amount of micro-USD or pictures per period."""

    scope: str
    unit: Unit
    period: Period
    amount: int

    @property
    def text(self) -> str:
        """The budget for people: `5.00 USD/day`."""
        unit = "USD" if self.unit == "usd" else "pictures"
        return f"{_amount(self.unit, self.amount)} {unit}/{self.period}"


class Counter(NamedTuple):
    """The amounts that a scope has spent and reserved in one period."""

    spent_micros: int = 0
    reserved_micros: int = 0
    spent_pictures: int = 0
    reserved_pictures: int = 0

    def of(self, unit: Unit) -> tuple[int, int]:
        """Returns the spent and the reserved amount."""
        if unit == "usd":
            return self.spent_micros, self.reserved_micros
        return self.spent_pictures, self.reserved_pictures

    def taken(self, unit: Unit) -> int:
        """Returns the part of a budget that is not free: spent and reserved."""
        return sum(self.of(unit))

    def plus(self, other: "Counter") -> "Counter":
        return Counter(self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3])

    def minus(self, other: "Counter") -> "Counter":
        return Counter(self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3])


# ── outcomes of commands ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Begun:
    """The wish is recorded, and its calls are reserved."""

    wish: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The same request was interrupted, and this process continues it.

    No call is reserved: look at the calls of the wish first, since some may be charged.
    """

    wish: str


@dataclass(frozen=True, slots=True)
class Replay:
    """The same request is finished, with this answer."""

    wish: str
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Running:
    """The same request is under way in `process`, which can be another process than this one, or dead."""

    wish: str
    process: str


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """The key was used with a different request."""

    wish: str


@dataclass(frozen=True, slots=True)
class OverBudget:
    """A budget has no room. `taken` includes reserved amounts; `resets_at` is None for a total."""

    limit: Limit
    taken: int
    resets_at: int | None

    @property
    def sentence(self) -> str:
        """For the caller: `Budget exhausted: 5.00 USD per day, 4.98 spent, resets at
        2026-11-22T00:00:00Z`."""
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
    """A wish with its calls, ordered by slot and attempt, and their pictures."""

    wish: Wish
    calls: tuple[PaidCall, ...]
    pictures: tuple[StoredPicture, ...]


class Census(NamedTuple):
    """All processes that write the ledger, including dead ones, and the ledger's time."""

    now: int
    processes: tuple[Process, ...]


def _amount(unit: Unit, amount: int) -> str:
    """Returns `7` pictures, or dollars with at least two decimals: `5.00`, `0.0042`."""
    if unit == "pictures":
        return str(amount)
    dollars = f"{amount // 1_000_000}.{amount % 1_000_000:06d}"
    return dollars[:-4] + dollars[-4:].rstrip("0")
