"""A minimal hand-written server that does the gateway's work: the baseline of `make bench`.

Usage: python -m bench.floor PORT EMULATOR_URL JWT_SECRET

It serves the same requests as the gateway: text-to-image, image-upscale (as a form), /gen, and the refusal of
a request without a prompt. It checks the token, and no other mistake of callers or vendors.
"""

import asyncio
import gc
import hmac
import re
import secrets
import sys
import time
import traceback
from collections.abc import Iterator, Sequence

import google_crc32c
import pybase64
import uvloop

from tools.rig.http1 import Client, Connection, Message, Part, Pool

_MODELS = "/v1/projects/p/locations/us-central1/publishers/google/models"
_UPLOAD = "/upload/storage/v1/b/image-gateway/o?uploadType=multipart&ifGenerationMatch=0"
_TOKEN = re.compile(rb"\r\nAuthorization: Bearer (([\w-]+\.([\w-]+))\.([\w-]+))\r\n")
_EXPIRES = re.compile(rb'"exp": ?(\d+)')
_SAMPLES = re.compile(rb'"sampleCount": ?(\d)')
_BOUNDARY = re.compile(rb"boundary=([\w-]+)")
_BASE64_PIECE = 3 * 64 * 1024
"""Bytes that are encoded and sent at a time: so few that they stay in the processor's cache."""

_UPSCALED = (b'{"predictions":[{"mimeType":"image/png","bytesBase64Encoded":"', b'"}]}')
_MADE = (b'{"status":"success","image_base64":"', b'"}')
_UPSCALE = (
    b'{"instances":[{"prompt":"","image":{"bytesBase64Encoded":"',
    b'"}}],"parameters":{"mode":"upscale","upscaleConfig":{"upscaleFactor":"x2"}}}',
)


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def response(status: str, length: int) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


def plain(status: str, body: bytes) -> bytes:
    return response(status, len(body)) + body


_MAKE = {
    samples: request(
        f"{_MODELS}/imagen-3.0-generate-001:predict",
        b'{"instances":[{"prompt":"a lighthouse"}],"parameters":{"sampleCount":%d}}' % samples,
    )
    for samples in range(1, 5)
}
_GEN = request(
    "/model/stability.stable-diffusion-xl-v1/invoke",
    b'{"text_prompts":[{"text":"a lighthouse","weight":1}],"width":1024,"height":1024,"cfg_scale":7}',
)
_NO_PROMPT = plain("400 Bad Request", b'{"statusCode":400,"message":["prompt is required"]}')
_NO_TOKEN = plain("401 Unauthorized", b'{"statusCode":401}')
_NO_ROUTE = plain("404 Not Found", b'{"statusCode":404}')


def base64_texts(answer: Message, key: bytes) -> Iterator[memoryview]:
    """The texts of all members of that name: what stands between the quotes. The JSON is not parsed."""
    assert answer.status == 200, bytes(answer.view(0, min(answer.length, 1000)))
    end = 0
    while (found := answer.buffer.find(key, end, answer.length)) >= 0:
        start = answer.buffer.find(b'"', answer.buffer.find(b":", found + len(key))) + 1
        end = answer.buffer.find(b'"', start, answer.length)
        yield answer.view(start, end)


