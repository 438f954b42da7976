"""Budgets at the door: what is refused, what comes back, and that the sums add up."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.emulator.server import Emulator
from app.emulator.trouble import Kind
from app.storage import recovery
from tests.api.conftest import SECRET, Start, token
from tests.storage.ledgers import assert_adds_up, query
from tests.support.server_process import UVICORN, bare, free_port, serving

TEXT_TO_IMAGE = "/api/v1/image/text-to-image"
CAT = {"prompt": "a cat", "responseFormat": "b64_json"}
NOON = datetime(2126, 1, 30, 12, tzinfo=UTC)
"""In the future: receipts of the past may be removed meanwhile, by the machine's clock."""
REFUSAL = {"error": {"code": 400, "message": "sampleCount is too large", "status": "INVALID_ARGUMENT"}}
ADDRESSES = (
    "VERTEX_ENDPOINT",
    "STORAGE_EMULATOR_HOST",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "ANTHROPIC_BASE_URL",
    "PUBLIC_BASE_URL",
)


@contextmanager
def client_of(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token()}"}, timeout=60) as client:
        yield client


def usage(client: httpx.Client) -> dict[str, Any]:
    told = client.get("/api/v1/usage").raise_for_status().json()["usage"]
    return {one["unit"]: one for one in told}


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other processes bring about, and of which nothing tells."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_budget_holds_on_two_gateways(start: Start, emulator: Emulator, migrated_url: str) -> None:
    """Two hundred at once, and room for ten."""

    def ask(url: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token()}"}
        answer = httpx.post(f"{url}{TEXT_TO_IMAGE}", json=CAT, headers=headers, timeout=60)
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["message"]

    shared = {"database_url": migrated_url, "budget": "10 pictures/day"}
    with start(**shared) as one, start(**shared) as two, ThreadPoolExecutor(50) as threads:
        answers = Counter(threads.map(ask, [one, two] * 100))
        with client_of(two) as client:
            pictures = usage(client)["pictures"]
            receipts = client.get("/api/v1/receipts?limit=100").json()["receipts"]
    statuses = Counter(status for status, _ in answers.elements())
    assert statuses == {200: 10, 402: 190}
    assert all(
        text.startswith("Budget exhausted: 10 pictures per day, 10 spent, ") for _, text in answers if text
    )
    assert emulator.calls.paid == len(emulator.calls.list()) == len(receipts) == 10
    assert (pictures["limit"], pictures["spent"], pictures["reserved"]) == (10, 10, 0)


@pytest.mark.parametrize("path", [TEXT_TO_IMAGE, "/gen"])
def test_what_is_exhausted_is_told(start: Start, emulator: Emulator, path: str) -> None:
    body = CAT if path == TEXT_TO_IMAGE else {"mode": "text2img", "prompt": "a cat"}
    with start(budget="0.01 USD/total") as url, client_of(url) as client:
        answer = client.post(path, json=body)
    message = "Budget exhausted: 0.01 USD in total, 0.00 spent, never resets"
    assert answer.status_code == 402
    assert answer.headers["x-error-code"] == "budget_exhausted"
    if path == "/gen":
        assert answer.json() == {"status": "error", "error": "Payment Required", "details": message}
    else:
        assert answer.json() == {"statusCode": 402, "message": message, "error": "Payment Required"}
    assert emulator.calls.list() == ()


def test_a_batch_is_reserved_as_a_whole(start: Start, emulator: Emulator) -> None:
    """Four calls of Gemini, and room for three."""
    with start(budget="3 pictures/day") as url, client_of(url) as client:
        body = {"prompt": "a cat", "model": "gemini-2.5-flash-image", "sampleCount": 4}
        assert client.post(TEXT_TO_IMAGE, json=body).status_code == 402
        assert emulator.calls.list() == ()
        assert client.post(TEXT_TO_IMAGE, json={**body, "sampleCount": 3}).status_code == 200


