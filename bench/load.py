"""Callers for `bench.run`: they repeat one request, and check every picture that they receive."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from tools.rig.http1 import Client, Message, connect

Check = Callable[[Message], list[str]]
"""Checks a response and returns the URLs of its stored pictures. Raises AssertionError."""


class Wish(NamedTuple):
    """A request, and how its answer is checked. `pictures` are what is stored for it, in their order."""

    path: str
    content_type: str
    body: bytes
    check: Check
    pictures: tuple[bytes, ...] = ()

    def as_http(self, token: str) -> bytes:
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def summary(answer: Message) -> bytes:
    """Returns the beginning of a response, for an assertion's message."""
    return answer.head + bytes(answer.view(0, min(answer.length, 1000)))


def refused(answer: Message) -> list[str]:
    assert answer.status == 400, summary(answer)
    return []


def urls(answer: Message) -> list[str]:
    assert answer.status == 200, summary(answer)
    return [image["url"] for image in json.loads(bytes(answer.view(0, answer.length)))["images"]]


def holds(name: str, base64: bytes) -> Check:
    """Returns a check that the response has a member of this name with exactly this text."""
    expected = b'"' + base64 + b'"'

    def check(answer: Message) -> list[str]:
        assert answer.status == 200, summary(answer)
        colon = answer.buffer.find(b":", answer.buffer.find(f'"{name}"'.encode(), 0, answer.length))
        start = answer.buffer.find(b'"', colon, answer.length)
        assert answer.buffer.startswith(expected, start, answer.length), f"another picture in {name}"
        return []

    return check


class Loaded(NamedTuple):
    """How long each request took (ms), shortest first, and the URLs of the pictures stored."""

    took: list[float]
    urls: list[str]


async def load(url: str, token: str, wish: Wish, in_flight: int, requests: int) -> Loaded:
    """Send `requests` requests, `in_flight` at a time."""
    sent = [wish.as_http(token)]
    left = iter(range(requests))
    took: list[float] = []
    stored: list[str] = []

    async def call(client: Client) -> None:
        for _ in left:
            started = time.perf_counter()
            answer = await client.ask(sent)
            took.append((time.perf_counter() - started) * 1000)
            stored.extend(wish.check(answer))

    clients = [await connect(url) for _ in range(in_flight)]
    await asyncio.gather(*map(call, clients))
    for client in clients:
        client.transport.close()
    return Loaded(sorted(took), stored)


async def look(stored: list[str], wish: Wish, requests: int) -> None:
    """Read every stored picture. Raises AssertionError if one is missing, or is not the vendor's."""
    assert len(stored) == requests * len(wish.pictures)
    if not stored:
        return
    client = await connect(stored[0])
    for number, url in enumerate(stored):
        answer = await client.ask([f"GET {urlsplit(url).path} HTTP/1.1\r\nHost: s\r\n\r\n".encode()])
        assert answer.status == 200, summary(answer)
        picture = wish.pictures[number % len(wish.pictures)]
        same = answer.length == len(picture) and answer.buffer.startswith(picture)
        assert same, f"another picture in {url}"
    client.transport.close()


async def vendors_answer(emulator: str, path: str, body: bytes) -> bytes:
    """Returns the emulated vendor's response to a POST."""
    client = await connect(emulator)
    head = f"POST {path} HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\n"
    answer = await client.ask([f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body])
    client.transport.close()
    assert answer.status == 200, summary(answer)
    return bytes(answer.view(0, answer.length))
