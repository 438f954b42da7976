"""Sends requests to a gateway, and reads which pictures the responses contain or name."""

import asyncio
import json
from collections.abc import Mapping
from typing import NamedTuple

from tools.rig.http1 import Client, Message, connect

TEXT_TO_IMAGE, GEN = "/api/v1/image/text-to-image", "/gen"
IMAGEN, GEMINI = "imagen-3.0-generate-001", "gemini-2.5-flash-image"


class Answer(NamedTuple):
    """A response. `urls`: of stored pictures. `pending`: of pictures stored later. Status 0: no response."""

    status: int
    urls: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    body: bytes = b""


NONE = Answer(0)


def post(path: str, user_token: str, body: Mapping[str, object], *, headers: str = "") -> bytes:
    """Returns the bytes of a request. `headers`: further lines, each with its line break."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {user_token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    )
    return head.encode() + data


def wish(prompt: str, *, model: str = IMAGEN, samples: int = 1, **more: object) -> dict[str, object]:
    return {"prompt": prompt, "model": model, "sampleCount": samples, **more}


async def ask(client: Client, request: bytes, *, within: float = 200) -> Answer:
    """Returns NONE if the connection breaks, or no response comes `within` so many seconds."""
    try:
        async with asyncio.timeout(within):
            return read(await client.ask([request]))
    except (OSError, TimeoutError):
        client.transport.abort()
        return NONE


async def ask_once(url: str, request: bytes, *, within: float = 200) -> Answer:
    try:
        client = await connect(url)
    except OSError:
        return NONE
    try:
        return await ask(client, request, within=within)
    finally:
        client.transport.close()


def read(message: Message) -> Answer:
    data = bytes(message.view(0, message.length))
    if len(data) > 100_000:  # pictures, no URLs
        return Answer(message.status, body=data)
    try:
        value = json.loads(data)
    except ValueError:
        return Answer(message.status, body=data)
    urls = [one["url"] for key in ("images", "predictions") for one in value.get(key, ()) if "url" in one]
    pending = [one["url"] for one in value.get("pending", ())]
    return Answer(message.status, tuple(urls), tuple(pending), data)
