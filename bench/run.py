"""`make bench`: what the gateway costs, compared with a hand-written floor on the same machine.

The emulator runs alone in canned mode (pictures made beforehand). For each row the same requests go through
the gateway and through `bench/floor.py`, and every picture is compared with the vendor's. CPU is the
process's own, user and system, for each request. MB are millions of bytes.

`python -m bench.run --only upscale start` runs the rows whose name holds one of these words. The gateway's
ledger is in SQLite; with `--postgres URL` in a database of its own on that server; with `--ledger none` it
remembers nothing (`bench.no_ledger`).
"""

import argparse
import contextlib
import json
import secrets
import shutil
import struct
import sys
import time
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pybase64
import uvloop
from PIL import Image

from bench.health import HealthWatch
from bench.load import Loaded, Wish, holds, load, look, refused, urls, vendors_answer
from tools.rig.postgres import new_database
from tools.rig.processes import (
    LIVE,
    MALLOC,
    SECRET,
    UVICORN,
    Emulated,
    Started,
    cpu_seconds,
    emulator,
    forget_peak,
    free_ports,
    gateway,
    migrate,
    resident_mb,
    running,
)

FLOOR_MALLOC = {**MALLOC, "MALLOC_TRIM_THRESHOLD_": "1000000000"}
"""The floor keeps freed memory: fresh pages took a third of its CPU time for four pictures."""
STARTS = 5
ROUNDS = 3
NO_LEDGER = UVICORN.replace("import uvicorn", "import bench.no_ledger, uvicorn")
WANTED_FRESH_MB, WANTED_READY_SECONDS = 130, 1.5


class Row(NamedTuple):
    """`loads` are requests under way at a time, and how many altogether: the kernel counts CPU in hundredths
    of a second. `ratio`, without a ledger `bare`, and `cpu_ms` are the most that is wanted."""

    name: str
    wish: Wish
    loads: dict[int, int]
    ratio: float | None = None
    bare: float | None = None
    cpu_ms: float | None = None


@dataclass
class Figures:
    cpu_ms: float
    p50: float
    p99: float
    idle_mb: float
    peak_mb: float


def noise(size: tuple[int, int]) -> bytes:
    """A PNG that nothing shrinks."""
    file = BytesIO()
    pixels = secrets.token_bytes(size[0] * size[1] * 3)
    Image.frombytes("RGB", size, pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def deep_noise(side: int) -> bytes:
    """A square PNG with 16 bits for each channel, which Pillow cannot write: 6 bytes for a pixel."""
    rows = b"".join(b"\0" + secrets.token_bytes(side * 6) for _ in range(side))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 0)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def as_form(picture: bytes) -> tuple[str, bytes]:
    """Content type and body, as a browser sends them."""
    boundary = f"----WebKitFormBoundary{secrets.token_hex(8)}"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="picture.png"\r\n'
    head += "Content-Type: image/png\r\n\r\n"
    tail = f"\r\n--{boundary}--\r\n"
    return f"multipart/form-data; boundary={boundary}", head.encode() + picture + tail.encode()


def as_json(picture: bytes) -> tuple[str, bytes]:
    return "application/json", b'{"image":"' + pybase64.b64encode(picture) + b'"}'


