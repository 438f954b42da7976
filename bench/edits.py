"""`python -m bench.edits`: /health during ten large edits, and memory of a request with a 20 MB picture.

The edits are by a Gemini model, so the gateway composes them under the mask: 15 megapixels each. Memory is
the growth of the gateway's resident set at its highest, in a fresh process that has served one small request,
over the bytes of the request's pictures, in and out. `python -m bench.edits memory` leaves the edits out.
"""

import asyncio
import base64
import os
import sys
from io import BytesIO
from typing import Any

import httpx
from PIL import Image

from bench.health import HealthWatch
from tools.rig.bodies import OPERATIONS, as_form, body, encoded, mask, path
from tools.rig.large_requests import measure, retire
from tools.rig.processes import Started, gateway_and_emulator, resident_mb

WANTED = "wanted: growth under 4.0 x the pictures; /health never above 100 ms\n\n"
EDITS, SIDES = 10, (5000, 3000)


def report(case: str, *, form: bool, successor: bool = False) -> None:
    memory = measure(case, form=form, successor=successor)
    title = f"{case} {'form' if form else 'JSON'}{' successor' if successor else ''}"
    sys.stdout.write(
        f"{title:28} | in {memory.given:5.1f} MB, out {memory.made:5.1f} MB"
        f" | growth {memory.growth:5.0f} MB = {memory.times:5.2f} x\n"
    )
    sys.stdout.flush()


async def edit(gateway: Started, wish: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {gateway.token}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=120) as client:
        answer = await client.post(path("image-edit"), files=list(as_form(wish)))
    answer.raise_for_status()
    size = Image.open(BytesIO(base64.b64decode(answer.json()["predictions"][0]["bytesBase64Encoded"]))).size
    assert size == SIDES


def ten_edits() -> None:
    wish = body("image-edit", sampleCount=1)
    photo = Image.effect_noise((500, 300), 90).convert("RGB").resize(SIDES)
    wish["referenceImages"][0]["bytesBase64Encoded"] = encoded(photo, "JPEG", quality=90)
    wish["referenceImages"][1]["bytesBase64Encoded"] = mask(SIDES)

    async def together(gateway: Started) -> None:
        await asyncio.gather(*(edit(gateway, wish) for _ in range(EDITS)))

    with gateway_and_emulator() as gateway:
        retire(gateway)
        watch = HealthWatch(gateway.url, every_seconds=0.01)
        os.setpriority(os.PRIO_PROCESS, 0, 19)  # the callers are elsewhere: they step back for the gateway
        asyncio.run(together(gateway))
        longest = watch.end()
        sys.stdout.write(f"{EDITS} edits of 15 megapixels at once: longest /health {longest:.0f} ms, ")
        sys.stdout.write(f"peak RSS {resident_mb(gateway.pid, peak=True):.0f} MB\n")


def main() -> None:
    sys.stdout.write(WANTED)
    if "memory" not in sys.argv:
        ten_edits()
    for case in (*OPERATIONS, "image-upscale x4"):
        for form in (False, True):
            report(case, form=form)
    for form in (False, True):
        report("image-edit", form=form, successor=True)


if __name__ == "__main__":
    main()
