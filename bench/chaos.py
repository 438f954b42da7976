"""What the load and chaos programs share: a cloud, gateways to be killed and stopped, and the final account.

The account compares what the vendors made with what is in the bucket and what callers were told. A picture of
`bench.vendor` tells whom it was made for, and is compared byte for byte.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import httpx
from jose import jwt
from pydantic import BaseModel

from bench.run import (
    LIVE,
    MALLOC,
    ROOT,
    SECRET,
    UVICORN,
    Emulated,
    free_ports,
    gateway_environment,
    migrate,
    running,
    status,
)
from bench.vendor import Made, drawn, label_of, prompt_of
from bench.wire import Client, Message, connect

START_SECONDS = 60


class Shown(BaseModel):
    """What the vendors tell. `now` and `most` are calls of models under way, at this moment and at most."""

    now: int
    most: int
    pictures: list[Made]


# ── The cloud ────────────────────────────────────────────────────────────────────────────────────────


class Cloud:
    """`bench.vendor` in a process of its own. Its objects, the gateway's database and its files are in
    `folder`."""

    def __init__(self, emulated: Emulated) -> None:
        self.emulated = emulated
        self.url = emulated.url
        self.folder = emulated.folder
        self.spool = emulated.folder / "spool"
        self._http = httpx.Client(base_url=emulated.url, timeout=60)

    def close(self) -> None:
        self._http.close()

    def trouble(self, kind: str | None, vendor: str = "gcs", **more: object) -> None:
        """Order a trouble until `calm`."""
        order = {"vendor": vendor, **({"kind": kind} if kind else {}), **more}
        self._http.post("/__emulator/trouble", json=order).raise_for_status()

    def calm(self) -> None:
        self._http.delete("/__emulator/trouble").raise_for_status()

    def shown(self) -> "Shown":
        return Shown.model_validate_json(self._http.get("/__bench/pictures").raise_for_status().content)

    def forget(self) -> None:
        self._http.delete("/__bench/pictures").raise_for_status()

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Yields path (bucket and name) and bytes of each stored object."""
        for path in sorted((self.folder / "objects").glob("*/*")):
            resource, _, data = path.read_bytes().partition(b"\n")
            yield f"{path.parent.name}/{json.loads(resource)['name']}", data

    def kept(self) -> list[Path]:
        """The spool's files that are neither locks, which have no suffix, nor being written."""
        return [path for path in self.spool.rglob("*") if path.is_file() and path.suffix not in ("", ".part")]

    def temporary_files(self) -> list[Path]:
        """The gateways' files but for the spool's pictures: there are none when nothing is under way."""
        return [
            path for path in (self.folder / "work").rglob("*") if path.is_file() and ".lock" not in path.name
        ]


