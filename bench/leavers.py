"""`python -m bench.leavers` hangs up 2,000 times, at random moments, on a gateway that is stopped at times.

Callers hang up before or during their body, while the model works, while its response arrives, and during
the gateway's response, with FIN and with RST. Meanwhile the gateway's process is stopped for up to 0.8 s at a
time (SIGSTOP, SIGCONT), as on a busy machine: it then sees that a caller is gone and that a response has
arrived at the same moment. Afterwards, there must be no more descriptors and temporary files than before, 22
requests of each kind at once must get 200, and each finished picture for a request of URLs must be stored.
"""

import argparse
import asyncio
import base64
import random
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from signal import SIGCONT, SIGSTOP
from typing import Literal, get_args

from bench.account import Account, account, drain
from tools.rig.callers import GEMINI, GEN, IMAGEN, TEXT_TO_IMAGE, Answer, ask_once, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.labelled import drawn
from tools.rig.processes import raise_descriptors
from tools.rig.report import Row, show

LEAVERS = 12
"""Callers at the same time."""
AFTERWARDS = 22
LONGEST_MODEL_SECONDS = 0.6
SPARE_DESCRIPTORS = 10
"""For what a gateway opens once, at its first requests."""
SETTLING_SECONDS = 60.0
UPSCALE = "/api/v1/image/image-upscale"

Moment = Literal["before the body", "in the body", "model", "its answer", "answer"]
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Outcome:
    account: Account
    cut_off: int
    """Calls of requests of URLs that the gateway cut off while the model was at work."""
    descriptors: tuple[int, int]
    """Open before the first request, and in the end."""
    sockets: tuple[int, int]
    temporary_files: int
    under_way: int
    served: Counter[int]
    stopped: int
    spare: int

    def rows(self) -> list[Row]:
        return [
            Row("stops and continues", self.stopped),
            Row("descriptors", self.descriptors[1], self.descriptors[0] + self.spare),
            Row("... of them sockets", self.sockets[1], self.sockets[0] + self.spare),
            Row("temporary files", self.temporary_files, 0),
            Row("calls of models still under way", self.under_way, 0),
            Row("answered 200 afterwards", self.served[200], least=self.served.total()),
            Row("calls for URLs that were cut off", self.cut_off, 0),
            *self.account.rows(),
        ]


class Requests:
    """Requests of all kinds; each has a prompt of its own, which begins with bench-url if URLs are asked."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._count = 0
        self._upload = base64.b64encode(drawn("bench-upload/0/300")).decode()

    def next(self, model_seconds: float) -> bytes:
        self._count += 1
        user = token(f"user-{self._count % 20}")
        stored = f"bench-url-{self._count}-anykb #trouble:slow={model_seconds:.3f}"
        match self._chance.randrange(6):
            case 0 | 1:
                body = wish(stored, model=IMAGEN, samples=self._chance.randint(1, 2))
            case 2 | 3:
                body = wish(stored, model=GEMINI, samples=self._chance.randint(1, 2))
            case 4:
                body = wish(f"bench-gen-{self._count} #trouble:slow=0.1", responseFormat="b64_json")
            case _ if self._chance.random() < 0.7:
                return post(GEN, user, {"mode": "text2img", "prompt": f"bench-gen-{self._count}"})
            case _:
                return post(UPSCALE, user, {"image": self._upload})
        return post(TEXT_TO_IMAGE, user, body)


async def leave(url: str, requests: Requests, chance: random.Random) -> None:
    moment: Moment = chance.choice(get_args(Moment))
    model_seconds = chance.uniform(0, LONGEST_MODEL_SECONDS)
    request = requests.next(model_seconds)
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    head = request.find(b"\r\n\r\n") + 4
    try:
        match moment:
            case "before the body":
                writer.write(request[: chance.randrange(head) if chance.random() < 0.3 else head])
                await asyncio.sleep(chance.uniform(0, 0.05))
            case "in the body":
                writer.write(request[: chance.randrange(head, len(request))])
                await asyncio.sleep(chance.uniform(0, 0.05))
            case "model":
                writer.write(request)
                await asyncio.sleep(chance.uniform(0, LONGEST_MODEL_SECONDS))
            case "its answer":
                writer.write(request)
                await asyncio.sleep(model_seconds + chance.uniform(0, 0.05))
            case "answer":
                writer.write(request)
                async with asyncio.timeout(30):
                    await reader.read(100)
        if chance.random() < 0.5:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


async def stop_and_continue(gateway: Gateway, chance: random.Random, stops: list[float]) -> None:
    while True:
        await asyncio.sleep(chance.uniform(0.05, 0.4))
        seconds = chance.uniform(0.1, 0.8)
        gateway.signal(SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            gateway.signal(SIGCONT)
        stops.append(seconds)


async def leave_again_and_again(gateway: Gateway, hang_ups: int, seed: int) -> int:
    """Returns how often the gateway was stopped meanwhile."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    requests = Requests(chance)
    left = iter(range(hang_ups))
    stops: list[float] = []

    async def leaver() -> None:
        for _ in left:
            await leave(gateway.url, requests, chance)

    stopping = asyncio.create_task(stop_and_continue(gateway, chance, stops))
    await asyncio.gather(*(leaver() for _ in range(LEAVERS)))
    stopping.cancel()
    await asyncio.wait((stopping,))
    return len(stops)