class Floor:
    """`emulator` is the address of Vertex AI, Bedrock and Cloud Storage."""

    def __init__(self, emulator: str, secret: bytes) -> None:
        self._emulator = emulator
        self._secret = secret
        self._vendor, self._storage = Pool(emulator), Pool(emulator)
        self.serving: set[asyncio.Task[None]] = set()

    def authentic(self, head: bytes) -> bool:
        token = _TOKEN.search(head)
        if token is None:
            return False
        _, signed, claims, signature = token.groups()
        given = pybase64.urlsafe_b64decode(signature + b"==")
        if not hmac.compare_digest(hmac.digest(self._secret, signed, "sha256"), given):
            return False
        expires = _EXPIRES.search(pybase64.urlsafe_b64decode(claims + b"=="))
        return expires is not None and int(expires[1]) > time.time()

    async def make(self, connection: Connection, asked: Message) -> None:
        samples = _SAMPLES.search(asked.buffer, 0, asked.length)
        vendor = await self._vendor.acquire()
        answer = await vendor.ask([_MAKE[int(samples[1]) if samples else 4]])
        texts = base64_texts(answer, b'"bytesBase64Encoded"')
        pictures = [pybase64.b64decode(text, validate=True) for text in texts]
        self._vendor.release(vendor)
        urls = await asyncio.gather(*(self._upload(picture) for picture in pictures))
        body = b'{"images":[%s]}' % b",".join(b'{"url":"%s"}' % url.encode() for url in urls)
        await connection.write([plain("200 OK", body)])

    async def upscale(self, connection: Connection, asked: Message) -> None:
        boundary = _BOUNDARY.search(asked.head)
        assert boundary
        start = asked.buffer.find(b"\r\n\r\n", asked.buffer.find(b'name="image"')) + 4
        end = asked.buffer.rfind(b"\r\n--" + boundary[1], start, asked.length)
        vendor = await self._vendor.acquire()
        answer = vendor.expect()
        await self._send_upscale(vendor, asked.view(start, end))
        await self._pass_on(connection, await answer, b'"bytesBase64Encoded"', _UPSCALED)
        self._vendor.release(vendor)

    async def gen(self, connection: Connection, _: Message) -> None:
        vendor = await self._vendor.acquire()
        await self._pass_on(connection, await vendor.ask([_GEN]), b'"base64"', _MADE)
        self._vendor.release(vendor)

    async def _send_upscale(self, vendor: Client, picture: memoryview) -> None:
        head, tail = _UPSCALE
        length = len(head) + (len(picture) + 2) // 3 * 4 + len(tail)
        path = f"{_MODELS}/imagen-4.0-upscale-preview:predict"
        lines = f"POST {path} HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\n"
        await vendor.write([f"{lines}Content-Length: {length}\r\n\r\n".encode(), head])
        for at in range(0, len(picture), _BASE64_PIECE):
            await vendor.write([pybase64.b64encode(picture[at : at + _BASE64_PIECE])])
        await vendor.write([tail])

    async def _pass_on(
        self, connection: Connection, answer: Message, key: bytes, around: Sequence[bytes]
    ) -> None:
        head, tail = around
        (text,) = base64_texts(answer, key)
        length = len(head) + len(text) + len(tail)
        await connection.write([response("200 OK", length) + head, text, tail])

    async def _upload(self, picture: bytes) -> str:
        """Returns the URL."""
        name = f"floor/{secrets.token_hex(12)}.png"
        crc32c = pybase64.b64encode_as_string(google_crc32c.value(picture).to_bytes(4, "big"))
        about = f'{{"name":"{name}","contentType":"image/png","crc32c":"{crc32c}",'
        about += '"cacheControl":"public, max-age=31536000, immutable"}'
        part = f"--part\r\nContent-Type: application/json\r\n\r\n{about}\r\n"
        part += "--part\r\nContent-Type: image/png\r\n\r\n"
        tail = b"\r\n--part--"
        lines = f"POST {_UPLOAD} HTTP/1.1\r\nHost: s\r\nContent-Type: multipart/related; boundary=part\r\n"
        length = len(part) + len(picture) + len(tail)
        head = f"{lines}Content-Length: {length}\r\n\r\n{part}".encode()
        storage = await self._storage.acquire()
        parts: list[Part] = [head, picture, tail]
        stored = await storage.ask(parts)
        assert stored.status == 200, bytes(stored.view(0, stored.length))
        self._storage.release(storage)
        return f"{self._emulator}/image-gateway/{name}"


class Caller(Connection):
    """One caller's connection."""

    def __init__(self, floor: Floor) -> None:
        super().__init__()
        self._floor = floor
        self._routes = {
            b"/api/v1/image/text-to-image": floor.make,
            b"/api/v1/image/image-upscale": floor.upscale,
            b"/gen": floor.gen,
        }

    def received(self, message: Message) -> None:
        serve = self._routes.get(message.head.split(b" ", 2)[1])
        if serve is None:
            self.transport.write(_NO_ROUTE)
        elif not self._floor.authentic(message.head):
            self.transport.write(_NO_TOKEN)
        elif message.length < 10_000 and message.buffer.find(b'"prompt"', 0, message.length) < 0:
            self.transport.write(_NO_PROMPT)
        else:
            task = asyncio.get_running_loop().create_task(serve(self, message))
            self._floor.serving.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._floor.serving.discard(task)
        if not task.cancelled() and (failure := task.exception()):
            traceback.print_exception(failure)
            self.transport.abort()


async def main(port: int, emulator: str, secret: str) -> None:
    floor = Floor(emulator, secret.encode())
    server = await asyncio.get_running_loop().create_server(
        lambda: Caller(floor), "127.0.0.1", port, backlog=2048
    )
    gc.freeze()
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
