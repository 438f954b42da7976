"""The vendors of the load and chaos programs. Usage: python -m tools.rig.vendors PORT FOLDER [SECONDS]

Cloud Storage, the troubles and the control routes are the emulator's. Each picture is different: it names the
prompt it was drawn for, and can be drawn again for comparison (`labelled.drawn`).
`GET /__bench/pictures` tells how far each picture has come:

- `asked`: the request was read.
- `answered`: the model has finished, so that the picture is paid; the first byte of the answer leaves now.
- `read`: the gateway's process has taken the last byte of the answer: the vendor's kernel has nothing left
  that is not acknowledged (SIOCOUTQ is 0), and the gateway's socket has nothing that is not read (the receive
  queue of /proc/net/tcp is empty). Missing if the connection ended before that, and for an answer that a
  trouble of the kind `travel` has changed.
- `left`: the gateway hung up while the model was at work. Nothing is paid then.

Times are those of the machine's monotonic clock, so processes can compare them. SECONDS is how long each
model takes; a prompt may ask for more time with #trouble:slow=0.5.
"""

import asyncio
import fcntl
import re
import sys
import termios
import time
import zlib
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pybase64
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from app.contract.models import load_catalogue
from app.emulator import claude, control
from app.emulator.calls import Calls
from app.emulator.exchange import Cuttable, exchange
from app.emulator.gcs.front import routes as gcs_routes
from app.emulator.gcs.objects import Objects
from app.emulator.gcs.public import public
from app.emulator.travel import TRANSPORT
from app.emulator.trouble import Troubles
from app.emulator.vertex import rest_front
from tools.rig.labelled import SIZES_KB, beginning, kilobytes_of, rest_in_base64
from tools.rig.processes import raise_descriptors

_PROMPT = re.compile(rb"bench-[\w-]+")
_TROUBLE = re.compile(rb"#trouble:[\w=.-]+")
_SAMPLES = re.compile(rb'"sampleCount"\s*:\s*([1-4])')
_SAMPLING_SECONDS = 0.002


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────


class Quotes(NamedTuple):
    """The bytes of a response before, between and after the base64 of its pictures."""

    before: bytes
    between: bytes
    after: bytes


_PICTURE = b'{"mimeType":"image/png","bytesBase64Encoded":"'
_PREDICT = Quotes(b'{"predictions":[' + _PICTURE, b'"},' + _PICTURE, b'"}],"deployedModelId":"0"}')
_CONTENT = Quotes(
    b'{"candidates":[{"finishReason":"STOP","content":{"role":"model","parts":'
    b'[{"inlineData":{"mimeType":"image/png","data":"',
    b"",
    b'"}}]}}]}',
)
_BEDROCK: dict[str, Quotes] = {
    "sdxl": Quotes(
        b'{"result":"success","artifacts":[{"seed":0,"base64":"', b"", b'","finishReason":"SUCCESS"}]}'
    ),
    "titan": Quotes(b'{"images":["', b"", b'"],"error":null}'),
    "stability2": Quotes(b'{"images":["', b"", b'"],"seeds":[0],"finish_reasons":[null]}'),
}
_BEDROCK |= {"nova": _BEDROCK["titan"], "sd3": _BEDROCK["stability2"]}


@dataclass(slots=True)
class Made:
    """A requested picture. Times are monotonic; `left` if the caller has left."""

    label: str
    asked: float
    answered: float | None = None
    read: float | None = None
    left: bool = False


class Pictures(Response):
    """A response in parts. All responses share the large parts, so that a thousand need little memory."""

    media_type = "application/json"

    def __init__(self, quotes: Quotes, made: list[Made], readers: "Readers | None") -> None:
        self._parts = [quotes.before]
        for number, one in enumerate(made):
            self._parts += [quotes.between] * bool(number)
            self._parts += [pybase64.b64encode(beginning(one.label)), rest_in_base64(kilobytes_of(one.label))]
        self._parts.append(quotes.after)
        self._made = made
        self._readers = readers
        self.status_code = 200
        self.background = None
        self.init_headers({"Content-Length": str(sum(map(len, self._parts)))})

    @property
    def body(self) -> bytes:  # type: ignore[override]
        """The whole body, for responses that are not sent in parts."""
        return b"".join(self._parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})
        if self._readers and await self._readers.have_read(scope[TRANSPORT]):
            for one in self._made:
                one.read = time.monotonic()


class Readers:
    """Waits until the other end of a connection has read everything that was written to it.

    Checks all waiting connections together, every two milliseconds.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[bool], asyncio.Transport] = {}
        self._looking: asyncio.Task[None] | None = None

    async def have_read(self, transport: asyncio.Transport) -> bool:
        """Returns True when everything is read, or False if the connection ends before."""
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[taken] = transport
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await taken

    async def _look(self) -> None:
        while self._waiting:
            unread: dict[tuple[int, int], int] | None = None
            for taken, transport in list(self._waiting.items()):
                if transport.is_closing():
                    self._end(taken, False)
                elif not transport.get_write_buffer_size() and not _unacknowledged(transport):
                    unread = _receive_queues() if unread is None else unread
                    theirs, ours = (transport.get_extra_info(end)[1] for end in ("peername", "sockname"))
                    if unread.get((theirs, ours), 1) == 0:
                        self._end(taken, True)
            await asyncio.sleep(_SAMPLING_SECONDS)

    def _end(self, taken: "asyncio.Future[bool]", result: bool) -> None:
        del self._waiting[taken]
        if not taken.done():
            taken.set_result(result)


def _unacknowledged(transport: asyncio.Transport) -> int:
    number = transport.get_extra_info("socket").fileno()
    return int.from_bytes(fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)), "little")


def _receive_queues() -> dict[tuple[int, int], int]:
    """Returns the unread bytes of each established IPv4 connection, by its own and its peer's port."""
    queues = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split(None, 5)
        if fields[3] == "01":
            own, peer = (int(fields[at].rpartition(":")[2], 16) for at in (1, 2))
            queues[own, peer] = int(fields[4].rpartition(":")[2], 16)
    return queues