class Wishes:
    """The requests of the rows. Asks the vendors for the pictures that will be expected."""

    def __init__(self, vendors: str) -> None:
        models = "/v1/projects/p/locations/us-central1/publishers/google/models"
        make, enlarge = "imagen-3.0-generate-001", "imagen-4.0-upscale-preview"
        wish = b'{"instances":[{"prompt":"a"}],"parameters":{"sampleCount":4}}'
        made = json.loads(uvloop.run(vendors_answer(vendors, f"{models}/{make}:predict", wish)))
        enlarged = json.loads(uvloop.run(vendors_answer(vendors, f"{models}/{enlarge}:predict", wish)))
        drawn = json.loads(
            uvloop.run(vendors_answer(vendors, "/model/stability.stable-diffusion-xl-v1/invoke", b"{}"))
        )
        self._pictures = tuple(pybase64.b64decode(one["bytesBase64Encoded"]) for one in made["predictions"])
        self._enlarged = holds(
            "bytesBase64Encoded", enlarged["predictions"][0]["bytesBase64Encoded"].encode()
        )
        self._drawn = holds("image_base64", drawn["artifacts"][0]["base64"].encode())

    def text_to_image(self, samples: int) -> Wish:
        body = json.dumps({"prompt": "a lighthouse", "sampleCount": samples}).encode()
        path = "/api/v1/image/text-to-image"
        return Wish(path, "application/json", body, urls, self._pictures[:samples])

    def refusal(self) -> Wish:
        return Wish("/api/v1/image/text-to-image", "application/json", b'{"sampleCount":1}', refused)

    def upscale(self, content_type: str, body: bytes) -> Wish:
        return Wish("/api/v1/image/image-upscale", content_type, body, self._enlarged)

    def gen(self) -> Wish:
        body = b'{"mode":"text2img","prompt":"a lighthouse"}'
        return Wish("/gen", "application/json", body, self._drawn)

    def rows(self) -> list[Row]:
        return [
            Row("text-to-image x1", self.text_to_image(1), {1: 200, 16: 400}, ratio=4.5, bare=4),
            Row("text-to-image x4", self.text_to_image(4), {1: 60, 16: 128, 64: 256}, ratio=3.3, bare=3),
            Row("upscale", self.upscale(*as_form(noise((1414, 1414)))), {1: 24, 16: 64}, ratio=3, bare=3),
            Row("gen", self.gen(), {1: 200, 16: 400}, ratio=4, bare=3.5),
            Row("refusal", self.refusal(), {1: 1500, 16: 3000}, cpu_ms=0.45),
        ]


