"""`python -m bench.codec`: what reading and writing JSON with a picture in it costs, beside json and base64.

CPU milliseconds (user and system) of one thread; the best of several runs, for the machine is shared.
"""

import argparse
import base64
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from app.pictures.blob import Blob, Blobs
from app.pictures.in_json import JsonReader, JsonWriter
from app.pictures.pieces import PIECE_BYTES
from app.pictures.work_folder import WorkFolder
from app.process import tune

WANTED = "wanted: 1.1 to 1.3 ms to read 1.5 MB of picture (2 MB of base64) to disk"


def best(work: Callable[[], object], runs: int) -> float:
    lowest = float("inf")
    for _ in range(runs):
        started = time.process_time()
        work()
        lowest = min(lowest, time.process_time() - started)
    return lowest * 1000


def read(blobs: Blobs, pieces: list[bytes], *, crc32c: bool = False) -> Blob:
    with JsonReader(partial(blobs.new, crc32c=crc32c)) as reader:
        for piece in pieces:
            reader.feed(piece)
        reader.finish()
    return reader.blobs[0]


def read_and_close(blobs: Blobs, pieces: list[bytes], *, crc32c: bool = False) -> None:
    read(blobs, pieces, crc32c=crc32c).close()


def write(blob: Blob) -> None:
    for _ in JsonWriter({"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": blob}]}):
        pass


def drain(blob: Blob) -> None:
    for _ in blob.pieces():
        pass


def plain_read(source: bytes) -> bytes:
    return base64.b64decode(json.loads(source)["predictions"][0]["bytesBase64Encoded"])


def plain_write(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    return json.dumps({"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": text}]}).encode()


def main(megabytes: float, runs: int) -> None:
    data = os.urandom(int(megabytes * 1e6))
    source = plain_write(data)
    rows: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as parent:
        in_memory = WorkFolder(Path(parent), blob_memory_bytes=64_000_000)
        on_disk = WorkFolder(Path(parent), memory_bytes=0)
        places = {"in memory": in_memory.blobs(), "on disk": on_disk.blobs()}
        lines = re.sub(rb"[\w+/]{76}", rb"\g<0>\\r\\n", source)
        for spelling, text in {
            "": source,
            ", lines of 76": lines,
            ", slashes escaped": source.replace(b"/", b"\\/"),
            ", URL-safe": source.replace(b"/", b"_").replace(b"+", b"-"),
        }.items():
            pieces = [text[start : start + PIECE_BYTES] for start in range(0, len(text), PIECE_BYTES)]
            for place, blobs in places.items():
                with read(blobs, pieces) as blob:
                    assert b"".join(blob.pieces()) == data
                    assert b"".join(JsonWriter([blob])) == b'["' + base64.b64encode(data) + b'"]'
                    reading = best(lambda: read_and_close(blobs, pieces), runs)  # noqa: B023 - called at once
                    rows.append((f"read {place}{spelling}", reading))
                    if spelling:
                        continue
                    summed = best(lambda: read_and_close(blobs, pieces, crc32c=True), runs)  # noqa: B023
                    rows.append((f"read {place}, with crc32c", summed))
                    rows.append((f"write from {place.split()[1]}", best(lambda: write(blob), runs)))
                    rows.append((f"its bytes again, {place}", best(lambda: drain(blob), runs)))
        for blobs in places.values():
            blobs.close()
        in_memory.close()
        on_disk.close()
    rows.append(("json.loads + b64decode", best(lambda: plain_read(source), runs)))
    rows.append(("b64encode + json.dumps", best(lambda: plain_write(data), runs)))
    out = [f"{'':36}{'ms':>8}{'ms per MB of base64':>22}"]
    out += [f"{name:36}{took:8.2f}{took / (len(source) / 1e6):22.2f}" for name, took in rows]
    out.append(f"{megabytes} MB of picture, {len(source) / 1e6:.1f} MB of JSON in pieces of 64 KiB. {WANTED}")
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=float, default=1.5)
    arguments.add_argument("--runs", type=int, default=200)
    tune()
    main(**vars(arguments.parse_args()))