# ── The server ───────────────────────────────────────────────────────────────────────────────────────


class Studio:
    """Serves all models. Without `readers`, does not record when responses were read."""

    def __init__(self, calls: Calls, troubles: Troubles, readers: Readers | None) -> None:
        self._calls = calls
        self._troubles = troubles
        self._readers = readers
        self._catalogue = load_catalogue()
        self._made: deque[Made] = deque(maxlen=200_000)
        self._now = self._most = self._count = 0

    async def vertex(self, request: Request) -> Response:
        raw = await request.body()
        model, method = request.path_params["model"], request.path_params["method"]
        found = _SAMPLES.search(raw) if method == "predict" and "upscale" not in model else None
        quotes = _PREDICT if method == "predict" else _CONTENT
        return await self._draw(request, "vertex", model, raw, int(found[1]) if found else 1, quotes)

    async def bedrock(self, request: Request) -> Response:
        model = next(one for one in self._catalogue.model if one.id == request.path_params["model"])
        return await self._draw(request, "bedrock", model.id, await request.body(), 1, _BEDROCK[model.family])

    async def _draw(
        self, request: Request, vendor: str, model: str, raw: bytes, samples: int, quotes: Quotes
    ) -> Response:
        call = self._calls.record(vendor, "", model, {})
        wish, trouble_word = _PROMPT.search(raw), _TROUBLE.search(raw)
        prompt = wish[0].decode() if wish else "bench-nobody"
        self._count += 1
        kilobytes = _size_for(prompt)
        made = [
            Made(f"{prompt}/{self._count}.{number}/{kilobytes}", time.monotonic())
            for number in range(samples)
        ]
        self._made.extend(made)
        trouble = self._troubles.ask(vendor, model, trouble_word[0].decode() if trouble_word else "")

        def work() -> Response:
            if trouble and trouble.kind in ("500", "503", "429", "answer"):
                return _failure(trouble.kind, trouble.arg)
            self._calls.pay(call, samples)
            for one in made:
                one.answered = time.monotonic()
            return Pictures(quotes, made, self._readers)

        self._now += 1
        self._most = max(self._most, self._now)
        try:
            response = await exchange(request, self._calls, call, trouble, work, in_thread=False)
        finally:
            self._now -= 1
        if call.cancelled:
            for one in made:
                one.left = True
        return response

    async def pictures(self, request: Request) -> Response:
        """Serves GET and DELETE /__bench/pictures: returns or forgets the recorded pictures."""
        if request.method == "DELETE":
            self._made.clear()
            self._most = self._now
        shown = [asdict(one) for one in self._made]
        return JSONResponse({"now": self._now, "most": self._most, "pictures": shown})


def _size_for(prompt: str) -> int:
    """Returns kilobytes: 1500, or as in the prompt `bench-x-40kb`, or varying for `bench-x-anykb`."""
    if prompt.endswith("-anykb"):
        return SIZES_KB[max(0, zlib.crc32(prompt.encode()) % 8 - 5)]  # most are small, one of eight is large
    found = re.search(r"-(\d+)kb$", prompt)
    return int(found[1]) if found else SIZES_KB[-1]


_REASONS = {"500": "INTERNAL", "503": "UNAVAILABLE", "429": "RESOURCE_EXHAUSTED"}


def _failure(kind: str, arg: dict[str, object] | None) -> Response:
    """Returns an error in Vertex's format."""
    if kind == "answer" and arg:
        return JSONResponse(arg["body"], int(str(arg["status"])))
    error = {"code": int(kind), "message": "ordered", "status": _REASONS[kind]}
    return JSONResponse({"error": error}, int(kind))


def _gone(_: Request, __: Exception) -> Response:
    """Handles clients that leave while they send their body."""
    return Response(status_code=499)


def server(port: int, folder: Path, seconds: float, *, watch_readers: bool) -> uvicorn.Server:
    calls, troubles, stored = Calls(), Troubles(seconds), Objects(folder)
    studio = Studio(calls, troubles, Readers() if watch_readers else None)
    routes: list[BaseRoute] = [
        Route("/__bench/pictures", studio.pictures, methods=["GET", "DELETE"]),
        *control.routes(calls, troubles),
        *rest_front.routes(studio.vertex),
        *gcs_routes(stored, troubles, calls),
        Route("/model/{model}/invoke", studio.bedrock, methods=["POST"]),
        *claude.routes(calls=calls, troubles=troubles, catalogue=load_catalogue()),
        Mount("/", public(stored)),
    ]
    config = uvicorn.Config(
        Cuttable(Starlette(routes=routes, exception_handlers={ClientDisconnect: _gone})),
        port=port,
        backlog=4096,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=240,
    )
    for kilobytes in SIZES_KB:
        rest_in_base64(kilobytes)
    return uvicorn.Server(config)


if __name__ == "__main__":
    raise_descriptors()
    takes, *flags = sys.argv[3:] or ["0"]
    server(int(sys.argv[1]), Path(sys.argv[2]), float(takes), watch_readers="--watch-readers" in flags).run()