def measured(pid: int, url: str, token: str, row: Row, in_flight: int) -> tuple[Figures, Loaded]:
    requests = row.loads[in_flight]
    uvloop.run(load(url, token, row.wish, in_flight, 2 * in_flight))
    idle = resident_mb(pid)
    forget_peak(pid)
    before = cpu_seconds(pid)
    loaded = uvloop.run(load(url, token, row.wish, in_flight, requests))
    cpu = (cpu_seconds(pid) - before) * 1000 / requests
    took = loaded.took
    figures = Figures(
        cpu, took[len(took) // 2], took[int(len(took) * 0.99)], idle, resident_mb(pid, peak=True)
    )
    return figures, loaded


def judged(figure: float, wanted: float | None, digits: int = 0) -> str:
    """Returns the figure and its limit, marked if the figure is higher."""
    if wanted is None:
        return f"{figure:.{digits}f}"
    return f"{figure:.{digits}f} (<= {wanted:g}){' !' if figure > wanted else ''}"


def say(*columns: str) -> None:
    widths = (22, 14, 8, 16, 8, 8, 16, 8, 8)
    sys.stdout.write(
        "  ".join(f"{text:>{width}}" for text, width in zip(columns, widths, strict=False)) + "\n"
    )
    sys.stdout.flush()


HEADINGS = (
    *("request, under way", "gateway ms", "floor ms", "ratio", "p50 ms", "p99 ms"),
    *("peak MB", "- idle", "/health ms"),
)


def compare(started: Started, floor: tuple[int, str], row: Row, folder: Path) -> None:
    """Print a line for each load. Gateway and floor take turns, because the machine's speed changes."""
    for in_flight, requests in row.loads.items():
        watch = HealthWatch(started.url)
        rounds: list[tuple[Figures, Figures]] = []
        for _ in range(ROUNDS):
            ours, loaded = measured(started.pid, started.url, started.token, row, in_flight)
            uvloop.run(look(loaded.urls, row.wish, requests))
            mark, loaded = measured(*floor, started.token, row, in_flight)
            uvloop.run(look(loaded.urls, row.wish, requests))
            shutil.rmtree(folder / "objects", ignore_errors=True)  # gigabytes, otherwise
            rounds.append((ours, mark))
        cpu_ms, floor_ms = (sum(one.cpu_ms for one in side) / ROUNDS for side in zip(*rounds, strict=True))
        peak_mb = max(ours.peak_mb for ours, _ in rounds)
        say(
            f"{row.name}, {in_flight:2}",
            judged(cpu_ms, row.cpu_ms, 2),
            f"{floor_ms:.2f}",
            judged(cpu_ms / floor_ms, row.ratio, 1) if row.ratio else "-",
            f"{sum(ours.p50 for ours, _ in rounds) / ROUNDS:.1f}",
            f"{max(ours.p99 for ours, _ in rounds):.1f}",
            judged(peak_mb, 200 if in_flight == 64 else None),
            f"{peak_mb - rounds[0][0].idle_mb:.0f}",
            f"{watch.end():.0f}",
        )


def start(emulated: Emulated) -> None:
    """Start the gateway five times, one after the other."""
    fresh, answered = [], []
    for _ in range(STARTS):
        with gateway(emulated, LIVE) as started:
            time.sleep(1)  # until its background tasks are idle
            fresh.append(resident_mb(started.pid))
            answered.append(started.seconds)
    sys.stdout.write(
        f"fresh process: {judged(max(fresh), WANTED_FRESH_MB)} MB; "
        f"ready after {judged(min(answered), WANTED_READY_SECONDS, 2)} s, "
        f"the best of {', '.join(f'{one:.2f}' for one in answered)}\n"
    )


def large(emulated: Emulated, wishes: Wishes, picture: bytes) -> None:
    """Upscale one large picture, in a fresh gateway that has made one small picture."""
    for name, (content_type, body) in {"JSON": as_json(picture), "a form": as_form(picture)}.items():
        wish = wishes.upscale(content_type, body)
        with gateway(emulated, LIVE) as started:
            uvloop.run(load(started.url, started.token, wishes.text_to_image(1), 1, 1))
            idle = resident_mb(started.pid)
            forget_peak(started.pid)
            uvloop.run(load(started.url, started.token, wish, 1, 1))
            over = resident_mb(started.pid, peak=True) - idle
        sys.stdout.write(
            f"upload of {len(picture) / 1e6:.1f} MB in {name}, upscaled: peak over idle "
            f"{judged(over, round(len(picture) / 1e6))} MB\n"
        )
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="of a row's name; also: start, upload"
    )
    ledger = parser.add_mutually_exclusive_group()
    ledger.add_argument("--ledger", choices=["sqlite", "none"], default="sqlite")
    ledger.add_argument(
        "--postgres", metavar="URL", help="of a server, for example postgresql://user@host/db"
    )
    options = parser.parse_args()
    bare = options.ledger == "none"

    def chosen(name: str) -> bool:
        return any(word in name for word in options.only)

    with contextlib.ExitStack() as stack:
        emulated = stack.enter_context(emulator("--canned"))
        migrate(emulated)
        settings = dict(LIVE)
        if options.postgres:
            settings["DATABASE_URL"] = stack.enter_context(new_database(options.postgres))
        if chosen("start"):
            start(emulated)
        wishes = Wishes(emulated.url)
        if rows := [row for row in wishes.rows() if chosen(row.name)]:
            (port,) = free_ports(1)
            floor_url = f"http://127.0.0.1:{port}"
            arguments = ["-m", "bench.floor", str(port), emulated.url, SECRET]
            pid, _ = stack.enter_context(running(arguments, floor_url, FLOOR_MALLOC))
            program = NO_LEDGER if bare else UVICORN
            with gateway(emulated, settings, program) as started:
                say(*HEADINGS)
                for row in rows:
                    wanted = row._replace(ratio=row.bare) if bare else row
                    compare(started, (pid, floor_url), wanted, emulated.folder)
        if chosen("upload"):
            large(emulated, wishes, deep_noise(1824))


if __name__ == "__main__":
    main()
