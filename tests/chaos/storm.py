"""`python -m tests.chaos.storm --postgres URL`: clients that retry are paid for once.

So many clients ask at the same moment, each for one picture and with an Idempotency-Key of its own. A model
takes 3 s, and a client waits for 1 s: it hangs up and tries again, twice, after the pauses of OpenAI's SDK.
A client that has used its tries begins again, as its user would, until it has an answer. Each try goes to one
of two gateways, at random, which share a database on the server.

In the end the vendor must have seen exactly one call of each client, and each must have its own picture.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass

import uvloop

from tests.chaos.money import Kind, LedgerCall, Wish, delivered, ledger, picture_label
from tools.rig.callers import GEMINI, GEN, IMAGEN, TEXT_TO_IMAGE, ask_once
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway
from tools.rig.labelled import prompt_of
from tools.rig.postgres import new_database
from tools.rig.processes import raise_descriptors
from tools.rig.report import Row, show

MODEL_SECONDS = 3.0
PATIENCE_SECONDS = 1.0
PAUSES_SECONDS = (0.5, 1.0)
"""Before the first and the second retry. The SDK takes up to a quarter off, at random."""
TRIES = len(PAUSES_SECONDS) + 1
REPEATED = (0, 408, 409, 429)
"""The statuses below 500 that the SDK repeats. 0: no answer."""
GIVE_UP_SECONDS = 120
USERS = 20
KINDS = [
    Kind(TEXT_TO_IMAGE, 1, {"model": model, "responseFormat": format})
    for model in (IMAGEN, GEMINI)
    for format in ("url", "b64_json")
] + [Kind(GEN, 1, {"mode": "text2img", "response_format": format}) for format in ("url", "b64_json")]


@dataclass
class Storm:
    urls: tuple[str, str]
    wishes: list[Wish]
    seed: int

    async def client(self, number: int) -> None:
        """Try until there is an answer that is worth no repetition."""
        chance, one = random.Random(f"{self.seed} {number}"), self.wishes[number]
        request = one.request
        ends = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < ends:
            answer = await ask_once(chance.choice(self.urls), request, within=PATIENCE_SECONDS)
            one.tried[answer.status] += 1
            if answer.status not in REPEATED and answer.status < 500:
                one.answer = answer
                return
            pause = PAUSES_SECONDS[min((one.tried.total() - 1) % TRIES, len(PAUSES_SECONDS) - 1)]
            await asyncio.sleep(pause * chance.uniform(0.75, 1))

    async def clients(self) -> None:
        await asyncio.gather(*map(self.client, range(len(self.wishes))))


def account(
    storm: Storm, cloud: Cloud, clients: int, calls: list[LedgerCall], counted: Counter[str]
) -> list[Row]:
    objects = {path: picture_label(data) for path, data in cloud.objects()}
    made = cloud.state().pictures
    own = 0
    for one in storm.wishes:
        own += [prompt_of(label) for label in delivered(one, objects)] == [one.prompt]
    charged = sum(call.charged for call in calls)
    states = Counter(call.state for call in calls)
    tried = sum((one.tried for one in storm.wishes), Counter[int]())
    statuses = ", ".join(f"{n} x {status or 'no answer'}" for status, n in sorted(tried.items()))
    late = sum(one.tried.total() > TRIES for one in storm.wishes)
    return [
        Row("clients", clients),
        Row("... with their own picture", own, clients, clients),
        Row("... that needed more than two retries", late, 0, clock=True),
        Row("tries", tried.total(), note=f"  {statuses}"),
        Row("calls that the vendor saw", len(made), clients, clients),
        Row("... that are paid", sum(one.answered is not None for one in made), clients, clients),
        Row("... of one client", max(Counter(prompt_of(one.label) for one in made).values(), default=0), 1),
        Row("calls settled in the ledger", states["settled"], clients, clients),
        Row("... charged for no picture", states["unknown"] + states["abandoned"], 0),
        Row("... still open", states["reserved"] + states["sent"], 0),
        Row("pictures spent", counted["spent_pictures"], clients, clients),
        Row("micro-USD: calls less counters", charged - counted["spent_micros"], 0, 0),
        Row("reserved in the end", counted["reserved_micros"] + counted["reserved_pictures"], 0),
    ]


def run(clients: int, *, postgres: str, seconds: float = MODEL_SECONDS, seed: int = 1) -> list[Row]:
    with cloud(seconds, watch_readers=False) as started, new_database(postgres) as url:
        settings = {"DATABASE_URL": url, "LOG_LEVEL": "warning"}
        with Gateway(started, settings) as one, Gateway(started, settings) as two:
            wishes = [
                Wish(KINDS[number % len(KINDS)], f"bench-storm-{number}-40kb", f"user-{number % USERS}")
                for number in range(clients)
            ]
            storm = Storm((one.url, two.url), wishes, seed)
            uvloop.run(storm.clients())
            one.stop()
            two.stop()
        return account(storm, started, clients, *asyncio.run(ledger(url)))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.storm",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--postgres", metavar="URL", required=True, help="of a server, for example postgresql://user@host/db"
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=MODEL_SECONDS, help="how long the model takes")
    parser.add_argument("--seed", type=int, default=1, help="for other pauses and gateways")
    options = parser.parse_args()
    raise_descriptors()
    sys.exit(not show(f"{options.clients} clients that retry", run(**vars(options))))


if __name__ == "__main__":
    main()