@pytest.mark.parametrize(
    ("budget", "told", "ends"),
    [
        ("2 pictures/day", "2 pictures per day, 2 spent", datetime(2126, 1, 31, tzinfo=UTC)),
        ("0.08 USD/month", "0.08 USD per month, 0.08 spent", datetime(2126, 2, 1, tzinfo=UTC)),
    ],
)
def test_a_budget_comes_back_when_its_period_ends(
    start: Start, emulator: Emulator, migrated_url: str, budget: str, told: str, ends: datetime
) -> None:
    now = NOON
    with (
        start(database_url=migrated_url, budget=budget, clock=lambda: int(now.timestamp() * 1000)) as url,
        client_of(url) as client,
    ):

        def statuses(number: int) -> list[int]:
            return [client.post(TEXT_TO_IMAGE, json=CAT).status_code for _ in range(number)]

        assert statuses(2) == [200, 200]
        refused = client.post(TEXT_TO_IMAGE, json=CAT)
        assert refused.status_code == 402
        assert refused.json()["message"] == f"Budget exhausted: {told}, resets at {ends:%Y-%m-%dT%H:%M:%SZ}"
        unit = "pictures" if "pictures" in budget else "USD"
        assert usage(client)[unit]["resetsAt"] == f"{ends:%Y-%m-%dT%H:%M:%SZ}"
        now = ends - timedelta(milliseconds=1)
        assert statuses(1) == [402]
        now = ends
        assert statuses(3) == [200, 200, 402]
    assert emulator.calls.paid == 4
    asyncio.run(assert_adds_up(migrated_url))


@pytest.mark.parametrize(
    ("trouble", "arg", "status"),
    [
        ("429", 60, 429),
        ("503", 60, 503),
        ("503", 0, 503),
        ("answer", {"status": 400, "body": REFUSAL}, 400),
        ("blocked-prompt", None, 400),
    ],
    ids=["quota", "overload", "overload, three tries", "a refusal", "a blocked prompt"],
)
def test_what_was_not_served_gives_its_room_back(
    start: Start, emulator: Emulator, trouble: Kind, arg: object, status: int
) -> None:
    emulator.troubles.set(trouble, arg=arg)
    with start(budget="1 pictures/day", retry_pause_seconds=0.01) as url, client_of(url) as client:
        assert client.post(TEXT_TO_IMAGE, json=CAT).status_code == status
        emulator.troubles.clear()
        assert client.post(TEXT_TO_IMAGE, json=CAT).status_code == 200
        assert client.post(TEXT_TO_IMAGE, json=CAT).status_code == 402
    assert emulator.calls.paid == 1


