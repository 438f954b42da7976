"""The ledger's rules, on books without a database."""

from typing import get_args

import pytest

from app.contract.book import Book, Terms, share
from app.contract.bookkeeping import Begin, Close, Ending, Fence, Finish, Reserve
from app.contract.ledger import (
    Begun,
    CallState,
    Counter,
    Limit,
    NewCall,
    NotRunning,
    OtherRequest,
    OverBudget,
    Replay,
    Reserved,
    Running,
    TakenOver,
    Unit,
    Unpriced,
)
from app.contract.periods import Period
from app.contract.recovery import Bury, Sweep

NOW = 1_795_000_000_000
SCOPES = ("ann", "key:web")


def begin(*calls: NewCall, key: str | None = "k", fingerprint: str = "f", wish: str = "w1") -> Begin:
    return Begin(wish, "ann", "/gen", key, fingerprint, calls, SCOPES, "p1")


def call(
    id: str = "c1", *, slot: int = 0, micros: int = 100, samples: int = 1, priced: bool = True
) -> NewCall:
    return NewCall(slot, "model", "gen", micros, samples, priced=priced, id=id)


def book(*limits: Limit, defaults: tuple[Limit, ...] = ()) -> Book:
    book = Book(NOW, Terms(defaults), SCOPES)
    for limit in limits:
        book.limits[limit.scope].append(limit)
    return book


def in_state(state: CallState) -> Book:
    """A book with one wish, whose one call is in this state."""
    started = book()
    begin(call()).apply(started)
    if state not in ("reserved", "void"):
        Fence("c1", "bucket", "stem").apply(started)
    if state in get_args(Ending):
        assert Close("c1", state, 70, 1).apply(started)  # type: ignore[arg-type]
    assert started.calls["c1"].state == state
    return started


MAY_END: dict[CallState, set[Ending]] = {
    "reserved": {"void"},
    "sent": {"settled", "unknown", "abandoned", "void"},
    "unknown": {"settled", "void"},
    "abandoned": {"settled", "void"},
    "settled": set(),
    "void": set(),
}


@pytest.mark.parametrize("state", get_args(CallState))
@pytest.mark.parametrize("ending", get_args(Ending))
def test_how_a_call_may_end(state: CallState, ending: Ending) -> None:
    started = in_state(state)
    before = started.calls["c1"]
    changed = Close("c1", ending, 70, 1).apply(started)
    assert changed == (ending in MAY_END[state])
    assert (started.calls["c1"] != before) == changed
    for scope in SCOPES:
        for period in ("2026-11-18", "2026-11", "total"):
            assert started.added[scope, period] == share(started.calls["c1"])


@pytest.mark.parametrize(
    ("state", "counted"),
    [
        ("reserved", Counter(0, 100, 0, 1)),
        ("sent", Counter(0, 100, 0, 1)),
        ("settled", Counter(70, 0, 1, 0)),
        ("unknown", Counter(100, 0, 1, 0)),
        ("abandoned", Counter(100, 0, 1, 0)),
        ("void", Counter()),
    ],
)
def test_what_a_call_counts(state: CallState, counted: Counter) -> None:
    assert share(in_state(state).calls["c1"]) == counted


@pytest.mark.parametrize("state", get_args(CallState))
def test_only_a_reserved_call_passes_the_fence(state: CallState) -> None:
    started = in_state(state)
    assert Fence("c1", "bucket", "stem").apply(started) == (state == "reserved")
    assert not Fence("other", None, None).apply(started)


@pytest.mark.parametrize("state", get_args(CallState))
@pytest.mark.parametrize("status", [200, None])
def test_what_becomes_of_a_finished_wish(state: CallState, status: int | None) -> None:
    started = in_state(state)
    kept = Finish("w1", "p1", status, "body").apply(started)
    assert kept == (state not in ("reserved", "void"))
    wish = started.wishes["w1"]
    again = begin(call("c2"), wish="w2").apply(started)
    other = begin(call("c3"), wish="w3", fingerprint="g").apply(started)
    if not kept:
        assert started.calls["c1"].state == "void"
        assert (wish.state, wish.key, again) == ("done", None, Begun("w2"))
    elif status:
        assert again == Replay("w1", 200, "body")
        assert started.wishes["w1"].replayed
    else:
        assert again == TakenOver("w1")
        assert "c2" not in started.calls
        assert begin(wish="w4").apply(started) == Running("w1", "p1")
    assert isinstance(other, OtherRequest)


def test_a_key_is_its_callers_and_its_routes() -> None:
    started = book()
    assert begin().apply(started) == Begun("w1")
    assert begin(wish="w2").apply(started) == Running("w1", "p1")
    assert Begin("w3", "ann", "/pro", "k", "f", (), (), "p1").apply(started) == Begun("w3")
    assert Begin("w4", "bob", "/gen", "k", "f", (), (), "p1").apply(started) == Begun("w4")
    assert begin(wish="w5", key=None).apply(started) == Begun("w5")
    assert begin(wish="w6", key=None).apply(started) == Begun("w6")


