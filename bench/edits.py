"""`python -m bench.edits`: /health during ten large edits, and memory of a request with a 20 MB picture.

The edits are by a Gemini model, so the gateway composes them under the mask: 15 megapixels each. Memory is
the growth of the gateway's resident set at its highest, in a fresh process that has served one small request,
over the bytes of the request's pictures, in and out. `python -m bench.edits memory` leaves the edits out.
"""

import asyncio
import base64
import os
import secrets
import sys
from io import BytesIO
from typing import Any, NamedTuple

import httpx
from PIL import Image

from bench.run import HealthWatch, Started, forget_peak, gateway_and_emulator, resident_mb
from tools.rig.bodies import OPERATIONS, as_form, as_json, body, encoded, mask, path

WANTED = "wanted: growth under 4.0 x the pictures; /health never above 100 ms\n\n"
EDITS, SIDES = 10, (5000, 3000)


def noise(size: tuple[int, int], mode: str = "RGB") -> bytes:
    pixels = secrets.token_bytes(size[0] * size[1] * len(mode))
    return encoded(Image.frombytes(mode, size, pixels), compress_level=0)


def large(case: str) -> dict[str, Any]:
    """A body with a picture of 20 MB; of less for upscaling, whose answer may have 17 megapixels."""
    match case:
        case "image-upscale":
            return {"image": noise((2060, 2060), "RGBA")}
        case "image-upscale x4":
            return {"image": noise((1030, 1030), "RGBA"), "upscaleFactor": "x4"}
        case "image-edit":
            wish = body(case, sampleCount=1)
            wish["referenceImages"][0]["bytesBase64Encoded"] = noise((2640, 2640))
            wish["referenceImages"][1]["bytesBase64Encoded"] = mask((2640, 2640))
            return wish
        case "image-customize":
            wish = body(case, sampleCount=1)
            wish["referenceImages"][0]["bytesBase64Encoded"] = noise((2640, 2640))
            return wish
        case "virtual-try-on":
            return {
                "personImage": noise((2640, 2640)),
                "productImages": [encoded(Image.new("RGB", (64, 64)))],
            }
        case _:
            return {"productImages": [noise((2640, 2640))]}


def picture_bytes(value: Any) -> int:
    match value:
        case bytes():
            return len(value)
        case dict():
            return sum(map(picture_bytes, value.values()))
        case list():
            return sum(map(picture_bytes, value))
        case _:
            return 0


class Memory(NamedTuple):
    """Of one request, in MB: its pictures in and out, and by how much the gateway grew meanwhile."""

    given: float
    made: float
    growth: float

    @property
    def times(self) -> float:
        return self.growth / (self.given + self.made)


def measure(case: str, *, form: bool, successor: bool = False) -> Memory:
    """Ask a fresh gateway for one small picture and then for a large one. `successor`: made by Gemini."""
    wish = large(case)
    operation = case.split()[0]
    given = picture_bytes(wish)
    with (
        gateway_and_emulator() as gateway,
        httpx.Client(
            base_url=gateway.url, headers={"Authorization": f"Bearer {gateway.token}"}, timeout=120
        ) as client,
    ):
        if successor:
            retire(gateway)
        client.post(path(operation), json=as_json(body(operation))).raise_for_status()
        parts = {"files": list(as_form(wish))} if form else {"json": as_json(wish)}
        request = client.build_request("POST", path(operation), **parts)
        request.read()
        before = resident_mb(gateway.pid)
        forget_peak(gateway.pid)
        answer = client.send(request).raise_for_status()
        growth = resident_mb(gateway.pid, peak=True) - before
    made = sum(len(base64.b64decode(one["bytesBase64Encoded"])) for one in answer.json()["predictions"])
    return Memory(given / 1e6, made / 1e6, growth)


def report(case: str, *, form: bool, successor: bool = False) -> None:
    memory = measure(case, form=form, successor=successor)
    title = f"{case} {'form' if form else 'JSON'}{' successor' if successor else ''}"
    sys.stdout.write(
        f"{title:28} | in {memory.given:5.1f} MB, out {memory.made:5.1f} MB"
        f" | growth {memory.growth:5.0f} MB = {memory.times:5.2f} x\n"
    )
    sys.stdout.flush()


def retire(gateway: Started) -> None:
    order = {"kind": "retired", "model": "imagen-3.0-capability-001"}
    httpx.post(f"{gateway.storage}/__emulator/trouble", json=order).raise_for_status()


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
