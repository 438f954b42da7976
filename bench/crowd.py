"""`python -m bench.crowd` sends the requests of 500 and of 1,000 callers at once, to models that take 5 s.

The callers are 20 users; every request asks for one picture, by text-to-image (stored) and by /gen. The
gateway has its default settings, except that RATE_LIMIT is empty. The hand-written floor serves the same
number of callers in the same run. Every picture is compared with the vendor's, byte for byte.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import pybase64
import uvloop

from bench.health import HealthWatch
from bench.run import FLOOR_MALLOC
from tools.rig.callers import GEN, TEXT_TO_IMAGE, Answer, ask, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.http1 import connect
from tools.rig.labelled import drawn, label_of, prompt_of
from tools.rig.processes import SECRET, forget_peak, free_ports, raise_descriptors, resident_mb, running
from tools.rig.report import Row, show

USERS = 20
SECONDS = 5.0
MOST_MB = {500: 200.0, 1000: 300.0}
MOST_HEALTH_MS = 100.0
KINDS = {"text-to-image": TEXT_TO_IMAGE, "gen": GEN}


@dataclass
class Served:
    """What the callers received. `wrong`: responses with 200 but without the caller's own, whole picture."""

    statuses: Counter[int]
    seconds: float
    wrong: int = 0


def request(kind: str, prompt: str, user: int) -> bytes:
    body = wish(prompt) if kind == "text-to-image" else {"mode": "text2img", "prompt": prompt}
    return post(KINDS[kind], token(f"user-{user}"), body)


async def crowd(url: str, requests: Sequence[bytes], own: Callable[[int, Answer], bool]) -> Served:
    """Send all requests at once. `own` returns whether a response has the right picture."""
    clients = [await connect(url) for _ in requests]
    started = time.perf_counter()
    served = Served(Counter(), 0)

    async def caller(number: int) -> None:
        answer = await ask(clients[number], requests[number])
        clients[number].transport.close()
        served.statuses[answer.status] += 1
        served.seconds = time.perf_counter() - started
        if answer.status == 200 and not own(number, answer):
            served.wrong += 1

    await asyncio.gather(*map(caller, range(len(requests))))
    return served


def gen_picture(answer: Answer) -> bytes:
    value = json.loads(answer.body)
    return pybase64.b64decode(value["image_base64"])


def measured(cloud: Cloud, kind: str, callers: int, seconds: float) -> list[Row]:
    prompts = [f"bench-{kind}-{callers}-{number}" for number in range(callers)]
    requests = [request(kind, prompt, number % USERS) for number, prompt in enumerate(prompts)]
    (port,) = free_ports(1)
    floor_url = f"http://127.0.0.1:{port}"
    with running(["-m", "bench.floor", str(port), cloud.url, SECRET], floor_url, FLOOR_MALLOC):
        cloud.forget()
        floor = uvloop.run(crowd(floor_url, requests, lambda *_: True))
    urls: dict[str, str] = {}

    def own(number: int, answer: Answer) -> bool:
        if kind == "text-to-image":
            urls.update(dict.fromkeys(answer.urls, prompts[number]))
            return len(answer.urls) == 1
        picture = gen_picture(answer)
        label = label_of(picture[:1000])
        return bool(label) and prompt_of(label or "") == prompts[number] and picture == drawn(label or "")

    with Gateway(cloud) as gateway:
        uvloop.run(crowd(gateway.url, [request(kind, "bench-first", 0)], lambda *_: True))
        forget_peak(gateway.pid)
        cloud.forget()
        watch = HealthWatch(gateway.url)
        served = uvloop.run(crowd(gateway.url, requests, own))
        health_ms = watch.end()
        peak = resident_mb(gateway.pid, peak=True)
        most = cloud.state().most
        gateway.stop()
    objects = dict(cloud.objects()) if urls else {}
    for url, prompt in urls.items():
        picture = objects.get(unquote(urlsplit(url).path.lstrip("/")), b"")
        label = label_of(picture[:1000])
        served.wrong += not (label and prompt_of(label) == prompt and picture == drawn(label))
    floor_work = floor.seconds - seconds
    others = ", ".join(
        f"{count} x {status or 'no answer'}" for status, count in served.statuses.items() if status != 200
    )
    return [
        Row("answered 200", served.statuses[200], least=callers, note=f"  {others}"),
        Row("... with a wrong picture", served.wrong, 0),
        Row("the vendor saw at once", most, least=callers),
        Row("peak MB of the gateway", round(peak), MOST_MB.get(callers), clock=True),
        Row("longest /health, ms", round(health_ms), MOST_HEALTH_MS, clock=True),
        Row("seconds in all", round(served.seconds, 1), round(seconds + 3 * floor_work, 1), clock=True),
        Row("... of the floor", round(floor.seconds, 1), note=f"  {floor.statuses[200]} x 200"),
    ]


def run(callers: int, kind: str, seconds: float = SECONDS) -> list[Row]:
    with cloud(seconds, watch_readers=False) as started:
        return measured(started, kind, callers, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--callers", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the model takes")
    options = parser.parse_args()
    raise_descriptors()
    fine = True
    for callers in options.callers:
        for kind in options.kinds:
            fine &= show(f"{kind}, {callers} callers", run(callers, kind, options.seconds))
    sys.exit(not fine)


if __name__ == "__main__":
    main()
