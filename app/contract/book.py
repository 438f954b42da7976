"""The rows that a batch of the ledger's commands works on, their changes, and the rules of budgets."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from app.contract.budgets import in_force
from app.contract.ledger import (
    Counter,
    Key,
    Limit,
    NewCall,
    OverBudget,
    PaidCall,
    Process,
    StoredPicture,
    Unpriced,
    Wish,
)
from app.contract.periods import day_of, period_keys, resets_at

_NOTHING = Counter()


def share(call: PaidCall) -> Counter:
    """Returns what a call adds to the counters of its scopes."""
    match call.state:
        case "reserved" | "sent":
            return Counter(reserved_micros=call.micros, reserved_pictures=call.samples)
        case "settled":
            return Counter(spent_micros=call.charged, spent_pictures=call.made)
        case "unknown" | "abandoned":
            return Counter(spent_micros=call.charged, spent_pictures=call.samples)
        case "void":
            return _NOTHING


@dataclass(slots=True)
class Needs:
    """The rows that a batch works on.

    `of_wishes`: the calls of these wishes; `pictures_of`: the pictures of these wishes. `scopes`: their
    limits, and their counters of the present periods. `running_of`: the running wishes of these processes,
    with their calls. `open_of`: the reserved and sent calls of these processes. `overdue`: all reserved and
    sent calls past their deadlines, and all expired wishes.
    """

    keys: set[Key] = field(default_factory=set)
    wishes: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    of_wishes: set[str] = field(default_factory=set)
    pictures_of: set[str] = field(default_factory=set)
    scopes: set[str] = field(default_factory=set)
    running_of: set[str] = field(default_factory=set)
    open_of: set[str] = field(default_factory=set)
    overdue: bool = False
    processes: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """Settings of the ledger.

    `defaults`: the limits of a caller without limits in that unit; their scope is ignored. `call_ms`: how
    long a call can be reserved, and then sent. `keep_ms`: how long an answer is kept.
    """

    defaults: tuple[Limit, ...] = ()
    call_ms: int = 600_000
    keep_ms: int = 86_400_000


class Book:
    """The rows of one batch at the time `now`, and the changes that the batch makes.

    `scopes`: those with loaded limits, and loaded counters of the present periods.
    """

    def __init__(self, now: int, terms: Terms, scopes: Collection[str] = ()) -> None:
        self.now = now
        self.scopes = scopes
        self.terms = terms
        self.today = day_of(now)
        self.wishes: dict[str, Wish] = {}
        self.calls: dict[str, PaidCall] = {}
        self.pictures: dict[tuple[str, int], StoredPicture] = {}
        self.limits: dict[str, list[Limit]] = defaultdict(list)
        self.counters: dict[tuple[str, str], Counter] = {}
        self.processes: dict[str, Process] = {}
        self.changed_wishes: dict[str, Wish] = {}
        self.changed_calls: dict[str, PaidCall] = {}
        self.new_calls: dict[str, PaidCall] = {}
        self.new_pictures: list[StoredPicture] = []
        self.beating: dict[str, Process] = {}
        self.buried: list[str] = []
        self.forgotten: list[str] = []
        self._added: dict[tuple[str, str], Counter] = {}
        self._by_key: dict[Key, str] = {}
        self._calls_of: dict[str, list[str]] = defaultdict(list)

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────────

    def load_wish(self, wish: Wish) -> None:
        self.wishes[wish.id] = wish
        if wish.key is not None:
            self._by_key[Key(wish.caller, wish.route, wish.key)] = wish.id

    def load_call(self, call: PaidCall) -> None:
        if call.id not in self.calls:
            self._calls_of[call.wish].append(call.id)
        self.calls[call.id] = call

    def load_picture(self, picture: StoredPicture) -> None:
        self.pictures[picture.call, picture.number] = picture

    # ── reading and changing ─────────────────────────────────────────────────────────────────────────────

    def with_key(self, key: Key) -> Wish | None:
        """Returns the wish with the key, or None. An expired wish loses its key."""
        wish = self.wishes.get(self._by_key.get(key, ""))
        if wish and wish.expires_at is not None and wish.expires_at <= self.now:
            self.put_wish(wish._replace(key=None, body=None))
            return None
        return wish

    def calls_of(self, wish: str) -> list[PaidCall]:
        return [self.calls[call] for call in self._calls_of[wish]]

    def put_wish(self, wish: Wish) -> None:
        old = self.wishes.get(wish.id)
        if old and old.key is not None and wish.key is None:
            self._by_key.pop(Key(old.caller, old.route, old.key), None)
        self.load_wish(wish)
        self.changed_wishes[wish.id] = wish

    def forget_wish(self, wish: Wish) -> None:
        """Delete a wish that has no calls."""
        if wish.key is not None:
            self._by_key.pop(Key(wish.caller, wish.route, wish.key), None)
        self.wishes.pop(wish.id)
        self.changed_wishes.pop(wish.id, None)
        self.forgotten.append(wish.id)

    def put_call(self, call: PaidCall) -> None:
        """Change or add a call, and add the difference to the counters of its scopes."""
        old = self.calls.get(call.id)
        difference = share(call).minus(share(old) if old else _NOTHING)
        self.load_call(call)
        new = not old or call.id in self.new_calls
        (self.new_calls if new else self.changed_calls)[call.id] = call
        if difference == _NOTHING:
            return
        at = call.scopes, call.day
        self._added[at] = self._added.get(at, _NOTHING).plus(difference)
        for scope in json.loads(call.scopes):
            if scope in self.scopes:
                for period in period_keys(call.day).values():
                    self.counters[scope, period] = self._counter(scope, period).plus(difference)

    @property
    def added(self) -> dict[tuple[str, str], Counter]:
        """What the batch adds to the counters, by scope and period key."""
        added: dict[tuple[str, str], Counter] = {}
        for (scopes, day), difference in self._added.items():
            for scope in json.loads(scopes):
                for period in period_keys(day).values():
                    added[scope, period] = added.get((scope, period), _NOTHING).plus(difference)
        return added

    def _counter(self, scope: str, period: str) -> Counter:
        return self.counters.get((scope, period), _NOTHING)

    def refusal(self, calls: Sequence[NewCall], scopes: Sequence[str]) -> OverBudget | Unpriced | None:
        """Returns why the calls cannot be reserved, or None. Of several full budgets, the first counts.

        Raises ValueError if one of the calls is recorded already.
        """
        if any(call.id in self.calls for call in calls):
            raise ValueError("this call is recorded already")
        limits = [limit for n, scope in enumerate(scopes) for limit in self._limits(scope, first=n == 0)]
        in_usd = next((limit for limit in limits if limit.unit == "usd"), None)
        unpriced = next((call for call in calls if not call.priced), None)
        if in_usd and unpriced:
            return Unpriced(unpriced.model, in_usd.scope)
        wanted = {"usd": sum(call.micros for call in calls), "pictures": sum(call.samples for call in calls)}
        for limit in limits:
            taken = self._counter(limit.scope, period_keys(self.today)[limit.period]).taken(limit.unit)
            if wanted[limit.unit] and taken + wanted[limit.unit] > limit.amount:
                return OverBudget(limit, taken, resets_at(limit.period, self.today))
        return None

    def _limits(self, scope: str, *, first: bool) -> list[Limit]:
        return in_force(scope, self.limits.get(scope, ()), self.terms.defaults if first else ())

    def reserve(self, wish: str, calls: Iterable[NewCall], scopes: Sequence[str], process: str) -> None:
        for call in calls:
            self.put_call(
                PaidCall(
                    id=call.id,
                    wish=wish,
                    slot=call.slot,
                    attempt=call.attempt,
                    model=call.model,
                    operation=call.operation,
                    micros=call.micros,
                    samples=call.samples,
                    priced=call.priced,
                    state="reserved",
                    charged=0,
                    made=0,
                    process=process,
                    scopes=json.dumps(scopes),
                    day=self.today,
                    created_at=self.now,
                    deadline_at=self.now + self.terms.call_ms,
                )
            )

    def finish(self, wish: Wish, status: int | None, body: str | None) -> bool:
        """End a wish. See `Finish`."""
        calls = self.calls_of(wish.id)
        if not calls:
            self.forget_wish(wish)
            return False
        for call in calls:
            if call.state == "reserved":
                self.put_call(call._replace(state="void", done_at=self.now))
        ended = wish._replace(state="done", status=status, expires_at=self.now + self.terms.keep_ms)
        if wish.key is None or all(call.state == "void" for call in self.calls_of(wish.id)):
            self.put_wish(ended._replace(key=None, body=None, expires_at=None))
            return False
        self.put_wish(ended._replace(state="interrupted" if status is None else "done", body=body))
        return True
