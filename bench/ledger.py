"""`python -m bench.ledger`: what the ledger costs per wish: begun with one call, fenced, and settled.

`full`: it is also finished with an answer, and counts for a user and a key. CPU milliseconds (user and
system) of this process, with so many wishes under way. The database's own CPU is not in it. For PostgreSQL
give a database in whose server databases may be made: `--postgres postgresql://…/test`.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
from pathlib import Path

import uvloop

from app.contract.book import Terms
from app.contract.ledger import Begun, Limit, NewCall, StoredPicture
from app.db import migrate
from app.process import freeze, tune
from app.storage.ledger import Ledger, open_store
from tools.rig import ends
from tools.rig.postgres import new_database

WANTED = "wanted: under 0.3 ms of CPU per wish with 16 under way"
UNDER_WAY = (1, 16, 64)
_TERMS = Terms(defaults=(Limit("", "usd", "day", 10**15), Limit("", "pictures", "month", 10**9)))


async def wish(ledger: Ledger, number: int, full: bool) -> None:
    call = NewCall(0, "gemini-3-pro-image", "text-to-image", 134_000, 1)
    begun = await ledger.begin(
        caller=f"user-{number % 20}",
        route="/api/v1/image/text-to-image",
        key=uuid.uuid4().hex,
        fingerprint=uuid.uuid4().hex,
        scopes=(f"user-{number % 20}", f"key:{number % 40}")[: 1 + full],
        calls=(call,),
    )
    assert isinstance(begun, Begun)
    stem = f"images/generated/text-to-image/20261122_000000_gemini_text-to-image_{call.id}-"
    await ledger.fence(call.id, bucket="pictures", stem=stem)
    picture = StoredPicture(call.id, 0, "pictures", f"{stem}0.png", "image/png")
    async with asyncio.TaskGroup() as together:  # as a request would: nothing waits for the one in between
        together.create_task(ends.settle(ledger, call.id, charged=134_000, made=1, pictures=(picture,)))
        if full:
            together.create_task(ends.finish(ledger, begun.wish, 201, '{"predictions": []}'))


async def measure(url: str, under_way: int, number: int, full: bool) -> tuple[float, float]:
    """Returns CPU and time in milliseconds per wish."""
    ledger = Ledger(open_store(url, _TERMS), "bench")
    left = iter(range(number))

    async def caller() -> None:
        for one in left:
            await wish(ledger, one, full)

    await wish(ledger, 0, full)
    cpu, clock = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(under_way)))
    figures = (time.process_time() - cpu) * 1000 / number, (time.perf_counter() - clock) * 1000 / number
    await ledger.aclose()
    return figures


def main(postgres: str | None, number: int) -> None:
    say(f"{'':18}{'under way':>10}{'CPU ms':>10}{'ms':>10}    per wish; {WANTED}")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{Path(folder)}/ledger.db"
        migrate(url)
        run("SQLite", url, number)
    if postgres:
        with new_database(postgres) as url:
            run("PostgreSQL", url, number)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(name: str, url: str, number: int) -> None:
    tune()
    freeze()  # as the gateway does
    for full in (False, True):
        for under_way in UNDER_WAY:
            cpu, clock = uvloop.run(measure(url, under_way, number, full))
            say(f"{name:12}{'full' if full else '':6}{under_way:10}{cpu:10.3f}{clock:10.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--postgres", help="the URL of a database")
    parser.add_argument("--number", type=int, default=2000, help="wishes per figure")
    arguments = parser.parse_args()
    main(arguments.postgres, arguments.number)
