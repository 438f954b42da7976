"""`python -m bench.refusals`: 300 requests a second that a budget refuses, and how long /health waits.

Twenty users have spent their budgets. Requests arrive at a fixed rate, however long their answers take, and
/health is asked every 10 ms from a process of its own. For comparison: /health alone, and the same rate of
requests that are refused as wrong (400), which never reach the ledger. A 402 of a request with an
Idempotency-Key costs more: its key is recorded, and given up again.

The ledger is in a SQLite file; with `--postgres URL` also in a database of its own on that server.
"""

import argparse
import asyncio
import gc
import multiprocessing
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import NamedTuple

import httpx
import uvloop

from tools.rig.callers import TEXT_TO_IMAGE, ask_once, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.http1 import Client, connect
from tools.rig.postgres import new_database
from tools.rig.processes import cpu_seconds, raise_descriptors
from tools.rig.report import Row, show

RATE = 300
SECONDS = 20.0
USERS = 20
EVERY_SECONDS = 0.01
IDLE_SECONDS = 2.0
"""A connection that has been idle for longer is not used again: the gateway closes it after 5 s."""
MOST_HEALTH_MS = 50.0
SETTINGS = {"BUDGET": "1 pictures/day; 5 USD/month", "LOG_LEVEL": "warning"}


class Kind(NamedTuple):
    """Requests, made from their number, and the status of their answers."""

    name: str
    status: int
    request: Callable[[int], bytes]


def _user(number: int) -> str:
    return f"user-{number % USERS}"


def kinds() -> list[Kind]:
    tokens = [token(_user(number)) for number in range(USERS)]

    def plain(number: int) -> bytes:
        return post(TEXT_TO_IMAGE, tokens[number % USERS], wish("a lighthouse"))

    def keyed(number: int) -> bytes:
        key = f"Idempotency-Key: {uuid.uuid4().hex}\r\n"
        return post(TEXT_TO_IMAGE, tokens[number % USERS], wish("a lighthouse"), headers=key)

    def wrong(number: int) -> bytes:
        return post(TEXT_TO_IMAGE, tokens[number % USERS], {"sampleCount": 1})

    return [Kind("400", 400, wrong), Kind("402", 402, plain), Kind("402 with a key", 402, keyed)]


class Watch:
    """Asks /health every 10 ms from a process of its own, over one connection.

    That process collects no garbage: going through all modules that it has inherited takes it 150 ms.
    """

    def __init__(self, url: str) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=self._run, args=(url, theirs))
        self._process.start()
        self._ours.recv()

    @staticmethod
    def _run(url: str, theirs: Connection) -> None:
        gc.disable()
        waits = []
        with httpx.Client(timeout=120) as client:
            client.get(f"{url}/health").raise_for_status()
            theirs.send(None)
            while not theirs.poll(EVERY_SECONDS):
                started = time.perf_counter()
                client.get(f"{url}/health").raise_for_status()
                waits.append((time.perf_counter() - started) * 1000)
        theirs.send(waits)

    def end(self) -> list[float]:
        """Returns how long each answer took, in milliseconds, the longest last."""
        self._ours.send(None)
        waits: list[float] = self._ours.recv()
        self._process.join()
        return sorted(waits)


class Load(NamedTuple):
    """`waits`: how long each answer took, in milliseconds, the longest last."""

    statuses: Counter[int]
    waits: list[float]
    seconds: float


async def load(url: str, kind: Kind, rate: float, seconds: float) -> Load:
    idle: list[tuple[Client, float]] = []
    statuses = Counter[int]()
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def acquire() -> Client:
        while idle:
            client, since = idle.pop()
            if loop.time() - since < IDLE_SECONDS:
                return client
            client.transport.close()
        return await connect(url)

    async def ask(number: int) -> None:
        request = kind.request(number)
        await asyncio.sleep(begun + number / rate - loop.time())
        client = await acquire()
        started = time.perf_counter()
        statuses[(await client.ask([request])).status] += 1
        waits.append((time.perf_counter() - started) * 1000)
        idle.append((client, loop.time()))

    await asyncio.gather(*map(ask, range(int(rate * seconds))))
    took = loop.time() - begun
    for client, _ in idle:
        client.transport.close()
    return Load(statuses, sorted(waits), took)


def percentile(waits: list[float], share: float) -> float:
    return round(waits[int(len(waits) * share)], 1)


def health(waits: list[float], most: float | None = MOST_HEALTH_MS) -> Iterable[Row]:
    yield Row("/health: asked", len(waits))
    yield Row("... p50, ms", percentile(waits, 0.5))
    yield Row("... p99, ms", percentile(waits, 0.99), most, clock=True)
    yield Row("... longest, ms", round(waits[-1], 1))


def measured(cloud: Cloud, gateway: Gateway, kind: Kind, rate: float, seconds: float) -> list[Row]:
    uvloop.run(load(gateway.url, kind, rate, min(1, seconds / 4)))
    cloud.forget()
    watch, cpu = Watch(gateway.url), cpu_seconds(gateway.pid)
    loaded = uvloop.run(load(gateway.url, kind, rate, seconds))
    cpu = cpu_seconds(gateway.pid) - cpu
    waits = watch.end()
    number = loaded.statuses.total()
    return [
        Row("refusals per second", round(number / loaded.seconds), least=round(0.95 * rate), clock=True),
        Row("... with another status", number - loaded.statuses[kind.status], 0),
        Row("... p50, ms", percentile(loaded.waits, 0.5)),
        Row("... p99, ms", percentile(loaded.waits, 0.99)),
        Row("... CPU ms each, /health included", round(cpu * 1000 / number, 2)),
        Row("calls that the vendor saw", len(cloud.state().pictures), 0),
        *health(waits),
    ]


async def spend(url: str) -> None:
    """Let every user make the one picture that the budget allows."""
    requests = [post(TEXT_TO_IMAGE, token(_user(n)), wish(f"bench-spend-{n}-40kb")) for n in range(USERS)]
    answers = await asyncio.gather(*(ask_once(url, request) for request in requests))
    assert [answer.status for answer in answers] == [200] * USERS


def run(postgres: str | None = None, *, rate: float = RATE, seconds: float = SECONDS) -> dict[str, list[Row]]:
    """Returns the rows of each kind."""
    settings = dict(SETTINGS)
    with ExitStack() as stack:
        started = stack.enter_context(cloud(watch_readers=False))
        if postgres:
            settings["DATABASE_URL"] = stack.enter_context(new_database(postgres))
        gateway = stack.enter_context(Gateway(started, settings))
        uvloop.run(spend(gateway.url))
        watch = Watch(gateway.url)
        time.sleep(seconds / 2)
        reports = {"nothing": list(health(watch.end(), None))}
        for kind in kinds():
            reports[kind.name] = measured(started, gateway, kind, rate, seconds)
        gateway.stop()
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.refusals",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--postgres", metavar="URL", help="of a server, for example postgresql://user@host/db"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each kind of requests")
    options = parser.parse_args()
    raise_descriptors()
    gc.freeze()
    fine = True
    for name, server in {"SQLite": None, "PostgreSQL": options.postgres}.items():
        if server or name == "SQLite":
            for kind, rows in run(server, rate=options.rate, seconds=options.seconds).items():
                fine &= show(f"{name}: {kind}", rows)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
