"""Amounts of budgets as operators write them, and which limits hold."""

import re

import pytest

from app.contract.budgets import in_force, read_budget, read_limit, six_decimals
from app.contract.ledger import Limit, Unit

DAY = Limit("ann", "usd", "day", 5_000_000)


@pytest.mark.parametrize(
    ("unit", "text", "limit"),
    [
        ("usd", "5/day", DAY),
        ("usd", " 0.000001 / month ", Limit("ann", "usd", "month", 1)),
        ("usd", "999999999999.999999/total", Limit("ann", "usd", "total", 10**18 - 1)),
        ("usd", "0/day", Limit("ann", "usd", "day", 0)),
        ("pictures", "100/month", Limit("ann", "pictures", "month", 100)),
    ],
)
def test_a_limit(unit: Unit, text: str, limit: Limit) -> None:
    assert read_limit("ann", unit, text) == limit


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        *(("usd", text) for text in ("", "5", "5/", "/day", "5/week", "5/day/day", "5 USD/day", "-5/day")),
        *(
            ("usd", text)
            for text in ("1e3/day", "5,5/day", ".5/day", "5./day", "0.0000001/day", "\u0665/day")
        ),
        *(("usd", text) for text in ("1000000000000/day", "nan/day", "5/Day")),
        *(("pictures", text) for text in ("5", "1.5/day", "1.0/day")),
    ],
)
def test_what_is_no_limit_is_refused_with_the_form(unit: Unit, text: str) -> None:
    like = {"usd": "5/day or 0.50/month", "pictures": "100/month"}[unit]
    told = f"{text} is not a budget. Write an amount and a period (day, month or total), like {like}"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        read_limit("ann", unit, text)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", []),
        (" ; ", []),
        ("5 USD/day; 100 pictures/month", [("usd", "day", 5_000_000), ("pictures", "month", 100)]),
        ("0.5usd / day;7 USD/total;", [("usd", "day", 500_000), ("usd", "total", 7_000_000)]),
    ],
)
def test_a_budget(text: str, limits: list[tuple[Unit, str, int]]) -> None:
    assert read_budget(text) == tuple(("", *limit) for limit in limits)


@pytest.mark.parametrize(
    "text", ["5 USD", "5/day", "5 EUR/day", "1.5 pictures/day", "5 USD/day, 7 USD/month"]
)
def test_what_is_no_budget_is_refused_with_the_form(text: str) -> None:
    told = (
        f"{text} is not a budget. Write an amount, a unit and a period (day, month or total), "
        "like 5 USD/day; 100 pictures/month"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        read_budget(f"3 pictures/day; {text}")


def test_two_limits_of_a_unit_in_one_period() -> None:
    with pytest.raises(ValueError, match="two limits have the same unit and period"):
        read_budget("5 USD/day; 6 USD/day")


def test_defaults_hold_where_there_is_no_limit_of_ones_own() -> None:
    month, pictures = Limit("", "usd", "month", 1), Limit("", "pictures", "total", 2)
    assert in_force("ann", [DAY], [month, pictures]) == [pictures._replace(scope="ann"), DAY]
    assert in_force("ann", [], [month]) == [month._replace(scope="ann")]


@pytest.mark.parametrize(("micros", "text"), [(0, "0.000000"), (1, "0.000001"), (12_345_600, "12.345600")])
def test_six_decimals(micros: int, text: str) -> None:
    assert six_decimals(micros) == text
