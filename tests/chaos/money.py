"""`python -m tests.chaos.money --rounds 1000` kills gateways, and counts what was paid.

Callers send requests of all kinds, each with an Idempotency-Key of its own, and repeat each until it has an
answer, whatever gateway answers. In each round a gateway is killed (SIGKILL): at each step of a paid call in
turn (`tests.chaos.mortal.STEPS`), and at a random moment. In the end the vendors' account is compared with
what callers have got and with what the ledger says:

- no wish is paid for more samples than it asked for, and no rewrite is paid for twice;
- each picture that was paid is delivered, or belongs to a call that the ledger calls unknown;
- each picture that is kept anywhere is delivered;
- what the ledger has counted as spent is the sum of its calls, and nothing is left reserved.

With `--postgres URL` the ledger is in a database of its own on that server, otherwise in a SQLite file.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import random
import signal
import sys
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from io import BytesIO
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import uvloop
from PIL import Image
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.chaos.mortal import STEPS, Mortal, Nursery
from tools.rig.callers import GEMINI, GEN, IMAGEN, TEXT_TO_IMAGE, Answer, ask_once, post
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import token
from tools.rig.labelled import drawn, label_of, prompt_of
from tools.rig.postgres import new_database
from tools.rig.processes import raise_descriptors
from tools.rig.report import Row, show

UPSCALE = "/api/v1/image/image-upscale"
SETTINGS = {"UPLOAD_WAIT_SECONDS": "2", "SPOOL_SECONDS": "0.5", "LOG_LEVEL": "warning"}
LONGEST_ROUND_SECONDS = 1.2
LONGEST_MODEL_SECONDS = 0.4
PATIENCE_SECONDS = 120
MOST_TIMES = 4
"""A step is taken so often, at most, before the gateway dies at it."""
CALLERS = 6


def _picture() -> str:
    file = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Kind(NamedTuple):
    """A kind of wish. `samples` are pictures, of which each may be a call."""

    path: str
    samples: int
    body: dict[str, object]


PICTURE = _picture()
KINDS = [
    Kind(TEXT_TO_IMAGE, 4, {"model": model, "sampleCount": 4, "responseFormat": format})
    for model in (IMAGEN, GEMINI)
    for format in ("url", "b64_json")
] + [
    Kind(UPSCALE, 1, {"image": PICTURE}),
    Kind(GEN, 1, {"mode": "text2img", "regen_prompt": True}),
    Kind(GEN, 1, {"mode": "text2img", "regen_prompt": True, "response_format": "url"}),
]


@dataclass
class Wish:
    kind: Kind
    prompt: str
    user: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    answer: Answer | None = None
    tried: Counter[int] = field(default_factory=Counter)
    """How often each status came."""

    @property
    def request(self) -> bytes:
        body = {**self.kind.body, "prompt": self.prompt}
        return post(self.kind.path, token(self.user), body, headers=f"Idempotency-Key: {self.key}\r\n")


@dataclass
class Killing:
    """Gateways that are killed, of which one is alive most of the time, and their callers."""

    cloud: Cloud
    nursery: Nursery
    seed: int
    wishes: list[Wish] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    gateway: Mortal | None = None
    enough: bool = False

    async def caller(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        while not self.enough:
            seconds = chance.uniform(0, LONGEST_MODEL_SECONDS)
            prompt = f"bench-{number}-{len(self.wishes)}-anykb"
            one = Wish(chance.choice(KINDS), f"{prompt} #trouble:slow={seconds:.3f}", f"user-{number}")
            self.wishes.append(one)
            await self.insist(one)

    async def insist(self, one: Wish) -> None:
        """Repeat the wish until it has an answer: pictures, or that the outcome is unknown."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < ends:
            if not self.gateway:
                await asyncio.sleep(0.05)
                continue
            answer = await ask_once(self.gateway.url, one.request)
            one.tried[answer.status] += 1
            if answer.status == 200 or b"receiptId" in answer.body:
                one.answer = answer
                return
            await asyncio.sleep(0.1)

    async def kill(self, rounds: int) -> None:
        chance = random.Random(self.seed)
        callers = [asyncio.create_task(self.caller(number)) for number in range(CALLERS)]
        steps = itertools.cycle([*STEPS, None])
        for at, step in enumerate(itertools.islice(steps, rounds), 1):
            seconds = LONGEST_ROUND_SECONDS if step else chance.uniform(0.05, LONGEST_ROUND_SECONDS)
            self.gateway = await self.start(step, chance.randint(1, MOST_TIMES))
            died = await asyncio.to_thread(self.gateway.has_ended, seconds)
            self.deaths[step if step and died else "at a random moment"] += 1
            ended, self.gateway = self.gateway, None
            await asyncio.to_thread(ended.end)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{at} of {rounds}")
        self.enough = True
        last = self.gateway = await self.start()
        await asyncio.gather(*callers)
        await asyncio.to_thread(last.end, signal.SIGTERM)

    async def start(self, step: str | None = None, number: int = 1) -> Mortal:
        started = await asyncio.to_thread(self.nursery.fork, step, number)
        await asyncio.to_thread(started.wait_until_serving)
        return started


class LedgerCall(NamedTuple):
    key: str
    operation: str
    state: str
    samples: int
    charged: int


