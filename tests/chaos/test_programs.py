"""The load and chaos programs of bench/, with small numbers. No test looks at what depends on the clock."""

from collections.abc import Iterable

import pytest

from bench import crowd, kills, leavers, neighbours, refusals, soak, stops, storage_trouble
from bench.chaos import Row
from tests.chaos import money, storm

TIMES = stops.Times(model=2, grace=2, quick=0.2, spare=5)
CASES = [
    case
    for case in storage_trouble.CASES
    if case.name
    in (
        "storage hangs",
        "spool full",
        "vendor's answers never end",
        "one sample of four refused",
    )
    and storage_trouble.possible(case)
]


def missed(rows: Iterable[Row]) -> list[str]:
    return [str(row) for row in rows if row.missed and not row.clock]


@pytest.mark.parametrize("kind", crowd.KINDS)
def test_a_crowd_is_served_at_once(kind: str) -> None:
    assert not missed(crowd.run(70, kind, seconds=0.5))


@pytest.mark.parametrize("two", [False, True], ids=["one gateway", "two gateways"])
def test_a_kill_loses_no_picture_that_had_arrived(two: bool) -> None:
    assert not missed(kills.run(5, two=two).rows())


def test_kills_cost_nothing_on_sqlite() -> None:
    assert not missed(money.run(25))


def test_kills_cost_nothing_on_postgresql(postgres_server: str) -> None:
    assert not missed(money.run(25, postgres=postgres_server))


def test_callers_who_leave_cost_nothing() -> None:
    assert not missed(leavers.run(100, spare=50).rows())


@pytest.mark.parametrize("name", ["a slow model", "storage hangs", stops.KILLED, stops.SECOND])
def test_a_stop_loses_no_picture_that_had_arrived(name: str) -> None:
    assert not missed(stops.run(name, TIMES).rows())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_trouble_is_told_and_passes(case: storage_trouble.Case) -> None:
    assert not missed(storage_trouble.run(case, outage_seconds=2))


def test_nobody_is_refused_because_of_a_neighbour() -> None:
    assert not missed(neighbours.run(neighbours.HANGING, times=1))


def test_nothing_grows_under_load_with_faults() -> None:
    assert not missed(soak.run(6))


def test_clients_that_retry_are_paid_for_once(postgres_server: str) -> None:
    assert not missed(storm.run(200, postgres=postgres_server))


def test_refusals_cost_nothing() -> None:
    for rows in refusals.run(seconds=1).values():
        assert not missed(rows)