def test_an_answer_expires() -> None:
    started = in_state("settled")
    Finish("w1", "p1", 200, "body").apply(started)
    started.now += Terms().keep_ms - 1
    assert begin(wish="w2").apply(started) == Replay("w1", 200, "body")
    started.now += 1
    assert begin(wish="w2", fingerprint="g").apply(started) == Begun("w2")
    assert started.wishes["w1"].key is None
    assert started.wishes["w1"].body is None


def test_a_process_that_was_thought_dead_does_not_finish_what_another_has_taken_over() -> None:
    started = in_state("unknown")
    Finish("w1", "p1").apply(started)
    assert Begin("w2", "ann", "/gen", "k", "f", (), (), "p2").apply(started) == TakenOver("w1")
    assert Reserve("w1", (call("c2", slot=1),), SCOPES, "p1").apply(started) == NotRunning()
    assert Reserve("w1", (call("c2", slot=1),), SCOPES, "p2").apply(started) == Reserved()
    assert not Finish("w1", "p1", 504, "late").apply(started)
    assert started.calls["c2"].state == "reserved"
    assert started.wishes["w1"].state == "running"


@pytest.mark.parametrize("unit", get_args(Unit))
@pytest.mark.parametrize("period", get_args(Period))
@pytest.mark.parametrize("scope", SCOPES)
def test_a_budget_is_full_to_the_last(unit: Unit, period: Period, scope: str) -> None:
    started = book(Limit(scope, unit, period, 3))
    for n in range(3):
        assert isinstance(begin(call(f"c{n}", micros=1), key=None, wish=f"w{n}").apply(started), Begun)
    refused = begin(call("c3", micros=1), wish="w3").apply(started)
    assert isinstance(refused, OverBudget)
    assert (refused.limit, refused.taken) == (Limit(scope, unit, period, 3), 3)
    assert "w3" not in started.wishes
    assert "c3" not in started.new_calls
    assert Close("c0", "void").apply(started)
    assert begin(call("c3", micros=1), wish="w3").apply(started) == Begun("w3")


def test_calls_are_reserved_together_or_not_at_all() -> None:
    started = book(Limit("ann", "pictures", "day", 3))
    assert begin(call("c1", samples=2), wish="w1").apply(started) == Begun("w1")
    further = (call("c2", slot=1), call("c3", slot=2))
    assert isinstance(Reserve("w1", further, SCOPES, "p1").apply(started), OverBudget)
    assert set(started.calls) == {"c1"}
    assert Reserve("w1", further[:1], SCOPES, "p1").apply(started) == Reserved()


def test_what_costs_nothing_passes_a_full_budget() -> None:
    started = book(Limit("ann", "pictures", "day", 0))
    assert begin(call(samples=0)).apply(started) == Begun("w1")


def test_defaults_are_for_callers_without_limits_of_their_own_in_that_unit() -> None:
    everybody = (Limit("", "usd", "day", 0), Limit("", "pictures", "day", 5))
    started = book(
        Limit("ann", "usd", "month", 1000), Limit("key:web", "usd", "day", 1000), defaults=everybody
    )
    assert begin(call(samples=5)).apply(started) == Begun("w1")
    refused = begin(call("c2"), wish="w2", key=None).apply(started)
    assert isinstance(refused, OverBudget)
    assert refused.limit == Limit("ann", "pictures", "day", 5)


def test_a_model_without_a_price_is_refused_before_an_exhausted_budget() -> None:
    started = book(Limit("ann", "pictures", "day", 0), Limit("key:web", "usd", "day", 10**9))
    assert begin(call(micros=0, priced=False)).apply(started) == Unpriced("model", "key:web")
    without = book(Limit("ann", "pictures", "day", 1))
    assert begin(call(micros=0, priced=False)).apply(without) == Begun("w1")


@pytest.mark.parametrize("state", get_args(CallState))
def test_a_dead_process_is_buried_when_none_of_its_calls_is_open(state: CallState) -> None:
    started = in_state(state)
    lost = Sweep(("p1",)).apply(started)
    assert [one.id for one in lost] == (["c1"] if state == "sent" else [])
    buried = Bury("p1").apply(started)
    assert buried == (state != "sent")
    if state in ("reserved", "void"):
        assert (started.calls["c1"].state, started.wishes["w1"].key) == ("void", None)
    else:
        assert started.wishes["w1"].state == ("interrupted" if buried else "running")


def test_a_deadline_holds_for_living_processes_too() -> None:
    for state in ("reserved", "sent"):
        started = in_state(state)
        started.now += Terms().call_ms - 1
        assert Sweep(()).apply(started) == ()
        assert started.calls["c1"].state == state
        started.now += 1
        assert len(Sweep(()).apply(started)) == (state == "sent")
        assert started.calls["c1"].state == ("void" if state == "reserved" else "sent")