@contextlib.contextmanager
def cloud(seconds: float = 0, *, watch_readers: bool = True) -> Iterator[Cloud]:
    """Start one whose models take `seconds`."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        flags = ["--watch-readers"] if watch_readers else []
        arguments = ["-m", "bench.vendor", str(port), folder, str(seconds), *flags]
        niceness = 0 if watch_readers else 19  # who only serves steps back for the gateway, as in bench.run
        with running(arguments, f"{url}/__emulator/calls", MALLOC, niceness):
            emulated = Emulated(url, Path(folder))
            migrate(emulated)
            with contextlib.closing(Cloud(emulated)) as started:
                yield started


# ── Gateways ─────────────────────────────────────────────────────────────────────────────────────────


def token(user: str = "bench") -> str:
    return str(jwt.encode({"sub": user, "exp": int(time.time()) + 3 * 3600}, SECRET, "HS256"))


class Gateway:
    """A gateway's process in front of a cloud, which answers already. Its log is `log`, for all gateways."""

    def __init__(
        self, cloud: Cloud, more: Mapping[str, str] | None = None, *, flags: Sequence[str] = ()
    ) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.log = cloud.folder / "gateway.log"
        arguments = [sys.executable, "-c", UVICORN, "app.main:app", "--port", str(port), "--no-access-log"]
        environment = os.environ | gateway_environment(cloud.emulated, {**LIVE, **(more or {})})
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*arguments, *flags], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.pid = self._process.pid

    def __enter__(self) -> "Gateway":
        """Wait until /health answers."""
        ends = time.monotonic() + START_SECONDS
        while status(f"{self.url}/health") != 200:
            if self._process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise SystemExit(f"the gateway does not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> float:
        """Kill it at once. Returns the time just before, by the monotonic clock."""
        at = time.monotonic()
        self._process.kill()
        self._process.wait()
        return at

    def wait(self, seconds: float) -> bool:
        """Returns False if it has not ended by itself after so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, seconds: float = 60) -> bool:
        """SIGTERM. Returns False if it had to be killed."""
        self._process.terminate()
        if self.wait(seconds):
            return True
        self.kill()
        return False

    def descriptors(self) -> Counter[str]:
        """How many of each kind are open."""
        found: Counter[str] = Counter()
        for entry in os.scandir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found[os.readlink(entry.path).partition(":")[0]] += 1
        return found


# ── Callers ──────────────────────────────────────────────────────────────────────────────────────────

TEXT_TO_IMAGE, GEN = "/api/v1/image/text-to-image", "/gen"
IMAGEN, GEMINI = "imagen-3.0-generate-001", "gemini-2.5-flash-image"


class Answer(NamedTuple):
    """`urls` are those of stored pictures, `pending` those that are promised. Status 0: no answer."""

    status: int
    urls: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    body: bytes = b""


NONE = Answer(0)


def post(path: str, user_token: str, body: Mapping[str, object], *, headers: str = "") -> bytes:
    """The bytes of a request. `headers`: further lines, each with its end."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {user_token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    )
    return head.encode() + data


def wish(prompt: str, *, model: str = IMAGEN, samples: int = 1, **more: object) -> dict[str, object]:
    return {"prompt": prompt, "model": model, "sampleCount": samples, **more}


async def ask(client: Client, request: bytes, *, within: float = 200) -> Answer:
    """Returns NONE if the connection breaks, or no answer comes within so many seconds."""
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
    told = [one["url"] for key in ("images", "predictions") for one in value.get(key, ()) if "url" in one]
    pending = [one["url"] for one in value.get("pending", ())]
    return Answer(message.status, tuple(told), tuple(pending), data)


# ── The account ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Account:
    """What became of the pictures of a run. Each list must be empty."""

    due: int = 0
    """Pictures that must be in the bucket."""
    lost: list[str] = field(default_factory=list)
    """Labels of pictures that are due, and neither in the bucket nor on the spool."""
    left_on_spool: list[str] = field(default_factory=list)
    """Labels of pictures that are on the spool and not in the bucket: storage was healthy for long."""
    twice: list[str] = field(default_factory=list)
    """Labels of pictures that are stored under two names."""
    broken: list[str] = field(default_factory=list)
    """Objects whose bytes are no picture of the vendor's."""
    nowhere: list[str] = field(default_factory=list)
    """URLs that callers were told and that lead to no picture, or to another caller's."""
    told: int = 0

    def rows(self) -> "list[Row]":
        return [
            Row("pictures that must be kept", self.due),
            Row("... lost", len(self.lost), 0),
            Row("... still on the spool in the end", len(self.left_on_spool), 0),
            Row("stored under two names", len(self.twice), 0),
            Row("stored objects that are broken", len(self.broken), 0),
            Row("URLs told, pending ones included", self.told),
            Row("... that lead nowhere", len(self.nowhere), 0),
        ]


def account(cloud: Cloud, due: Callable[[Made], bool], told: Mapping[str, Iterable[str]]) -> Account:
    """`due` tells whether a picture must be kept; `told` are the URLs that were told, by prompt."""
    result = Account()
    names: dict[str, list[str]] = defaultdict(list)
    prompts: dict[str, str] = {}
    for path, data in cloud.objects():
        label = label_of(data[:1000])
        if label is None or data != drawn(label):
            result.broken.append(path)
            continue
        names[label].append(path)
        prompts[path] = prompt_of(label)
    spooled = _on_spool(cloud)
    for one in cloud.shown().pictures:
        if due(one):
            result.due += 1
            if one.label not in names:
                (result.left_on_spool if one.label in spooled else result.lost).append(one.label)
    result.twice = [label for label, paths in names.items() if len(paths) > 1]
    for prompt, urls in told.items():
        for url in urls:
            result.told += 1
            if prompts.get(unquote(urlsplit(url).path.lstrip("/"))) != prompt:
                result.nowhere.append(url)
    return result


def _on_spool(cloud: Cloud) -> set[str]:
    """The labels of the whole pictures there."""
    found = set()
    for path in cloud.kept():
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            picture = data[max(data.find(b"\x89PNG"), 0) :]
            label = label_of(picture[:1000])
            if label and picture.startswith(drawn(label)):
                found.add(label)
    return found


def drain(cloud: Cloud, seconds: float = 120) -> float:
    """Start a gateway and wait until it has uploaded everything. Returns the seconds, or as long as given."""
    started = time.monotonic()
    with Gateway(cloud) as gateway:
        while cloud.kept() and time.monotonic() - started < seconds:
            time.sleep(0.05)
        gateway.stop()
    return time.monotonic() - started


# ── Reports ──────────────────────────────────────────────────────────────────────────────────────────


class Row(NamedTuple):
    """A line of a report. `most` (or `least`) is what is wanted of the figure.

    `clock`: the figure depends on the speed of the machine, so tests do not look at it.
    """

    name: str
    figure: float | str
    most: float | None = None
    least: float | None = None
    told: str = ""
    clock: bool = False

    @property
    def missed(self) -> bool:
        if isinstance(self.figure, str):
            return False
        over = self.most is not None and self.figure > self.most
        return over or (self.least is not None and self.figure < self.least)

    def __str__(self) -> str:
        figure = self.figure if isinstance(self.figure, str) else f"{self.figure:g}"
        wanted = [f"<= {self.most:g}"] if self.most is not None else []
        wanted += [f">= {self.least:g}"] if self.least is not None else []
        mark = " !" if self.missed else ""
        return f"{self.name:45} {figure:>12}  {', '.join(wanted):10}{mark}{self.told}"


def show(title: str, rows: Iterable[Row]) -> bool:
    """Print the rows. Returns whether all is as wanted."""
    rows = list(rows)
    sys.stdout.write("\n".join([f"== {title}", *map(str, rows)]) + "\n")
    sys.stdout.flush()
    return not any(row.missed for row in rows)
