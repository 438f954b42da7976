"""`python -m bench.stops` stops the gateway (SIGTERM) with 20 requests under way, and counts what is lost.

The gateway has `--timeout-graceful-shutdown 10`. The cases: a model that takes 20 s, with requests of
different ages, where the process outlives the grace until what was sent has arrived; the same with an
orchestrator that kills it (SIGKILL) 3 s after the grace; storage that refuses or hangs, with all pictures
arrived; the same with SIGKILL half way through the grace; and a second SIGTERM. After each, a new gateway
uploads what is on the spool to working storage. A picture must be kept if the gateway's process had read the
whole response from its socket: see `bench.kills`.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from signal import SIGTERM

import uvloop

from bench.account import Account, account, drain
from tools.rig.callers import IMAGEN, TEXT_TO_IMAGE, Answer, ask_once, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.processes import raise_descriptors
from tools.rig.report import Row, show

REQUESTS = 20
AT_ONCE_SECONDS = 3
PATIENCE_SECONDS = 60


@dataclass
class Times:
    """Seconds. `model` is the slow model, `quick` the one of the other cases, `spare` for the exit itself."""

    model: float = 20
    grace: int = 10
    quick: float = 1
    spare: float = 3


@dataclass
class Outcome:
    exit_seconds: float
    most_seconds: float | None
    statuses: Counter[int]
    account: Account
    finished: int
    """Pictures that the vendor began to send."""

    def rows(self) -> list[Row]:
        statuses = ", ".join(
            f"{count} x {status or 'none'}" for status, count in sorted(self.statuses.items())
        )
        return [
            Row(
                "seconds until it exits (inf: killed)",
                round(self.exit_seconds, 1),
                self.most_seconds,
                clock=True,
            ),
            Row("answers", statuses),
            Row("pictures that the model finished", self.finished),
            *self.account.rows(),
        ]


SLOW, SLOW_KILLED = "a slow model", "a slow model, killed after the grace"
KILLED, SECOND = "storage hangs, killed within the grace", "a second SIGTERM"

Case = Callable[[Cloud, Gateway, Times], Awaitable[tuple[float, "asyncio.Future[list[Answer]]"]]]
"""Sends requests and signals. Returns when the first signal was sent, and the answers to come."""


async def until(true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    ends = time.monotonic() + seconds
    while not await asyncio.to_thread(true):
        assert time.monotonic() < ends, "what was waited for does not come"
        await asyncio.sleep(0.02)


def prompts() -> list[str]:
    return [f"bench-stop-{number}" for number in range(REQUESTS)]


def send(gateway: Gateway, model_seconds: float, over_seconds: float = 0) -> "asyncio.Future[list[Answer]]":
    """Send the requests, one after the other within `over_seconds`."""

    async def one(number: int, prompt: str) -> Answer:
        await asyncio.sleep(over_seconds * number / REQUESTS)
        body = wish(f"{prompt} #trouble:slow={model_seconds}", model=IMAGEN)
        return await ask_once(gateway.url, post(TEXT_TO_IMAGE, token(f"user-{number}"), body))

    return asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts())))


def arrived(cloud: Cloud, pictures: int = REQUESTS) -> bool:
    return sum(one.read is not None for one in cloud.state().pictures) >= pictures


def first_signal(gateway: Gateway) -> float:
    at = time.monotonic()
    gateway.signal(SIGTERM)
    return at


async def slow_model(
    cloud: Cloud, gateway: Gateway, times: Times
) -> tuple[float, "asyncio.Future[list[Answer]]"]:
    """Half of the requests were sent so early that they can finish within the grace."""
    answers = send(gateway, times.model, over_seconds=times.model)
    await until(lambda: len(cloud.state().pictures) == REQUESTS)
    return first_signal(gateway), answers


async def storage_refuses(
    cloud: Cloud, gateway: Gateway, times: Times
) -> tuple[float, "asyncio.Future[list[Answer]]"]:
    cloud.trouble("storage-down")
    answers = send(gateway, times.quick)
    await until(lambda: arrived(cloud))
    return first_signal(gateway), answers


async def storage_hangs(
    cloud: Cloud, gateway: Gateway, times: Times
) -> tuple[float, "asyncio.Future[list[Answer]]"]:
    cloud.trouble("hang")
    answers = send(gateway, times.quick)
    await until(lambda: arrived(cloud))
    return first_signal(gateway), answers


async def second_signal(
    cloud: Cloud, gateway: Gateway, times: Times
) -> tuple[float, "asyncio.Future[list[Answer]]"]:
    """Storage hangs; half of the pictures have arrived, the others are being made."""
    cloud.trouble("hang")
    answers = send(gateway, times.quick, over_seconds=2 * times.quick)
    await until(lambda: arrived(cloud, REQUESTS // 2))
    at = first_signal(gateway)
    await asyncio.sleep(0.2)
    gateway.signal(SIGTERM)
    return at, answers


CASES: dict[str, Case] = {
    SLOW: slow_model,
    SLOW_KILLED: slow_model,
    "storage refuses": storage_refuses,
    "storage hangs": storage_hangs,
    KILLED: storage_hangs,
    SECOND: second_signal,
}


async def play(name: str, cloud: Cloud, gateway: Gateway, times: Times) -> tuple[float, list[Answer]]:
    """Returns the seconds from the signal to the exit, and the answers."""
    at, answers = await CASES[name](cloud, gateway, times)
    patience = {SLOW: times.model + times.spare, KILLED: times.grace / 2}.get(name, times.grace + times.spare)
    await asyncio.to_thread(gateway.wait, patience)
    ended = time.monotonic() if gateway.ended else float("inf")
    gateway.kill()
    return ended - at, await answers


def run(name: str, times: Times) -> Outcome:
    with cloud() as started:
        with Gateway(started, flags=["--timeout-graceful-shutdown", str(times.grace)]) as gateway:
            took, answers = uvloop.run(play(name, started, gateway, times))
        started.calm()
        drain(started)
        received = {
            prompt: [*answer.urls, *answer.pending] for prompt, answer in zip(prompts(), answers, strict=True)
        }
        kept = account(started, lambda one: one.read is not None, received)
        finished = sum(one.answered is not None for one in started.state().pictures)
        most: dict[str, float | None] = {
            SLOW: times.model + times.spare,
            SLOW_KILLED: None,
            KILLED: None,
            SECOND: AT_ONCE_SECONDS,
        }
        return Outcome(
            took,
            most.get(name, times.grace + times.spare),
            Counter(answer.status for answer in answers),
            kept,
            finished,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stops", description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--model-seconds", type=float, default=20, help="how long the slow model takes")
    parser.add_argument("--quick-seconds", type=float, default=1, help="and that of the other cases")
    parser.add_argument("--grace", type=int, default=10)
    parser.add_argument("--spare-seconds", type=float, default=3, help="for the exit itself")
    options = parser.parse_args()
    raise_descriptors()
    times = Times(options.model_seconds, options.grace, options.quick_seconds, options.spare_seconds)
    fine = True
    for name in options.cases:
        fine &= show(name, run(name, times).rows())
    sys.exit(not fine)


if __name__ == "__main__":
    main()
