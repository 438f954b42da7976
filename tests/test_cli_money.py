"""`python -m app.cli budgets` and `receipts`, on a real database."""

import asyncio
from collections.abc import Callable

import pytest

from app import cli
from app.contract.ledger import Begun, Limit, NewCall, OverBudget
from app.db import open_database
from app.services.users import Users
from tests.storage.ledgers import opened
from tools.rig import ends

Result = tuple[int, str, str]
Run = Callable[..., Result]

NOON = 1_795_089_600_000  # 2026-11-19T12:00Z
ANN = "usr_ann"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], migrated_url: str) -> Run:
    """Runs a command; returns exit status, stdout and stderr. There is one user, ann."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)

    async def add() -> None:
        users = Users(open_database(migrated_url))
        await users.add("ann", "hash", id=ANN)
        await users.aclose()

    asyncio.run(add())

    def run(*arguments: str) -> Result:
        status = cli.main(arguments)
        return status, *capsys.readouterr()

    return run


async def reserve(url: str, caller: str, *calls: NewCall) -> object:
    """Begins a wish, as the gateway does, and voids its reserved calls."""
    clock = iter(range(NOON, NOON + 100)).__next__
    async with opened(url, clock=clock) as ledger:
        scopes = (f"user:{caller}", "key:web")
        outcome = await ledger.begin(
            caller=caller, route="/gen", key=None, fingerprint="f", scopes=scopes, calls=calls
        )
        if isinstance(outcome, Begun) and calls[0].micros:
            await ledger.fence(calls[0].id)
            await ends.settle(ledger, calls[0].id, charged=calls[0].micros, made=1)
            await ends.finish(ledger, outcome.wish)
        return outcome


def test_a_budget_is_in_force_at_once(run: Run, migrated_url: str) -> None:
    def dear() -> NewCall:
        return NewCall(0, "m", "text2img", 500_001, 1)

    said = "ann: 3 pictures/total, 0.50 USD/day\n"
    assert run("budgets", "set", "Ann", "--usd", "0.5/day", "--pictures", "3/total") == (
        0,
        said.replace("ann", "Ann"),
        "",
    )
    outcome = asyncio.run(reserve(migrated_url, ANN, dear()))
    assert isinstance(outcome, OverBudget)
    assert outcome.limit == Limit(f"user:{ANN}", "usd", "day", 500_000)
    assert run("budgets", "set", "ann", "--usd", "1/day") == (0, said.replace("0.50", "1.00"), "")
    assert isinstance(asyncio.run(reserve(migrated_url, ANN, dear())), Begun)
    assert run("budgets", "set", "key:web", "--pictures", "0/month") == (0, "key:web: 0 pictures/month\n", "")
    outcome = asyncio.run(reserve(migrated_url, "carl", dear()))
    assert isinstance(outcome, OverBudget)
    assert outcome.limit == Limit("key:web", "pictures", "month", 0)
    assert run("budgets", "clear", "key:web") == (0, "Cleared the budget of key:web.\n", "")
    assert isinstance(asyncio.run(reserve(migrated_url, "carl", dear())), Begun)


def test_subjects(run: Run) -> None:
    said = "id|7: 1.00 USD/day\nThere is no user id|7: this is for tokens whose sub is id|7.\n"
    assert run("budgets", "set", "id|7", "--usd", "1/day") == (0, said, "")
    run("budgets", "set", "key:web", "--usd", "5/month", "--usd", "1/day")
    run("budgets", "set", "ann", "--pictures", "7/day")
    run("budgets", "set", "a\tb", "--pictures", "1/day")
    listed = (
        "key:web\t1.00 USD/day\nkey:web\t5.00 USD/month\n'a\\tb'\t1 pictures/day\nid|7\t1.00 USD/day\n"
        "ann\t7 pictures/day\n"
    )
    assert run("budgets", "list") == (0, listed, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("set", "ann", "--usd", "5"),
            "5 is not a budget. Write an amount and a period (day, month or total), like 5/day or 0.50/month",
        ),
        (("set", "ann"), "Name a limit: --usd 5/day, --pictures 100/month, or both."),
        (("set", "key:" + "x" * 252, "--usd", "5/day"), "This subject is too long."),
        (("clear", "ann"), "ann has no budget."),
    ],
)
def test_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert run("budgets", *arguments) == (1, "", f"{said}\n")
    assert run("budgets", "list") == (0, "", "")


def test_receipts(run: Run, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.receipts, "_PAGE", 1)
    wishes = []
    for caller, calls in (
        (ANN, (NewCall(0, "m", "text2img", 40_000, 1),)),
        ("id\x1b[2J", (NewCall(0, "m", "rewrite", 0, 0, priced=False), NewCall(1, "m", "img2img", 0, 1))),
        (ANN, (NewCall(0, "m", "rewrite", 1234, 0), NewCall(1, "m", "img2img", 0, 1))),
    ):
        outcome = asyncio.run(reserve(migrated_url, caller, *calls))
        assert isinstance(outcome, Begun)
        wishes.append(outcome.wish)
    lines = {
        wishes[0]: f"2026-11-19T12:00:00Z\tann\ttext2img\t0.040000\tsettled\t0\t{wishes[0]}",
        wishes[1]: "2026-11-19T12:00:00Z\t'id\\x1b[2J'\timg2img\t0.000000 (unpriced)\treserved\t0\t"
        + wishes[1],
        wishes[2]: f"2026-11-19T12:00:00Z\tann\timg2img\t0.001234\tsettled,void\t0\t{wishes[2]}",
    }
    newest_first = sorted(wishes, reverse=True)  # all have the same time

    def printed(*ids: str) -> Result:
        return 0, "".join(f"{lines[id]}\n" for id in ids), ""

    assert run("receipts") == printed(*newest_first)
    assert run("receipts", "--limit", "2") == printed(*newest_first[:2])
    assert run("receipts", "--user", "Ann") == printed(*(id for id in newest_first if id != wishes[1]))
    assert run("receipts", "--user", "id\x1b[2J") == printed(wishes[1])
    assert run("receipts", "--user", "nobody") == (0, "", "")
