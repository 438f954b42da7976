"""Requests with pictures of 20 MB, and how much memory the gateway takes for one of them."""

import base64
import secrets
from typing import Any, NamedTuple

import httpx
from PIL import Image

from tools.rig.bodies import as_form, as_json, body, encoded, mask, path
from tools.rig.processes import Started, forget_peak, gateway_and_emulator, resident_mb


def noise(size: tuple[int, int], mode: str = "RGB") -> bytes:
    pixels = secrets.token_bytes(size[0] * size[1] * len(mode))
    return encoded(Image.frombytes(mode, size, pixels), compress_level=0)


def large(case: str) -> dict[str, Any]:
    """Returns a body with a picture of 20 MB; less for upscaling, which returns at most 17 megapixels."""
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
    """MB of one request: of its pictures in and out, and by how much the gateway's memory grew."""

    given: float
    made: float
    growth: float

    @property
    def times(self) -> float:
        return self.growth / (self.given + self.made)


def measure(case: str, *, form: bool, successor: bool = False) -> Memory:
    """Send a small request and then a large one to a new gateway. `successor`: a Gemini model serves it."""
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


def retire(gateway: Started) -> None:
    order = {"kind": "retired", "model": "imagen-3.0-capability-001"}
    httpx.post(f"{gateway.storage}/__emulator/trouble", json=order).raise_for_status()
