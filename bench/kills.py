"""`python -m bench.kills --rounds 300` kills the gateway (SIGKILL) again and again, with requests under way.

Each round starts a gateway on the same folders, makes storage fast, slow, or failing in one of eight ways,
sends requests from several callers for a random time, and kills the gateway. With `--two`, two gateways share
the spool, and a round kills one of them while the other goes on. At the end, storage works, and one more
gateway uploads what is on the spool.

A picture must be kept if its whole response had arrived at the gateway `--grace-ms` before the kill. It has
arrived when the gateway's process has read the last byte from its socket: the vendor's kernel has nothing
unacknowledged (SIOCOUTQ is 0), and the receive queue of the gateway's socket is empty. The vendor checks this
every 2 ms. The grace is the time that the process needs, on a busy machine, to write the last piece to the
disk. Pictures lost within the grace are reported too.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field

import uvloop

from bench.account import Account, account, drain
from tools.rig.callers import GEMINI, IMAGEN, TEXT_TO_IMAGE, ask, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.http1 import connect
from tools.rig.processes import raise_descriptors
from tools.rig.report import Row, show
from tools.rig.vendors import Made

SETTINGS = {"UPLOAD_WAIT_SECONDS": "1", "SPOOL_SECONDS": "2", "LOG_LEVEL": "warning"}
"""So short that callers receive pending pictures, and the spool is drained, within a round."""
LONGEST_ROUND_SECONDS = 1.2
LONGEST_MODEL_SECONDS = 0.3


@dataclass
class Incarnation:
    """A gateway from its start to its end.

    `killed`: the time of the kill (monotonic). `urls`: the URLs that callers received, by prompt.
    """

    number: int
    gateway: Gateway
    killed: float | None = None
    urls: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    calling: "asyncio.Task[None] | None" = None


@dataclass
class Outcome:
    account: Account
    within_grace: int
    """Pictures that arrived within the grace and are lost."""
    asked: int
    drained_seconds: float

    def rows(self) -> list[Row]:
        return [
            Row("pictures asked for", self.asked),
            *self.account.rows(),
            Row("(lost that arrived within the grace)", self.within_grace),
            Row("seconds until the spool was empty", round(self.drained_seconds, 1)),
        ]


def set_mood(cloud: Cloud, chance: random.Random) -> None:
    """Make storage fast, slow or failing."""
    cloud.calm()
    match chance.choice(("fast", "slow", "failing")):
        case "slow":
            cloud.trouble("slow", arg=round(chance.uniform(0.1, 2), 2))
        case "failing":
            match chance.choice(("503", "500", "401", "hang", "drop", "reset", "cut", "429")):
                case "401":
                    refusal = {"status": 401, "body": {"error": {"code": 401, "message": "Invalid"}}}
                    cloud.trouble("answer", arg=refusal, times=1_000_000)
                case "reset":
                    cloud.trouble(None, travel={"cut": "before", "reset": True})
                case "cut":
                    cloud.trouble(None, travel={"cut": 20})
                case kind:
                    cloud.trouble(kind)


async def calls(one: Incarnation, callers: int, seed: int) -> None:
    """Runs callers that send a request after every response, until the gateway is gone."""

    async def caller(number: int) -> None:
        chance = random.Random(f"{seed} {one.number} {number}")  # noqa: S311 - to be repeated
        sent = 0
        client = await connect(one.gateway.url)
        while not client.transport.is_closing():
            sent += 1
            prompt = f"bench-{one.number}-{number}-{sent}-anykb"
            seconds = chance.uniform(0, LONGEST_MODEL_SECONDS)
            body = wish(
                f"{prompt} #trouble:slow={seconds:.3f}",
                model=chance.choice((IMAGEN, GEMINI)),
                samples=chance.choice((1, 1, 2, 4)),
            )
            answer = await ask(client, post(TEXT_TO_IMAGE, token(f"user-{number}"), body))
            one.urls[prompt] += [*answer.urls, *answer.pending]
            if answer.status not in (0, 200):
                await asyncio.sleep(0.05)
        client.transport.abort()

    with contextlib.suppress(OSError):
        await asyncio.gather(*(caller(number) for number in range(callers)))


async def kill_again_and_again(
    cloud: Cloud, rounds: int, callers: int, seed: int, *, two: bool
) -> list[Incarnation]:
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    all_of_them: list[Incarnation] = []
    alive: list[Incarnation] = []
    try:
        for at in range(rounds):
            await asyncio.to_thread(set_mood, cloud, chance)
            while len(alive) < 1 + two:
                one = Incarnation(len(all_of_them), Gateway(cloud, SETTINGS))
                all_of_them.append(one)
                alive.append(one)
                await asyncio.to_thread(one.gateway.__enter__)
                one.calling = asyncio.create_task(calls(one, callers, seed))
            await asyncio.sleep(chance.uniform(0.05, LONGEST_ROUND_SECONDS))
            victim = alive.pop(chance.randrange(len(alive)))
            victim.killed = victim.gateway.kill()
            assert victim.calling
            await victim.calling
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{at + 1} of {rounds}")
        await asyncio.to_thread(cloud.calm)
    finally:
        for one in alive:  # those that nobody killed end as an operator ends them
            if not await asyncio.to_thread(one.gateway.stop):
                one.killed = time.monotonic()
            if one.calling:
                await one.calling
    return all_of_them


def run(rounds: int, *, two: bool = False, callers: int = 6, grace_ms: float = 50, seed: int = 1) -> Outcome:
    with cloud() as started:
        killed = uvloop.run(kill_again_and_again(started, rounds, callers, seed, two=two))
        seconds = drain(started)
        received = {prompt: urls for one in killed for prompt, urls in one.urls.items()}

        made = {one.label: one for one in started.state().pictures}

        def before_the_kill(one: Made) -> float:
            """Returns the seconds from the arrival of the whole response to the kill, -1 without it."""
            end = killed[int(one.label.split("-")[1])].killed
            if one.read is None:
                return -1
            return float("inf") if end is None else end - one.read

        kept = account(started, lambda one: before_the_kill(one) >= 0, received)
        late = [label for label in kept.lost if before_the_kill(made[label]) < grace_ms / 1000]
        kept.lost = [label for label in kept.lost if label not in late]
        return Outcome(kept, len(late), len(made), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.kills", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--two", action="store_true", help="two gateways share a spool")
    parser.add_argument("--callers", type=int, default=6, help="of each gateway")
    parser.add_argument("--grace-ms", type=float, default=50)
    parser.add_argument("--seed", type=int, default=1, help="for other moments and moods")
    options = parser.parse_args()
    raise_descriptors()
    outcome = run(**vars(options))
    title = f"{options.rounds} kills" + (", two gateways" if options.two else "")
    sys.exit(not show(title, outcome.rows()))


if __name__ == "__main__":
    main()
