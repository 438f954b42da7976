"""Receipts and usage over HTTP: whole bodies, one's own only, and bad parameters."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from app.contract.ledger import Begun, NewCall, StoredPicture
from app.contract.periods import day_of, iso, resets_at
from app.storage.ledger import Ledger
from tests.api.conftest import Start, token
from tests.storage.ledgers import opened
from tools.rig import ends

T = TypeVar("T")

CREATED = 1_795_089_600_000  # 2026-11-19T12:00Z


class Books(NamedTuple):
    """A gateway, and the database that it reads."""

    url: str
    database: str

    def get(self, path: str, caller: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token(sub=caller)}"}
        return httpx.get(f"{self.url}/api/v1/{path}", headers=headers)

    def write(
        self, work: Callable[[Ledger], Coroutine[Any, Any, T]], clock: Callable[[], int] | None = None
    ) -> T:
        async def with_ledger() -> T:
            async with opened(self.database, clock=clock) as ledger:
                return await work(ledger)

        return asyncio.run(with_ledger())


@pytest.fixture(scope="module")
def books(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder: Path = tmp_path_factory.mktemp("books")
    database = f"sqlite+aiosqlite:///{folder}/gateway.db"
    with start(
        database_url=database,
        budget="5 USD/day",
        public_base_url="https://pictures.example.com",
        receipt_days=36_500,
    ) as url:
        yield Books(url, database)


async def begin(ledger: Ledger, caller: str, *calls: NewCall) -> str:
    outcome = await ledger.begin(
        caller=caller, route="/gen", key=None, fingerprint="f", scopes=(f"user:{caller}",), calls=calls
    )
    assert isinstance(outcome, Begun)
    return outcome.wish


def test_a_receipt(books: Books) -> None:
    now = iter(range(CREATED, CREATED + 1000, 100))
    rewrite = NewCall(0, "claude-haiku-4-5", "rewrite", 2000, 0)
    picture = NewCall(1, "titan", "text2img", 10_000, 1)
    private = NewCall(2, "titan", "text2img", 10_000, 1)

    async def work(ledger: Ledger) -> str:
        wish = await begin(ledger, "ann", rewrite, picture, private)
        await ledger.fence(rewrite.id)
        await ends.settle(ledger, rewrite.id, charged=1234, made=0)
        await ledger.fence(picture.id)
        stored = StoredPicture(picture.id, 0, "bucket", "images/a b.png", "image/png")
        await ends.settle(ledger, picture.id, charged=8000, made=1, pictures=(stored,))
        kept = StoredPicture(private.id, 0, "/data/private", "c.png", "image/png")
        await ends.finish(ledger, wish, 200, "{}", pictures=(kept,))
        return wish

    wish = books.write(work, lambda: next(now))
    receipt = {
        "id": wish,
        "operation": "text2img",
        "createdAt": "2026-11-19T12:00:00.000Z",
        "costUsd": "0.009234",
        "priced": True,
        "replayed": False,
        "calls": [
            {
                "model": "claude-haiku-4-5",
                "state": "settled",
                "samples": 0,
                "costUsd": "0.001234",
                "sentAt": "2026-11-19T12:00:00.100Z",
                "finishedAt": "2026-11-19T12:00:00.200Z",
            },
            {
                "model": "titan",
                "state": "settled",
                "samples": 1,
                "costUsd": "0.008000",
                "sentAt": "2026-11-19T12:00:00.300Z",
                "finishedAt": "2026-11-19T12:00:00.400Z",
            },
            {
                "model": "titan",
                "state": "void",
                "samples": 1,
                "costUsd": "0.000000",
                "sentAt": None,
                "finishedAt": "2026-11-19T12:00:00.500Z",
            },
        ],
        "pictures": [
            {"url": "https://pictures.example.com/bucket/images/a%20b.png", "filename": "a b.png"},
            {"url": None, "filename": "c.png"},
        ],
    }
    assert books.get(f"receipts/{wish}", "ann").json() == receipt
    assert books.get("receipts", "ann").json() == {"receipts": [receipt], "nextCursor": None}
    missing = {"statusCode": 404, "message": "Receipt not found", "error": "Not Found"}
    for path, caller in ((wish, "bob"), ("0" * 32, "ann"), ("x", "ann"), ("%00", "ann")):
        answer = books.get(f"receipts/{path}", caller)
        assert (answer.status_code, answer.json()) == (404, missing)
        assert answer.headers["X-Error-Code"] == "not_found"
    assert books.get("receipts", "bob").json() == {"receipts": [], "nextCursor": None}


def test_pages(books: Books) -> None:
    async def work(ledger: Ledger) -> list[str]:
        return [await begin(ledger, "carl", NewCall(0, "m", "text2img", 1, 1)) for _ in range(21)]

    now = iter(range(CREATED, CREATED + 1000))
    wishes = books.write(work, lambda: next(now))[::-1]
    first = books.get("receipts", "carl").json()
    assert [one["id"] for one in first["receipts"]] == wishes[:20]
    last = books.get(f"receipts?limit=100&cursor={first['nextCursor']}", "carl").json()
    assert ([one["id"] for one in last["receipts"]], last["nextCursor"]) == (wishes[20:], None)
    assert len(books.get("receipts?limit=1", "carl").json()["receipts"]) == 1


LIMIT = "limit must be an integer number from 1 to 100"
CURSOR = "cursor must be the nextCursor of a page"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        *(
            (f"limit={limit}", [LIMIT])
            for limit in ("0", "101", "-1", "1.0", "ten", "", "%D9%A5", "1&limit=1")
        ),
        *((f"cursor={cursor}", [CURSOR]) for cursor in ("", "A" * 31, "%2B" * 32, "A" * 32 + "%0A")),
        ("limit=x&cursor=x", [LIMIT, CURSOR]),
    ],
)
def test_a_bad_parameter(books: Books, query: str, told: list[str]) -> None:
    answer = books.get(f"receipts?{query}", "ann")
    assert (answer.status_code, answer.json()) == (
        400,
        {"statusCode": 400, "message": told, "error": "Bad Request"},
    )
    assert answer.headers["X-Error-Code"] == "validation"


def test_usage(books: Books) -> None:
    done, open_ = NewCall(0, "m", "text2img", 50_000, 2), NewCall(1, "m", "text2img", 40_000, 1)

    async def work(ledger: Ledger) -> None:
        await begin(ledger, "dora", done, open_)
        await ledger.fence(done.id)
        await ends.settle(ledger, done.id, charged=45_000, made=1)

    books.write(work)
    today = day_of(int(time.time() * 1000))
    day, month = resets_at("day", today), resets_at("month", today)
    assert day
    assert month
    assert books.get("usage", "dora").json() == {
        "usage": [
            {
                "unit": "USD",
                "period": "day",
                "limit": "5.000000",
                "spent": "0.045000",
                "reserved": "0.040000",
                "resetsAt": iso(day),
            },
            {
                "unit": "pictures",
                "period": "month",
                "limit": None,
                "spent": 1,
                "reserved": 1,
                "resetsAt": iso(month),
            },
        ]
    }