async def afterwards(gateway: Gateway) -> Counter[int]:
    """Ask 22 times for each kind, at once. Returns the statuses."""

    def request(number: int) -> bytes:
        user = token(f"user-{number % 20}")
        if number % 2:
            return post(GEN, user, {"mode": "text2img", "prompt": "bench-after #trouble:slow=0.5"})
        return post(TEXT_TO_IMAGE, user, wish("bench-after #trouble:slow=0.5"))

    answers: list[Answer] = await asyncio.gather(
        *(ask_once(gateway.url, request(number), within=60) for number in range(2 * AFTERWARDS))
    )
    return Counter(answer.status for answer in answers)


def settle(cloud: Cloud, gateway: Gateway, most_descriptors: int) -> None:
    """Wait until everything is back where it was, or for a minute."""
    ends = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < ends and (
        cloud.state().now
        or cloud.kept()
        or cloud.temporary_files()
        or gateway.descriptors().total() > most_descriptors
    ):
        time.sleep(0.2)


def run(hang_ups: int, *, seed: int = 1, spare: int = SPARE_DESCRIPTORS) -> Outcome:
    """`spare` are descriptors that may stay open: idle connections to vendors are closed after a while."""
    with cloud() as started:
        with Gateway(started) as gateway:
            before = gateway.descriptors()
            started.trouble("slow", arg=0.2)
            stopped = asyncio.run(leave_again_and_again(gateway, hang_ups, seed))
            started.calm()
            served = asyncio.run(afterwards(gateway))
            settle(started, gateway, before.total() + spare)
            after = gateway.descriptors()
            files, now = len(started.temporary_files()), started.state().now
            gateway.stop()
        drain(started)
        pictures = [one for one in started.state().pictures if one.label.startswith("bench-url-")]
        kept = account(
            started, lambda one: one.label.startswith("bench-url-") and one.answered is not None, {}
        )
        return Outcome(
            kept,
            cut_off=sum(one.left for one in pictures),
            descriptors=(before.total(), after.total()),
            sockets=(before["socket"], after["socket"]),
            temporary_files=files,
            under_way=now,
            served=served,
            stopped=stopped,
            spare=spare,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.leavers", description=__doc__)
    parser.add_argument("--hang-ups", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="for other moments")
    parser.add_argument(
        "--spare", type=int, default=SPARE_DESCRIPTORS, help="descriptors that may stay open in the end"
    )
    options = parser.parse_args()
    raise_descriptors()
    outcome = run(options.hang_ups, seed=options.seed, spare=options.spare)
    sys.exit(not show(f"{options.hang_ups} hang-ups", outcome.rows()))


if __name__ == "__main__":
    main()
