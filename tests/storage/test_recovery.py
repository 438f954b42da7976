"""Processes that die, or seem to: their reservations are given back, and what they sent is looked for."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.contract.book import Terms
from app.contract.errors import Busy
from app.contract.ledger import Begun, PaidCall, Recovered, Running, StoredPicture, TakenOver
from app.contract.recovery import Beat
from app.pictures.process_folder import ProcessFolder, has_ended
from app.storage import recovery
from app.storage.ledger import Ledger, open_store
from app.storage.recovery import PREFIX, Find, Recovery
from tests.storage.ledger_process import CALL_ID, TEN_PICTURES
from tests.storage.ledgers import assert_adds_up, begin, begun, call, opened, query, states
from tests.support.server_process import ROOT
from tools.rig import ends

pytestmark = pytest.mark.anyio


@contextmanager
def process(url: str, folder: Path, stage: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has come so far. It is killed at the end."""
    command = (sys.executable, "-m", "tests.storage.ledger_process", url, str(folder), stage)
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout
            assert running.stdout.readline().strip() in (stage, "ready")
            yield running
        finally:
            running.kill()


async def nothing(_: PaidCall) -> Recovered:
    return Recovered()


async def everything(lost: PaidCall) -> Recovered:
    assert (lost.bucket, lost.stem, lost.state) == ("b", "images/x-", "sent")
    pictures = tuple(
        StoredPicture(lost.id, n, "b", f"images/x-{n}.png", "image/png") for n in range(lost.samples)
    )
    return Recovered(len(pictures), pictures)


async def a_part(lost: PaidCall) -> Recovered:
    pictures = (await everything(lost)).pictures[1:]
    return Recovered(len(pictures), pictures)


def test_two_processes_share_a_budget(migrated_url: str, tmp_path: Path) -> None:
    with process(migrated_url, tmp_path, "many") as one, process(migrated_url, tmp_path, "many") as two:
        for running in (one, two):
            assert running.stdin
            running.stdin.write("\n")
            running.stdin.flush()
        admitted = [int(running.communicate(timeout=60)[0]) for running in (one, two)]
    assert sum(admitted) == 10, admitted
    asyncio.run(assert_adds_up(migrated_url))


@pytest.mark.parametrize(
    ("stage", "find", "state", "again"),
    [
        ("begun", nothing, "void", Begun),
        ("fenced", nothing, "unknown", TakenOver),
        ("fenced", everything, "settled", TakenOver),
        ("fenced", a_part, "unknown", TakenOver),
        ("settled", nothing, "settled", TakenOver),
    ],
)
async def test_kill_9(
    migrated_url: str, tmp_path: Path, stage: str, find: Find, state: str, again: type
) -> None:
    with process(migrated_url, tmp_path, stage) as running:
        async with opened(migrated_url, "p2", terms=TEN_PICTURES) as ledger:
            own = ProcessFolder(tmp_path, PREFIX)
            sweeper = Recovery(ledger, own, find, host="here")
            await sweeper.sweep()  # it lives: nothing changes
            assert isinstance(await begin(ledger, key="k"), Running)
            assert await states(migrated_url) == {
                CALL_ID: stage.replace("begun", "reserved").replace("fenced", "sent")
            }
            await asyncio.to_thread(_kill, running)
            await sweeper.sweep()
            assert await states(migrated_url) == {CALL_ID: state}
            outcome = await begin(ledger, key="k")
            assert type(outcome) is again
            assert isinstance(outcome, Begun | TakenOver)
            record = await ledger.look(outcome.wish)
            assert record
            assert len(record.pictures) == (4 if find is everything else 3 if find is a_part else 0)
            assert [row[0] for row in await query(migrated_url, "SELECT id FROM processes")] == ["p2"]
            assert [folder for folder in tmp_path.glob(f"{PREFIX}*") if folder != own.path] == []
            own.close()
    await assert_adds_up(migrated_url)


def _kill(running: subprocess.Popen[str]) -> None:
    running.kill()
    running.wait()