def test_a_crash_before_the_call_is_sent_gives_its_room_back(
    start: Start,
    emulator: Emulator,
    migrated_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway is killed when it has sent one call and reserved another: only the first is charged."""
    monkeypatch.setattr(recovery, "BEAT_SECONDS", 0.1)
    port = free_port()
    dying = f"http://127.0.0.1:{port}"
    environment = bare(tmp_path) | {
        **dict.fromkeys(ADDRESSES, emulator.http_url),
        "DATABASE_URL": migrated_url,
        "DATA_DIR": str(tmp_path / "data"),
        "JWT_SECRET": SECRET,
        "BUDGET": "2 pictures/day",
        "MAX_CALLS": "1",
    }

    def ask() -> None:
        with client_of(dying) as client, pytest.raises(httpx.TransportError):
            client.post(TEXT_TO_IMAGE, json={**CAT, "prompt": "a cat #trouble:hang"})

    def asked() -> int:
        return client.post(TEXT_TO_IMAGE, json=CAT).status_code

    def reserved() -> int:
        return int(usage(client)["pictures"]["reserved"])

    with start(database_url=migrated_url, budget="2 pictures/day") as url, client_of(url) as client:
        with (
            serving(
                [*UVICORN, f"--port={port}"], f"{dying}/health", environment=environment, folder=tmp_path
            ) as running,
            ThreadPoolExecutor(2) as threads,
        ):
            asking = [threads.submit(ask) for _ in range(2)]
            until(lambda: reserved() == 2)
            emulator.calls.wait_for(lambda calls: len(calls) == 1)
            assert asked() == 402
            running.process.kill()
            for one in asking:
                one.result()
        until(lambda: reserved() == 0)
        assert [asked(), asked()] == [200, 402]
    assert emulator.calls.paid == 1
    states = asyncio.run(query(migrated_url, "SELECT state FROM calls ORDER BY state"))
    assert [state for (state,) in states] == ["settled", "unknown", "void"]
    asyncio.run(assert_adds_up(migrated_url))


def test_half_a_batch_costs_half(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("half-blocked")
    with start(budget="4 pictures/day") as url, client_of(url) as client:
        answer = client.post(TEXT_TO_IMAGE, json={**CAT, "sampleCount": 4})
        assert (answer.status_code, len(answer.json()["predictions"])) == (200, 2)
        assert answer.headers["x-cost-usd"] == "0.080000"
        assert usage(client)["pictures"]["spent"] == 2


@pytest.mark.parametrize(("budget", "status"), [("5 USD/day", 400), ("100 pictures/day", 200)])
def test_a_model_without_a_price_is_not_served_on_a_budget_of_money(
    start: Start, emulator: Emulator, tmp_path: Path, budget: str, status: int
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("")
    with start(budget=budget, prices_file=prices) as url, client_of(url) as client:
        answer = client.post(TEXT_TO_IMAGE, json=CAT)
        assert answer.status_code == status
        if status == 400:
            assert answer.json() == {
                "statusCode": 400,
                "message": "imagen-3.0-generate-001 has no price, so a budget in USD does not allow it",
                "error": "Bad Request",
            }
            assert emulator.calls.list() == ()
        else:
            (receipt,) = client.get("/api/v1/receipts").json()["receipts"]
            assert (receipt["priced"], receipt["costUsd"]) == (False, "0.000000")


def test_receipts_add_up_to_what_was_spent(start: Start, emulator: Emulator) -> None:
    troubles = ("", "", "blocked-output", "drop", "429=60", "half-blocked")
    with start(retry_pause_seconds=0.01) as url, client_of(url) as client:
        costs = []
        for trouble in troubles:
            body = {"prompt": f"a cat #trouble:{trouble}" if trouble else "a cat", "sampleCount": 2}
            costs.append(float(client.post(TEXT_TO_IMAGE, json=body).headers.get("x-cost-usd", 0)))
        client.post("/gen", json={"mode": "text2img", "prompt": "a cat", "regen_prompt": True})
        receipts = client.get("/api/v1/receipts").json()["receipts"]
        spent = usage(client)["USD"]["spent"]
    assert [one["costUsd"] for one in receipts[:0:-1]] == [f"{cost:.6f}" for cost in costs]
    assert f"{sum(float(one['costUsd']) for one in receipts):.6f}" == spent
    assert [[call["state"] for call in one["calls"]] for one in receipts[:0:-1]] == [
        ["settled"],
        ["settled"],
        ["settled"],
        ["unknown"],
        ["void"],
        ["settled"],
    ]
    assert [call["state"] for call in receipts[0]["calls"]] == ["settled", "settled"]


async def _allow(url: str, allowed: bool) -> None:
    address = make_url(url)
    engine = create_async_engine(address.set(database="postgres"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(f"ALTER DATABASE {address.database} ALLOW_CONNECTIONS {allowed}")
        if not allowed:
            ending = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
            await connection.execute(ending, {"name": address.database})
    await engine.dispose()


def test_without_its_database_nothing_is_paid(start: Start, emulator: Emulator, postgres_url: str) -> None:
    """It comes back without a restart. SQLite's file does not go away: test_full_disk.py fills its disk."""
    with start(database_url=postgres_url) as url, client_of(url) as client:
        assert client.post(TEXT_TO_IMAGE, json=CAT).status_code == 200
        asyncio.run(_allow(postgres_url, False))
        try:
            refused = client.post(TEXT_TO_IMAGE, json=CAT)
            keyed = client.post(TEXT_TO_IMAGE, json=CAT, headers={"Idempotency-Key": "a"})
        finally:
            asyncio.run(_allow(postgres_url, True))
        assert [(one.status_code, one.headers["x-error-code"]) for one in (refused, keyed)] == [
            (503, "busy")
        ] * 2
        assert len(emulator.calls.list()) == 1
        assert client.post(TEXT_TO_IMAGE, json=CAT).status_code == 200
