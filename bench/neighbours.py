"""`python -m bench.neighbours` measures how much some users with many requests slow down other users.

- A model that hangs: 200 requests of 20 users wait for Imagen, which never responds.
- One user with 60 requests of four pictures each, of a model that takes 10 s.

Meanwhile another user sends the requests named in the rows, one after the other, five times, to models that
take half a second. Each row shows the longest wait and its limit: the longest of five waits without
neighbours, and half a second more for a busy machine.
"""

import argparse
import asyncio
import base64
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from bench.stops import until
from tools.rig.callers import GEMINI, GEN, TEXT_TO_IMAGE, ask_once, post, wish
from tools.rig.cloud import Cloud, cloud
from tools.rig.gateways import Gateway, token
from tools.rig.labelled import drawn
from tools.rig.processes import raise_descriptors
from tools.rig.report import Row, show

UPSCALE = "/api/v1/image/image-upscale"
TIMES = 5
SPARE_SECONDS = 0.5
MODEL_SECONDS = 0.5
HANGING, GREEDY = "200 requests for a model that hangs", "one user with 60 requests x 4 pictures, 10 s each"


@dataclass(frozen=True)
class Asked:
    """A request of another user, and the status that it must have."""

    request: bytes
    status: int = 200


def asked_by_others() -> dict[str, Asked]:
    user = token("neighbour")
    picture = base64.b64encode(drawn("bench-upload/0/40")).decode()
    login = post(
        "/api/v1/auth/login", user, {"username": f"nobody-{secrets.token_hex(4)}", "password": "wrong"}
    )
    return {
        "text-to-image by Imagen 4": Asked(
            post(TEXT_TO_IMAGE, user, wish("bench-other", model="imagen-4.0-generate-001"))
        ),
        "text-to-image by Gemini": Asked(post(TEXT_TO_IMAGE, user, wish("bench-other", model=GEMINI))),
        "upscale": Asked(post(UPSCALE, user, {"image": picture})),
        "/gen": Asked(post(GEN, user, {"mode": "text2img", "prompt": "bench-other"})),
        "login": Asked(login, 401),
        "/health": Asked(b"GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n"),
    }


def neighbours(name: str) -> Sequence[bytes]:
    if name == HANGING:
        body = wish("bench-hanging #trouble:slow=100")
        return [post(TEXT_TO_IMAGE, token(f"user-{number % 20}"), body) for number in range(200)]
    body = wish("bench-greedy #trouble:slow=10", samples=4)
    return [post(TEXT_TO_IMAGE, token("greedy"), body)] * 60


async def waits(url: str, times: int) -> tuple[dict[str, float], list[str]]:
    """Returns the longest wait for each thing in seconds, and those that got another status."""
    longest: dict[str, float] = {}
    wrong = []
    for _ in range(times):
        for name, asked in asked_by_others().items():
            begun = time.perf_counter()
            answer = await ask_once(url, asked.request)
            longest[name] = max(longest.get(name, 0), time.perf_counter() - begun)
            if answer.status != asked.status:
                wrong.append(f"{name}: {answer.status}")
    return longest, wrong


async def play(started: Cloud, url: str, name: str, times: int) -> list[Row]:
    await waits(url, 1)  # until it is warm
    alone, _ = await waits(url, times)
    started.forget()
    requests = neighbours(name)
    theirs = [asyncio.create_task(ask_once(url, request)) for request in requests]
    await until(lambda: len(started.state().pictures) >= len(requests))
    meanwhile, wrong = await waits(url, times)
    under_way = sum(not one.done() for one in theirs)
    for one in theirs:
        one.cancel()
    await asyncio.gather(*theirs, return_exceptions=True)
    return [
        Row("requests of neighbours that were under way", under_way, least=1),
        Row("others with another status than wanted", len(wrong), 0, note=f"  {', '.join(wrong)}"),
        *(
            Row(f"{thing}, s", round(seconds, 2), round(alone[thing] + SPARE_SECONDS, 2), clock=True)
            for thing, seconds in meanwhile.items()
        ),
    ]


def run(name: str, *, times: int = TIMES) -> list[Row]:
    with cloud(MODEL_SECONDS, watch_readers=False) as started, Gateway(started) as gateway:
        return uvloop.run(play(started, gateway.url, name, times))


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m bench.neighbours", description=__doc__, formatter_class=formatter
    )
    parser.add_argument("--cases", nargs="+", default=[HANGING, GREEDY], choices=[HANGING, GREEDY])
    parser.add_argument("--times", type=int, default=TIMES, help="how often another user asks for each thing")
    options = parser.parse_args()
    raise_descriptors()
    fine = [show(name, run(name, times=options.times)) for name in options.cases]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
