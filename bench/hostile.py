"""`python -m bench.hostile`: CPU and memory that files of many parts cost, each in its own process.

Measures everything that the gateway does to a caller's picture before a call: for files of up to 20 MB, then
for the largest of each kind that are accepted. They are blobs, as they arrive: large ones are on disk.
`python -m bench.hostile JPEG`: only names with that word.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from app.pictures.picture import MAX_PICTURE_BYTES, picture
from app.pictures.pixels import normalise
from app.pictures.work_folder import WorkFolder
from tools.rig.bodies import encoded
from tools.rig.hostile_files import HOSTILE, MEGABYTE, disposed_gif, scans, segment
from tools.rig.processes import forget_peak, resident_mb

WANTED = "wanted: about a second of CPU, two at most; no more memory than the pixels take\n"
PATIENCE_SECONDS = 60
_MOST_SCANS = 90

Make = Callable[[], bytes]


def beyond_the_limit() -> Iterator[tuple[str, Make]]:
    for name, (make, fewest) in HOSTILE.items():
        most = (MAX_PICTURE_BYTES - MEGABYTE) * fewest // len(make(fewest))
        number = _MOST_SCANS if "scans" in name else most
        yield name, partial(make, number)
    yield "GIF of a frame of 4 gigapixels", partial(disposed_gif, 65_535, 65_535)


def within_the_limit() -> Iterator[tuple[str, Make]]:
    for name, (make, fewest) in HOSTILE.items():
        yield name, partial(make, fewest * 95 // 100)
    yield "JPEG of scans and a comment", partial(scans, 19, comment=segment(0xFE, b"a"))
    yield "JPEG of scans in CMYK", partial(scans, 19, colours=4)
    yield "GIF of a frame of 50 megapixels", partial(disposed_gif, 8_000, 6_250)
    for progressive in (False, True):
        name = "JPEG photograph of 50 megapixels" + (", progressive" if progressive else "")
        yield name, partial(photograph, progressive)


def photograph(progressive: bool) -> bytes:
    image = Image.effect_noise((2000, 1562), 40).convert("RGB").resize((8000, 6250))
    return encoded(image, "JPEG", quality=85, progressive=progressive, exif=Image.Exif())


def measure(make: Make, result: Connection) -> None:
    with TemporaryDirectory() as parent, WorkFolder(Path(parent)) as folder, folder.blobs() as blobs:
        blob = blobs.of(make())
        forget_peak(os.getpid())
        before, started = resident_mb(os.getpid()), time.process_time()
        try:
            answer = repr(normalise(picture(blob)))
        except ValueError as exc:
            answer = f"refused: {exc}"
        seconds = time.process_time() - started
        result.send((blob.length / 1e6, seconds, resident_mb(os.getpid(), peak=True) - before, answer))


def report(name: str, make: Make) -> None:
    results, result = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=measure, args=(make, result))
    process.start()
    result.close()
    if results.poll(PATIENCE_SECONDS):
        megabytes, seconds, growth, answer = results.recv()
        sys.stdout.write(f"{name:62} {megabytes:5.1f} MB {seconds:7.2f} s {growth:+7.0f} MB  {answer}\n")
    else:
        sys.stdout.write(f"{name:62} not done after {PATIENCE_SECONDS} s\n")
    sys.stdout.flush()
    process.kill()
    process.join()


def main() -> None:
    words = sys.argv[1:]
    sys.stdout.write(WANTED)
    for title, files in (("beyond", beyond_the_limit()), ("within", within_the_limit())):
        sys.stdout.write(f"\n{title} the limit: file, size, CPU, memory, answer\n")
        for name, make in files:
            if all(word in name for word in words):
                report(name, make)


if __name__ == "__main__":
    main()
