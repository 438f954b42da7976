"""A process of its own that works on a ledger: `ledger_process.py URL FOLDER STAGE`.

It prints a line at each step, and is killed by whoever has started it. Stages: `many` begins a hundred wishes
of one picture each under a budget of ten pictures, and prints how many were admitted. `begun`, `fenced` and
`settled` do one wish so far, and wait.
"""

import asyncio
import sys
from pathlib import Path

from app.contract.book import Terms
from app.contract.ledger import Begun, Limit, NewCall
from app.contract.recovery import Beat
from app.pictures.process_folder import ProcessFolder
from app.storage.ledger import Ledger, open_store
from app.storage.recovery import PREFIX
from tests.storage.ledgers import begin
from tools.rig import ends

TEN_PICTURES = Terms(defaults=(Limit("", "pictures", "day", 10),))
CALL_ID = "0123456789abcdef"


def say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str, folder: Path, stage: str) -> None:
    own = ProcessFolder(folder, PREFIX)
    ledger = Ledger(open_store(url, TEN_PICTURES), own.path.name, wait_seconds=60)
    await ledger.do(Beat(ledger.process, "here", str(own.path)))
    if stage == "many":
        say("ready")
        sys.stdin.readline()
        calls = (NewCall(0, "model", "gen", 100, 1) for _ in range(100))
        outcomes = await asyncio.gather(*(begin(ledger, call) for call in calls))
        say(sum(isinstance(outcome, Begun) for outcome in outcomes))
        return
    await begin(ledger, NewCall(0, "model", "gen", 100, 4, id=CALL_ID), key="k")
    if stage != "begun":
        await ledger.fence(CALL_ID, bucket="b", stem="images/x-")
    if stage == "settled":
        await ends.settle(ledger, CALL_ID, charged=100, made=4)
    say(stage)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
