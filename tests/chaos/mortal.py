"""Gateways that kill themselves (SIGKILL) at a chosen step of a paid call.

They are forked from one process that has imported everything: a start takes a tenth of the usual time.
`python -m tests.chaos.mortal` is that process. It reads an `Order` from each line of its input, and writes
the id of the gateway's process for it.
"""

import asyncio
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel

from tools.rig.cloud import Cloud
from tools.rig.gateways import START_SECONDS
from tools.rig.processes import LIVE, ROOT, free_ports, gateway_environment, status

_PR_SET_PDEATHSIG = 1
_VENDOR_WORKS_SECONDS = 0.08


class Step(NamedTuple):
    """A call of `name` of the class or module `where` (dotted path). The gateway dies as it begins,
    `after` it, or `later`: so many seconds after it.
    """

    where: str
    name: str
    after: bool = True
    later: float = 0


STEPS = {
    "before the fence": Step("app.storage.ledger.Ledger", "fence", after=False),
    "between fence and send": Step("app.storage.ledger.Ledger", "fence"),
    "while the vendor works": Step("app.storage.ledger.Ledger", "fence", later=_VENDOR_WORKS_SECONDS),
    "while pictures arrive": Step("app.pictures.blob.Blob", "write"),
    "when a picture has landed": Step("app.storage.spool.DiskSpool", "land"),
    "when a picture is kept": Step("app.storage.private.PrivateStore", "keep"),
    "when a picture is uploaded": Step("app.storage.gcs.Gcs", "save"),
    "before its end is written": Step("app.storage.ledger.Ledger", "tell", after=False),
    "when something is committed": Step("app.storage.ledger.Ledger", "_commit"),
    "before the answer": Step("app.services.paying", "kept", after=False),
    "while the answer is sent": Step("app.services.paying", "kept", later=0.002),
}


class Order(BaseModel):
    """A gateway to be forked. It dies at the `number`th time (from 1) that it comes to the step."""

    environment: dict[str, str]
    port: int
    log: Path
    step: str | None = None
    number: int = 1


class Mortal:
    """A forked gateway in front of a cloud."""

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._pid = pid
        self._handle = os.pidfd_open(pid)

    def wait_until_serving(self) -> None:
        """Return when /health answers, or when it is dead."""
        ends = time.monotonic() + START_SECONDS
        while status(f"{self.url}/health") != 200 and not self.has_ended(0.02):
            if time.monotonic() > ends:
                raise SystemExit("the gateway does not start")

    def has_ended(self, seconds: float) -> bool:
        """Waits at most so long for its end."""
        return bool(select.select([self._handle], [], [], seconds)[0])

    def end(self, number: signal.Signals = signal.SIGKILL, seconds: float = 60) -> None:
        """Send it the signal, and wait for its end. May be called again."""
        if self._handle < 0:
            return
        if not self.has_ended(0):
            signal.pidfd_send_signal(self._handle, number)
        if not self.has_ended(seconds):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            self.has_ended(seconds)
        os.close(self._handle)
        self._handle = -1


class Nursery(AbstractContextManager["Nursery"]):
    """The process from which gateways are forked. Ends with all of them."""

    def __init__(self, cloud: Cloud, more: Mapping[str, str]) -> None:
        self._environment = gateway_environment(cloud.emulated, {**LIVE, **more})
        self._log = cloud.folder / "gateway.log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.mortal"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def fork(self, step: str | None = None, number: int = 1) -> Mortal:
        """Start a gateway. Blocks until there is its process."""
        (port,) = free_ports(1)
        order = Order(environment=self._environment, port=port, log=self._log, step=step, number=number)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(order.model_dump_json() + "\n")
        self._process.stdin.flush()
        return Mortal(port, int(self._process.stdout.readline()))


# ── The process ──────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    import anthropic  # noqa: F401 - so that no gateway needs to
    import google.cloud.storage  # noqa: F401

    import app.api.connections
    import app.parts  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead leave nothing behind
    parent = os.getpid()
    for line in sys.stdin:
        order = Order.model_validate_json(line)
        if not (pid := os.fork()):
            _serve(order, parent)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _serve(order: Order, parent: int) -> None:
    import uvicorn

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with order.log.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    os.environ.update(order.environment)
    if order.step:
        _doom(STEPS[order.step], order.number)
    try:
        uvicorn.run("app.main:app", port=order.port, access_log=False)
    finally:
        os._exit(0)


def _doom(step: Step, number: int) -> None:
    owner = _found(step.where)
    original: Callable[..., Any] = getattr(owner, step.name)
    times = count(1)

    def die() -> None:
        if step.later:
            asyncio.get_running_loop().call_later(step.later, os.kill, os.getpid(), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(*args: Any, **kwargs: Any) -> Any:
        now = next(times) == number
        if now and not step.after:
            die()
        result = original(*args, **kwargs)
        if now and step.after:
            die()
        return result

    async def dying_later(*args: Any, **kwargs: Any) -> Any:
        now = next(times) == number
        if now and not step.after:
            die()
        result = await original(*args, **kwargs)
        if now and step.after:
            die()
        return result

    is_async = asyncio.iscoroutinefunction(original)
    setattr(owner, step.name, dying_later if is_async else dying)


def _found(where: str) -> Any:
    """Returns the class or module with this dotted path."""
    import importlib

    try:
        return importlib.import_module(where)
    except ModuleNotFoundError:
        module, _, name = where.rpartition(".")
        return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    main()