async def ledger(url: str) -> tuple[list[LedgerCall], Counter[str]]:
    """Returns all calls, and the counters of all time and all users together."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        calls = await connection.execute(
            text(
                "SELECT wishes.key, calls.operation, calls.state, calls.samples, calls.charged "
                "FROM calls JOIN wishes ON wishes.id = calls.wish"
            )
        )
        names = ("spent_micros", "reserved_micros", "spent_pictures", "reserved_pictures")
        sums = await connection.execute(
            text(f"SELECT {', '.join(f'sum({name})' for name in names)} FROM counters WHERE period = 'total'")  # noqa: S608
        )
        rows = [LedgerCall(*row) for row in calls]
        counted = Counter(dict(zip(names, (int(value or 0) for value in sums.one()), strict=True)))
    await engine.dispose()
    return rows, counted


def delivered(one: Wish, objects: dict[str, str]) -> list[str]:
    """Returns the labels of the pictures that the caller has got. `objects`: labels by path."""
    if one.answer is None or one.answer.status != 200:
        return []
    if urls := one.answer.urls + one.answer.pending:
        return [objects.get(unquote(urlsplit(url).path.lstrip("/")), "nowhere") for url in urls]
    value = json.loads(one.answer.body)
    if "image_url" in value:
        return [objects.get(unquote(urlsplit(value["image_url"]).path.lstrip("/")), "nowhere")]
    texts = [value["image_base64"]] if "image_base64" in value else []
    texts += [sample["bytesBase64Encoded"] for sample in value.get("predictions", ())]
    return [picture_label(base64.b64decode(one)) for one in texts]


def picture_label(data: bytes) -> str:
    """Returns whom the picture was made for, or `broken`."""
    label = label_of(data[:1000])
    return label if label and data == drawn(label) else "broken"


def kept(cloud: Cloud) -> dict[str, set[str]]:
    """Returns the labels of the pictures in the bucket, on the spool and in the private store, by prompt."""
    labels = [picture_label(data) for _, data in cloud.objects()]
    labels += [picture_label(path.read_bytes()) for path in cloud.kept()]
    labels += [picture_label(path.read_bytes()) for path in (cloud.folder / "private").rglob("*.png")]
    found: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        found[prompt_of(label)].add(label)
    return found


def account(killing: Killing, calls: list[LedgerCall], counted: Counter[str]) -> list[Row]:
    objects = {path: picture_label(data) for path, data in killing.cloud.objects()}
    shown = killing.cloud.state()
    paid: dict[str, set[str]] = defaultdict(set)
    asked: Counter[str] = Counter()
    for made in shown.pictures:
        asked[prompt_of(made.label)] += 1
        if made.answered is not None:
            paid[prompt_of(made.label)].add(made.label)
    unknown: Counter[str] = Counter()
    rewrites = Counter(
        call.key for call in calls if call.operation == "rewrite" and call.state not in ("reserved", "void")
    )
    for call in calls:
        if call.state in ("unknown", "abandoned"):
            unknown[call.key] += call.samples
    over, strange = 0, 0
    unanswered = [f" {one.key} {dict(one.tried)}" for one in killing.wishes if not one.answer]
    there = kept(killing.cloud)
    undelivered: list[str] = []
    forgotten: list[str] = []
    for one in killing.wishes:
        prompt = one.prompt.partition(" ")[0]
        got = delivered(one, objects)
        over += max(0, asked[prompt] - one.kind.samples)
        strange += len([label for label in got if label not in paid[prompt]]) + len(got) - len(set(got))
        about = f"{one.kind.path} {one.kind.body.get('model')} {prompt} {one.key}"
        if len(paid[prompt] - set(got)) > unknown[one.key]:
            undelivered.append(about)
        if there[prompt] - set(got):
            forgotten.append(about)
    charged = sum(call.charged for call in calls)
    states = Counter(call.state for call in calls)
    return [
        *(Row(f"killed {where}", times) for where, times in killing.deaths.items()),
        Row("wishes", len(killing.wishes)),
        Row("... tried, together", sum(one.tried.total() for one in killing.wishes)),
        Row("... without an answer", len(unanswered), 0, note="".join(unanswered)),
        Row("pictures paid", sum(map(len, paid.values()))),
        Row("... beyond what was asked for", over, 0),
        Row("... neither delivered nor unknown", len(undelivered), 0, note=" ".join(undelivered)),
        Row("kept, and not delivered", len(forgotten), 0, note=" ".join(forgotten)),
        Row("pictures delivered that are wrong, or twice", strange, 0),
        Row("rewrites sent twice", sum(max(0, n - 1) for n in rewrites.values()), 0),
        Row("samples honestly unknown", sum(unknown.values())),
        Row("calls still open", states["reserved"] + states["sent"], 0),
        Row("micro-USD reserved in the end", counted["reserved_micros"] + counted["reserved_pictures"], 0),
        Row("micro-USD: calls less counters", charged - counted["spent_micros"], 0, 0),
    ]


def run(rounds: int, *, postgres: str | None = None, seed: int = 1) -> list[Row]:
    with contextlib.ExitStack() as stack:
        started = stack.enter_context(cloud())
        url = f"sqlite+aiosqlite:///{started.folder}/gateway.db"
        if postgres:
            url = stack.enter_context(new_database(postgres))
        with Nursery(started, {**SETTINGS, "DATABASE_URL": url}) as nursery:
            killing = Killing(started, nursery, seed)
            uvloop.run(killing.kill(rounds))
        return account(killing, *asyncio.run(ledger(url)))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.money",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument(
        "--postgres", metavar="URL", help="of a server, for example postgresql://user@host/db"
    )
    parser.add_argument("--seed", type=int, default=1, help="for other moments and wishes")
    options = parser.parse_args()
    raise_descriptors()
    sys.exit(not show(f"{options.rounds} kills", run(**vars(options))))


if __name__ == "__main__":
    main()
