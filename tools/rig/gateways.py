"""Runs gateways that can be stopped and killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from jose import jwt

from tools.rig.cloud import Cloud
from tools.rig.processes import LIVE, ROOT, SECRET, UVICORN, free_ports, gateway_environment, status

START_SECONDS = 60


def token(user: str = "bench") -> str:
    return str(jwt.encode({"sub": user, "exp": int(time.time()) + 3 * 3600}, SECRET, "HS256"))


class Gateway:
    """A gateway process in front of a running cloud. All gateways of a cloud write the same `log`."""

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
        """Kill the process. Returns the monotonic time just before."""
        at = time.monotonic()
        self._process.kill()
        self._process.wait()
        return at

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process. Returns False if it still runs after so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, seconds: float = 60) -> bool:
        """Stop the process with SIGTERM. Returns False if it had to be killed after `seconds`."""
        self._process.terminate()
        if self.wait(seconds):
            return True
        self.kill()
        return False

    def descriptors(self) -> Counter[str]:
        """Returns the number of open descriptors of each kind."""
        found: Counter[str] = Counter()
        for entry in os.scandir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found[os.readlink(entry.path).partition(":")[0]] += 1
        return found
