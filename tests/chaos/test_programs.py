"""The load and chaos programs, with small numbers. No test looks at what depends on the clock."""

import subprocess
import sys
from collections.abc import Iterable

import pytest

from tests.chaos import money, storm
from tools.rig.processes import ROOT
from tools.rig.report import BY_THE_CLOCK, MISSED, Row


def missed(rows: Iterable[Row]) -> list[str]:
    return [str(row) for row in rows if row.missed and not row.clock]


def missed_by(program: str, *arguments: str) -> list[str]:
    """Runs a program of bench/ as its users do. Returns the lines of its report that are not as wanted."""
    command = [sys.executable, "-m", f"bench.{program}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "needs root" in done.stdout:
        pytest.skip(done.stdout)
    assert done.stdout.startswith("== "), done.stderr
    lines = [line for line in done.stdout.splitlines() if MISSED in line]
    assert done.returncode == bool(lines), done.stderr
    return [line for line in lines if BY_THE_CLOCK not in line]


@pytest.mark.parametrize("kind", ["text-to-image", "gen"])
def test_a_crowd_is_served_at_once(kind: str) -> None:
    assert not missed_by("crowd", "--callers", "70", "--kinds", kind, "--seconds", "2")


@pytest.mark.parametrize(
    "more", [pytest.param((), id="one gateway"), pytest.param(("--two",), id="two gateways")]
)
def test_a_kill_loses_no_picture_that_had_arrived(more: tuple[str, ...]) -> None:
    assert not missed_by("kills", "--rounds", "5", *more)


def test_kills_cost_nothing_on_sqlite() -> None:
    assert not missed(money.run(25))


def test_kills_cost_nothing_on_postgresql(postgres_server: str) -> None:
    assert not missed(money.run(25, postgres=postgres_server))


def test_callers_who_leave_cost_nothing() -> None:
    assert not missed_by("leavers", "--hang-ups", "100", "--spare", "50")


@pytest.mark.parametrize(
    "case", ["a slow model", "storage hangs", "storage hangs, killed within the grace", "a second SIGTERM"]
)
def test_a_stop_loses_no_picture_that_had_arrived(case: str) -> None:
    seconds = ("--model-seconds", "2", "--grace", "2", "--quick-seconds", "0.2", "--spare-seconds", "5")
    assert not missed_by("stops", "--cases", case, *seconds)


@pytest.mark.parametrize(
    "case", ["storage hangs", "spool full", "vendor's answers never end", "one sample of four refused"]
)
def test_trouble_is_told_and_passes(case: str) -> None:
    assert not missed_by("storage_trouble", "--cases", case)


def test_nobody_is_refused_because_of_a_neighbour() -> None:
    assert not missed_by("neighbours", "--cases", "200 requests for a model that hangs", "--times", "1")


def test_nothing_grows_under_load_with_faults() -> None:
    assert not missed_by("soak", "--minutes", "0.1")


def test_clients_that_retry_are_paid_for_once(postgres_server: str) -> None:
    assert not missed(storm.run(200, postgres=postgres_server))


def test_refusals_cost_nothing() -> None:
    assert not missed_by("refusals", "--seconds", "1")
