"""`python -m bench.soak --minutes 15` keeps 16 callers busy, with 2 % faults: does anything grow?

The callers ask for stored pictures of Imagen and of Gemini, for base64, /gen and upscales. Two requests of a
hundred meet a fault: the vendor refuses, breaks off or is slow, or the caller hangs up. Storage fails for 2 %
of the time. Resident memory, descriptors and temporary files are read once a second. They must be the same in
the last third of the time as in the first.
"""

import argparse
import asyncio
import base64
import contextlib
import random
import shutil
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import uvloop

from bench.account import drain
from bench.leavers import UPSCALE
from tools.rig.callers import GEMINI, GEN, IMAGEN, TEXT_TO_IMAGE, ask_once, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.labelled import drawn
from tools.rig.processes import raise_descriptors, resident_mb
from tools.rig.report import Row, show

CALLERS = 16
FAULTS = 0.02
MODEL_SECONDS = 0.3
STORAGE_FAILS_SECONDS = 1.2
"""In every minute."""
MOST_GROWTH_MB, MOST_MORE_DESCRIPTORS, MOST_MORE_FILES = 15.0, 5.0, 2.0
_TROUBLES = ("500", "503", "429=1", "drop", "slow=3", "hang up")


@dataclass
class Figures:
    """One of each for every second."""

    resident_mb: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    temporary_files: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def rows(self) -> list[Row]:
        served = ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(self.statuses.items()))
        rows = [Row("answers", served)]
        for name, figures, most in (
            ("MB resident", self.resident_mb, MOST_GROWTH_MB),
            ("descriptors", self.descriptors, MOST_MORE_DESCRIPTORS),
            ("temporary files", self.temporary_files, MOST_MORE_FILES),
        ):
            third = len(figures) // 3
            first, last = statistics.median(figures[:third]), statistics.median(figures[-third:])
            note = f"  from {first:.0f} to {last:.0f}; at most {max(figures):.0f}"
            rows.append(Row(f"{name}: growth of the median", round(last - first, 1), most, note=note))
        return rows


class Load:
    def __init__(self, cloud: Cloud, gateway: Gateway, seed: int) -> None:
        self.figures = Figures()
        self._cloud = cloud
        self._gateway = gateway
        self._chance = random.Random(seed)  # noqa: S311 - to be repeated
        self._upload = base64.b64encode(drawn("bench-upload/0/300")).decode()
        self._sent = 0

    async def caller(self, ends: float) -> None:
        while time.monotonic() < ends:
            fault = self._chance.random() < FAULTS
            trouble = self._chance.choice(_TROUBLES) if fault else f"slow={MODEL_SECONDS}"
            patience = self._chance.uniform(0, 0.5) if trouble == "hang up" else 60
            answer = await ask_once(self._gateway.url, self._request(trouble), within=patience)
            if patience == 60:
                self.figures.statuses[answer.status] += 1

    def _request(self, trouble: str) -> bytes:
        self._sent += 1
        user = token(f"user-{self._sent % 20}")
        word = "slow=1" if trouble == "hang up" else trouble
        prompt = f"bench-soak-{self._sent}-anykb #trouble:{word}"
        match self._chance.randrange(8):
            case 0 | 1 | 2:
                body = wish(prompt, model=IMAGEN, samples=self._chance.randint(1, 4))
            case 3 | 4:
                body = wish(prompt, model=GEMINI, samples=self._chance.randint(1, 4))
            case 5:
                body = wish(prompt, responseFormat="b64_json")
            case 6:
                return post(GEN, user, {"mode": "text2img", "prompt": prompt})
            case _:
                return post(UPSCALE, user, {"image": self._upload})
        return post(TEXT_TO_IMAGE, user, body)

    async def watch(self, ends: float) -> None:
        """Read the figures, let storage fail now and then, and empty the bucket."""
        second = 0
        while time.monotonic() < ends:
            await asyncio.sleep(1)
            second += 1
            self.figures.resident_mb.append(resident_mb(self._gateway.pid))
            self.figures.descriptors.append(self._gateway.descriptors().total())
            self.figures.temporary_files.append(len(self._cloud.temporary_files()))
            if second % 60 == 30:
                self._cloud.trouble("503")
                await asyncio.sleep(STORAGE_FAILS_SECONDS)
                self._cloud.calm()
                self._cloud.forget()
                with contextlib.suppress(OSError):  # an object is just being stored
                    shutil.rmtree(self._cloud.folder / "objects" / "image-gateway")

    async def run(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        await asyncio.gather(self.watch(ends), *(self.caller(ends) for _ in range(CALLERS)))


def run(seconds: float, *, seed: int = 1) -> list[Row]:
    with cloud(watch_readers=False) as started:
        with Gateway(started) as gateway:
            load = Load(started, gateway, seed)
            uvloop.run(Load(started, gateway, seed).run(min(10, seconds / 4)))  # until it is warm
            uvloop.run(load.run(seconds))
            gateway.stop()
        drain(started)
        left = len(started.kept())
        return [*load.figures.rows(), Row("files left on the spool", left, 0)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=1, help="for other requests and faults")
    options = parser.parse_args()
    raise_descriptors()
    rows = run(options.minutes * 60, seed=options.seed)
    sys.exit(not show(f"soak of {options.minutes:g} minutes", rows))


if __name__ == "__main__":
    main()
