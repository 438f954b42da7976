"""Acme's side of the wire: a server on a real socket that rehearses what `X-Trouble` asks for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import orjson
import pybase64
from PIL import Image

from tests.providers.peers import Peer, Server, serving

MODEL = """
[[model]]
id = "acme-1"
vendor = "acme"
family = "acme"
short = "acme1"
location = "global"
operations = ["text2img"]
status = "active"
source = "example.com/models/acme-1"
"""


@asynccontextmanager
async def acme_cloud() -> AsyncIterator[Server]:
    async with serving(_handle) as server:
        yield server


async def _handle(peer: Peer) -> None:
    while True:
        request = await peer.request()
        kind, _, seconds = request.headers["x-trouble"].partition("=")
        match kind:
            case "drop":
                return
            case "hang":
                await asyncio.wait_for(peer.hung_up(), 20)
                return
            case "429" | "503":
                pause = f"Retry-After: {seconds or 0}"
                peer.answer(orjson.dumps({"error": "busy"}), f"{kind} Later", pause)
            case "500":
                peer.answer(orjson.dumps({"error": "broken"}), "500 Broken")
            case "retired":
                peer.answer(orjson.dumps({"error": "gone"}), "404 Gone")
            case "empty":
                peer.answer(b"{}")
            case _:
                peer.answer(orjson.dumps({"picture": _picture()}))


def _picture() -> str:
    file = BytesIO()
    Image.new("RGB", (64, 64), "orange").save(file, "PNG")
    return pybase64.b64encode_as_string(file.getvalue())
