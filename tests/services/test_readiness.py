"""Readiness: what is needed, how long a check takes, what is logged."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from app.contract.health import Health, Status
from app.services import readiness
from app.services.readiness import Readiness

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def every_check_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_VALID_SECONDS", 0)


class APart:
    """Works, or does what it is told: return a reason, raise, or hang until `free` is set."""

    def __init__(self, does: str | Exception | None = None, *, hangs: bool = False) -> None:
        self.does = does
        self.asked = 0
        self.cancelled = 0
        self.begun = asyncio.Event()
        self.free = asyncio.Event()
        if not hangs:
            self.free.set()

    async def ready(self) -> str | None:
        self.asked += 1
        self.begun.set()
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.does, Exception):
            raise self.does
        return self.does


DOWN = ConnectionRefusedError("vendor's words")


def asked(seconds: float = 20, /, **parts: APart) -> Readiness:
    """A database, two vendors and a limit; `parts` replaces some."""
    every = {name: parts.get(name) or APart() for name in ("database", "vertex", "bedrock", "limits")}
    return Readiness(
        required={"database": every["database"]},
        vendors={name: every[name] for name in ("vertex", "bedrock")},
        optional={"limits": every["limits"]},
        seconds=seconds,
    )


def statuses(health: Health) -> dict[str, Status]:
    return {name: part.status for name, part in health.parts.items() if part.status != "ok"}


def needed(health: Health) -> set[str]:
    return {name for name, part in health.parts.items() if part.required}


@pytest.mark.parametrize(
    ("failed", "degraded", "status", "required"),
    [
        pytest.param([], [], "ok", {"database"}, id="all is well"),
        pytest.param(["database"], [], "failed", {"database"}, id="the database"),
        pytest.param(["vertex"], [], "degraded", {"database", "bedrock"}, id="one vendor"),
        pytest.param(["bedrock"], [], "degraded", {"database", "vertex"}, id="the other vendor"),
        pytest.param(
            ["vertex", "bedrock"], [], "failed", {"database", "vertex", "bedrock"}, id="both vendors"
        ),
        pytest.param(["vertex"], ["bedrock"], "degraded", {"database", "bedrock"}, id="one works badly"),
        pytest.param(["limits"], [], "degraded", {"database"}, id="something optional"),
        pytest.param([], ["limits"], "degraded", {"database"}, id="something optional works badly"),
        pytest.param([], ["database"], "degraded", {"database"}, id="something required works badly"),
    ],
)
async def test_what_is_needed(
    failed: Sequence[str], degraded: Sequence[str], status: Status, required: set[str]
) -> None:
    parts = {name: APart(DOWN) for name in failed} | {name: APart("not shared") for name in degraded}
    health = await asked(**parts).ask()
    assert (health.status, needed(health)) == (status, required)
    assert statuses(health) == dict.fromkeys(failed, "failed") | dict.fromkeys(degraded, "degraded")


async def test_a_part_that_hangs_has_failed_and_hangs_once() -> None:
    vertex, bedrock = APart(hangs=True), APart()
    ready = asked(0.05, vertex=vertex, bedrock=bedrock)
    for _ in range(3):
        assert statuses(await ready.ask()) == {"vertex": "failed"}
    assert (vertex.asked, vertex.cancelled, bedrock.asked) == (1, 0, 3)
    vertex.free.set()
    await asyncio.sleep(0)  # it answers, too late for those checks
    assert (await ready.ask()).status == "ok"
    assert vertex.asked == 2


async def test_a_part_that_hangs_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_GIVE_UP_SECONDS", 0.01)
    vertex = APart(hangs=True)
    ready = asked(vertex=vertex)
    assert statuses(await ready.ask()) == {"vertex": "failed"}
    vertex.free.set()
    assert (await ready.ask()).status == "ok"
    assert (vertex.asked, vertex.cancelled) == (2, 1)


async def test_nothing_is_asked_after_the_end() -> None:
    vertex = APart(hangs=True)
    ready = asked(0.01, vertex=vertex)
    await ready.ask()
    await ready.aclose()
    assert vertex.cancelled == 1


async def test_parts_are_asked_at_the_same_time() -> None:
    first, second = APart(hangs=True), APart(hangs=True)

    async def meet(other: APart) -> None:
        other.free.set()
        await first.free.wait()
        await second.free.wait()

    class Meeting(APart):
        def __init__(self, other: APart) -> None:
            super().__init__()
            self.other = other

        async def ready(self) -> None:
            await meet(self.other)

    assert (await asked(vertex=Meeting(first), bedrock=Meeting(second)).ask()).status == "ok"


async def test_those_who_ask_meanwhile_share_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_VALID_SECONDS", 3600)
    vertex = APart(hangs=True)
    ready = asked(vertex=vertex)
    asking = [asyncio.create_task(ready.ask()) for _ in range(50)]
    await vertex.begun.wait()
    asking.pop(0).cancel()  # the one that began the check
    await asyncio.sleep(0)
    vertex.free.set()
    assert {health.status for health in await asyncio.gather(*asking)} == {"ok"}
    assert vertex.asked == 1
    assert (await ready.ask()).status == "ok"
    assert vertex.asked == 1


async def test_a_change_is_logged_once_and_so_is_its_end() -> None:
    limits = APart()
    ready = asked(limits=limits)
    told: Sequence[str | Exception | None] = [
        None,
        None,
        DOWN,
        DOWN,
        "not shared",
        "another",
        None,
        None,
        DOWN,
    ]
    with capture_logs() as lines:
        for does in told:
            limits.does = does
            await ready.ask()
    assert [(line["event"], line["part"], line.get("reason")) for line in lines] == [
        ("part failed", "limits", "ConnectionRefusedError"),
        ("part degraded", "limits", "not shared"),
        ("part works again", "limits", None),
        ("part failed", "limits", "ConnectionRefusedError"),
    ]
