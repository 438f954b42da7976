"""`python -m bench.storage_trouble` goes through the troubles of storage, spool and vendors, one by one.

Each case starts a gateway, orders the trouble, sends requests, and compares the statuses with the documented
ones. Then the trouble ends: a new request must get 200, every picture that arrived must reach the bucket, and
every URL that callers received must lead to it. Requests for base64 must not notice troubles of storage. The
cases with a full, read-only or small disk mount a tmpfs and need root. Without root they are skipped.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.account import account, drain
from tools.rig.callers import GEMINI, TEXT_TO_IMAGE, Answer, ask_once, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.processes import forget_peak, raise_descriptors, resident_mb
from tools.rig.report import Row, show

SETTINGS = {"UPLOAD_WAIT_SECONDS": "1", "SPOOL_SECONDS": "1"}
MEGABYTE = 1_000_000
MOST_BASE64_SECONDS = 1.0
"""For a model that takes no time."""
MOST_GROWTH_MB = 150
"""With four answers that never end."""
OUTAGE_SECONDS = 30
RECOVERY_SECONDS = 60
"""Within so long after the trouble the spool must be empty, and a request must be answered 200."""


@dataclass
class Scene:
    """A cloud and a gateway in trouble, and what was asked of it. `rows` are the figures of the case."""

    cloud: Cloud
    gateway: Gateway
    outage_seconds: float = OUTAGE_SECONDS
    statuses: Counter[int] = field(default_factory=Counter)
    urls: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rows: list[Row] = field(default_factory=list)
    asked: int = 0

    async def ask(self, **more: object) -> Answer:
        """Ask for one picture, stored unless `more` says otherwise."""
        self.asked += 1
        kind = "base64" if "responseFormat" in more else "url"
        prompt = f"bench-{kind}-{self.asked}"
        body = wish(prompt, **more)  # type: ignore[arg-type]
        answer = await ask_once(self.gateway.url, post(TEXT_TO_IMAGE, token(), body))
        self.statuses[answer.status] += 1
        self.urls[prompt] += [*answer.urls, *answer.pending]
        return answer

    async def expect(self, *statuses: int, times: int = 1, **more: object) -> list[Answer]:
        """Ask so many times at once. A row tells whether all had one of the statuses."""
        answers = await asyncio.gather(*(self.ask(**more) for _ in range(times)))
        others = [answer.status for answer in answers if answer.status not in statuses]
        name = f"{times} x status {' or '.join(map(str, statuses))}: others"
        self.rows.append(Row(name, len(others), 0, note=f"  {others[:5]}" if others else ""))
        return answers

    async def base64_goes_on(self) -> None:
        started = time.perf_counter()
        await self.expect(200, responseFormat="b64_json")
        took = time.perf_counter() - started
        self.rows.append(Row("seconds for base64 meanwhile", round(took, 2), MOST_BASE64_SECONDS, clock=True))

    def paid(self) -> int:
        return sum(one.answered is not None for one in self.cloud.state().pictures)


Play = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """With `disk_mb`, `folder` is a tmpfs of that size."""

    name: str
    play: Play
    settings: dict[str, str] = field(default_factory=dict)
    disk_mb: int | None = None
    folder: str = "spool"


def storage(kind: str | None, **more: object) -> Play:
    async def play(scene: Scene) -> None:
        scene.cloud.trouble(kind, "gcs", **more)
        answers, _ = await asyncio.gather(scene.expect(503, times=4), scene.base64_goes_on())
        pending = sum(len(answer.pending) for answer in answers)
        scene.rows.append(Row("of 4 pictures, reported as pending", pending, least=4))

    return play


async def full(scene: Scene) -> None:
    before = scene.paid()
    _fill(scene.cloud.spool)
    await asyncio.sleep(1.1)  # until the gateway's last check of the spool has expired
    await scene.expect(503, times=4)
    scene.rows.append(Row("paid without a place to keep it", scene.paid() - before, 0))
    await scene.base64_goes_on()
    (scene.cloud.spool / "filling").unlink()
    await asyncio.sleep(1.1)


async def read_only(scene: Scene) -> None:
    before = scene.paid()
    _protect(scene.cloud.spool, "+i")
    await asyncio.sleep(1.1)
    await scene.expect(503, times=4)
    scene.rows.append(Row("paid without a place to keep it", scene.paid() - before, 0))
    await scene.base64_goes_on()
    _protect(scene.cloud.spool, "-i")
    await asyncio.sleep(1.1)


async def nearly_full(scene: Scene) -> None:
    """Storage hangs, and the pictures fill the disk up to SPOOL_MIN_FREE_BYTES."""
    scene.cloud.trouble("hang")
    refused = 0
    for _ in range(30):
        before = scene.paid()
        answer = await scene.ask()
        await asyncio.sleep(0.1)
        refused += scene.paid() == before and answer.status == 503
        if refused >= 2:
            break
    scene.rows.append(Row("refused before paying, in the end", refused, least=2))


async def overflowing(scene: Scene) -> None:
    """More paid pictures at once than the spool has room for: they wait elsewhere for storage."""
    scene.cloud.trouble("hang")
    asking = asyncio.gather(*(scene.ask() for _ in range(24)))
    await asyncio.sleep(4)
    scene.cloud.calm()
    await asking


async def full_work_folder(scene: Scene) -> None:
    _fill(scene.cloud.folder / "work")
    await _refused_or_done(scene)
    (scene.cloud.folder / "work" / "filling").unlink()


async def read_only_work_folder(scene: Scene) -> None:
    _protect(scene.cloud.folder / "work", "+i")
    await _refused_or_done(scene)
    _protect(scene.cloud.folder / "work", "-i")


async def _refused_or_done(scene: Scene) -> None:
    """A request is either refused before it is paid, or served without files."""
    before = scene.paid()
    for more in ({}, {"responseFormat": "b64_json"}):
        answers = await scene.expect(200, 503, times=2, **more)
        made = sum(answer.status == 200 for answer in answers)
        scene.rows.append(Row("paid and not answered", scene.paid() - before - made, 0))
        before = scene.paid()


async def half_answers(scene: Scene) -> None:
    scene.cloud.trouble(None, "vertex", travel={"cut": 1_000_000})
    await scene.expect(500, times=2)
    await scene.expect(500, times=2, responseFormat="b64_json")


async def endless_answers(scene: Scene) -> None:
    scene.cloud.trouble(None, "vertex", travel={"endless": True})
    before = resident_mb(scene.gateway.pid)
    forget_peak(scene.gateway.pid)
    await scene.expect(500, times=4)
    grown = resident_mb(scene.gateway.pid, peak=True) - before
    scene.rows.append(Row("MB that the gateway grew by", round(grown), MOST_GROWTH_MB))


def one_bad_sample(kind: str | None, **more: object) -> Play:
    async def play(scene: Scene) -> None:
        scene.cloud.trouble(kind, "vertex", times=1, **more)
        (answer,) = await scene.expect(200, model=GEMINI, samples=4)
        scene.rows.append(Row("pictures of 4 that were answered", len(answer.urls), least=3))
        scene.rows.append(Row("samples reported as failed", answer.body.count(b'"failed":['), least=1))

    return play


async def unavailable(scene: Scene) -> None:
    """A vendor that refuses for a while; requests come all the time."""
    scene.cloud.trouble("503", "vertex")
    began = time.monotonic()
    asking = []
    while time.monotonic() - began < scene.outage_seconds:
        asking.append(asyncio.create_task(scene.expect(200, 503, times=2)))
        await asyncio.sleep(1)
    scene.cloud.calm()
    await asyncio.gather(*asking)
    scene.rows = [Row("neither 200 nor 503", sum(int(row.figure) for row in scene.rows), 0)]


CASES = (
    Case("storage 500", storage("500")),
    Case("storage 503", storage("503")),
    Case("storage 429", storage("429")),
    Case("storage 401", storage("answer", arg={"status": 401, "body": {}}, times=10**6)),
    Case("storage resets", storage(None, travel={"cut": "before", "reset": True})),
    Case("storage hangs", storage("hang")),
    Case("storage takes 30 s", storage("slow", arg=30)),
    Case("spool full", full, {"SPOOL_MIN_FREE_BYTES": str(4 * MEGABYTE)}, disk_mb=8),
    Case("spool read-only", read_only, disk_mb=400),
    Case("spool nearly full", nearly_full, {"SPOOL_MIN_FREE_BYTES": str(16 * MEGABYTE)}, disk_mb=32),
    Case("spool overflows", overflowing, {"SPOOL_MIN_FREE_BYTES": str(MEGABYTE)}, disk_mb=16),
    Case("work folder full", full_work_folder, disk_mb=8, folder="work"),
    Case("work folder read-only", read_only_work_folder, disk_mb=400, folder="work"),
    Case("vendor's answers end half way", half_answers),
    Case("vendor's answers never end", endless_answers),
    Case("one sample of four refused", one_bad_sample("500")),
    Case("one sample of four broken off", one_bad_sample(None, travel={"cut": 30_000})),
    Case("vendor unavailable for a while", unavailable),
)


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
        while file.write(bytes(100_000)):
            pass


def _protect(folder: Path, mode: str) -> None:
    """Make the folder's files immutable, even for root: a disk with open files cannot become read-only."""
    subprocess.run(["chattr", "-R", "-f", mode, folder], check=True)  # noqa: S607


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"]
    subprocess.run(["mount", *options, folder], check=True)  # noqa: S607
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607


