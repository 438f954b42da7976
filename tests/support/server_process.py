"""Runs servers as separate processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

ROOT = Path(__file__).parents[2]
UVICORN = (sys.executable, "-m", "uvicorn", "app.main:app", f"--app-dir={ROOT}")
_START_SECONDS = 60


class Serving(NamedTuple):
    """A running server. `log` is the file with its output."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, *words: str) -> bool:
        """Wait for a line with all these words. Returns False if none comes."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            lines = self.log.read_text("utf-8").splitlines()
            if any(all(word in line for word in words) for line in lines):
                return True
            time.sleep(0.1)
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port that is free now."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], url: str, *, environment: Mapping[str, str], folder: Path, cwd: Path | None = None
) -> Iterator[Serving]:
    """Run the command with exactly this environment, and wait until `url` answers. Stops it at the end.

    Its log goes to `folder`, which is also its working folder unless `cwd` is given.
    """
    log = folder / f"{len(list(folder.glob('*.log')))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=cwd or folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(process, url, log)
        yield Serving(process, log)
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{process.args!r} does not answer at {url}:\n{log.read_text('utf-8')}")


def bare(folder: Path) -> dict[str, str]:
    """Returns an environment without Google credentials, with only this Python and the system on PATH."""
    return {
        "HOME": str(folder),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "NO_GCE_CHECK": "true",
    }
