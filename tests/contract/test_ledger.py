"""Periods, and the sentence of an exhausted budget."""

from datetime import UTC, datetime

import pytest

from app.contract.ledger import Counter, Limit, OverBudget, Unit
from app.contract.periods import Period, day_of, period_keys, resets_at


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_day_begins_at_midnight_in_utc() -> None:
    assert day_of(ms("2026-11-21T23:59:59.999")) == "2026-11-21"
    assert day_of(ms("2026-11-22T00:00:00")) == "2026-11-22"
    assert period_keys("2026-11-22") == {"day": "2026-11-22", "month": "2026-11", "total": "total"}


@pytest.mark.parametrize(
    ("period", "day", "end"),
    [
        ("day", "2026-11-21", "2026-11-22"),
        ("day", "2026-12-31", "2027-01-01"),
        ("month", "2026-11-21", "2026-12-01"),
        ("month", "2026-12-31", "2027-01-01"),
        ("month", "2028-01-31", "2028-02-01"),
        ("month", "2028-02-29", "2028-03-01"),
    ],
)
def test_the_end_of_a_period(period: Period, day: str, end: str) -> None:
    assert resets_at(period, day) == ms(end)


def test_a_total_has_no_end() -> None:
    assert resets_at("total", "2026-11-21") is None


@pytest.mark.parametrize(
    ("unit", "period", "amount", "taken", "sentence"),
    [
        ("usd", "day", 5_000_000, 4_980_000, "5.00 USD per day, 4.98 spent, resets at 2026-11-22T00:00:00Z"),
        ("usd", "month", 50_000, 4_999, "0.05 USD per month, 0.004999 spent, resets at 2026-12-01T00:00:00Z"),
        ("usd", "total", 12_345_600_000, 0, "12345.60 USD in total, 0.00 spent, never resets"),
        ("pictures", "day", 10, 10, "10 pictures per day, 10 spent, resets at 2026-11-22T00:00:00Z"),
    ],
)
def test_the_sentence(unit: Unit, period: Period, amount: int, taken: int, sentence: str) -> None:
    over = OverBudget(Limit("ann", unit, period, amount), taken, resets_at(period, "2026-11-21"))
    assert over.sentence == f"Budget exhausted: {sentence}"


def test_what_is_reserved_is_taken() -> None:
    counter = Counter(1, 2, 10, 20)
    assert (counter.taken("usd"), counter.taken("pictures")) == (3, 30)
    assert counter.plus(counter).minus(counter) == counter