def possible(case: Case) -> bool:
    return case.disk_mb is None or os.geteuid() == 0


def run(case: Case, *, outage_seconds: float = OUTAGE_SECONDS) -> list[Row]:
    with cloud() as started, contextlib.ExitStack() as stack:
        if case.disk_mb:
            stack.enter_context(small_disk(started.folder / case.folder, case.disk_mb))
        with Gateway(started, SETTINGS | case.settings) as gateway:
            scene = Scene(started, gateway, outage_seconds)
            uvloop.run(_play(case, scene))
            gateway.stop(30)
        drain(started)
        kept = account(
            started, lambda one: one.read is not None and one.label.startswith("bench-url-"), scene.urls
        )
        return [*scene.rows, *kept.rows()]


async def _play(case: Case, scene: Scene) -> None:
    await scene.expect(200)
    await case.play(scene)
    scene.cloud.calm()
    ends = time.monotonic() + RECOVERY_SECONDS
    while scene.cloud.kept() and time.monotonic() < ends:  # noqa: ASYNC110 - another process empties it
        await asyncio.sleep(0.05)
    await scene.expect(200)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.storage_trouble", description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", default=names, choices=names)
    options = parser.parse_args()
    raise_descriptors()
    fine = True
    for case in CASES:
        if case.name not in options.cases:
            continue
        if possible(case):
            fine &= show(case.name, run(case))
        else:
            sys.stdout.write(f"== {case.name}: left out, it mounts a disk and needs root\n")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