class Hosts:
    """A ledger whose clocks, the database's and the machine's, the test turns; two processes on two hosts."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_795_000_000.0
        monkeypatch.setattr(recovery, "monotonic", lambda: self.seconds)
        self.folders = [ProcessFolder(folder, PREFIX) for _ in range(2)]
        stores = [open_store(url, Terms(), clock=lambda: int(self.seconds * 1000)) for _ in self.folders]
        self.here, self.there = (Ledger(store, f"p{n}") for n, store in enumerate(stores))
        self.finding: Find = nothing
        self.recovery = Recovery(self.here, self.folders[0], self.find, host="here")

    async def find(self, lost: PaidCall) -> Recovered:
        return await self.finding(lost)

    async def beat_there(self) -> None:
        await self.there.do(Beat(self.there.process, "there", str(self.folders[1].path)))

    async def aclose(self) -> None:
        await self.here.aclose()
        await self.there.aclose()
        for folder in self.folders:
            folder.close()


@pytest.fixture
def hosts(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(migrated_url, tmp_path, monkeypatch)


async def test_another_host_is_dead_when_its_heartbeat_is_30_s_old(hosts: Hosts, migrated_url: str) -> None:
    one = call()
    await hosts.beat_there()
    await begun(hosts.there, one, key="k")
    for _ in range(4):
        await hosts.recovery.sweep()
        assert await states(migrated_url) == {one.id: "reserved"}
        hosts.seconds += 10
    await hosts.recovery.sweep()
    assert await states(migrated_url) == {one.id: "void"}
    with pytest.raises(Busy):  # it was only slow: it sends nothing
        await hosts.there.fence(one.id)
    await hosts.beat_there()
    await begun(hosts.there, call(), key="k")
    await hosts.recovery.sweep()
    assert sorted((await states(migrated_url)).values()) == ["reserved", "void"]
    await hosts.aclose()


async def test_after_an_outage_the_others_get_time_to_beat(hosts: Hosts, migrated_url: str) -> None:
    one = call()
    await hosts.beat_there()
    await begun(hosts.there, one)
    hosts.seconds += 300  # the database was down for all
    await hosts.recovery.sweep()
    assert await states(migrated_url) == {one.id: "reserved"}
    await hosts.beat_there()
    hosts.seconds += 30
    await hosts.recovery.sweep()
    assert await states(migrated_url) == {one.id: "reserved"}
    await hosts.aclose()


async def test_what_cannot_be_looked_for_stays_sent(hosts: Hosts, migrated_url: str) -> None:
    """The bucket is down. The wish is not given to others before its outcome is known."""

    async def broken(_: PaidCall) -> Recovered:
        raise Busy

    one, other = call(), call()
    await hosts.beat_there()
    await begun(hosts.there, one, key="k")
    await hosts.there.fence(one.id, bucket="b", stem="images/x-")
    await hosts.recovery.sweep()
    hosts.seconds += 31
    hosts.finding = broken
    await hosts.recovery.sweep()
    assert await states(migrated_url) == {one.id: "sent"}
    assert isinstance(await begin(hosts.here, other, key="k"), Running)
    hosts.finding = everything
    await hosts.recovery.sweep()
    assert await states(migrated_url) == {one.id: "settled"}
    assert isinstance(await begin(hosts.here, other, key="k"), TakenOver)
    await hosts.aclose()
    await assert_adds_up(migrated_url)


async def test_a_call_past_its_deadline_is_looked_for_although_its_process_lives(
    hosts: Hosts, migrated_url: str
) -> None:
    """What its process learns later still counts."""
    sent, reserved = call(), call(slot=1)
    await begun(hosts.there, sent, reserved)
    await hosts.there.fence(sent.id)
    for _ in range(60):
        hosts.seconds += 10
        await hosts.beat_there()
    await hosts.recovery.sweep()
    assert await states(migrated_url) == {sent.id: "unknown", reserved.id: "void"}
    assert await ends.settle(hosts.there, sent.id, charged=60, made=1)
    await hosts.aclose()
    await assert_adds_up(migrated_url)


async def test_expired_answers_are_forgotten(hosts: Hosts, migrated_url: str) -> None:
    one = call()
    wish = await begun(hosts.here, one, key="k")
    await hosts.here.fence(one.id)
    await ends.settle(hosts.here, one.id, charged=60, made=1)
    await ends.finish(hosts.here, wish, 200, "body")
    hosts.seconds += 86_401
    await hosts.recovery.sweep()
    assert [tuple(row) for row in await query(migrated_url, "SELECT key, body FROM wishes")] == [(None, None)]
    await hosts.aclose()


def test_a_folder_tells_whether_its_process_lives(tmp_path: Path) -> None:
    folder = ProcessFolder(tmp_path, PREFIX)
    assert has_ended(folder.path) is False
    folder.close()
    assert has_ended(folder.path) is True
    assert has_ended(tmp_path / "nowhere") is None
