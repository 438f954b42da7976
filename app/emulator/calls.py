"""What the emulator was asked, and what the vendors would have charged for it."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pybase64

Json = dict[str, Any]

KEPT = 1000
_LONG = 4096
_PICTURE_STARTS = ("iVBORw0KGgo", "/9j/", "_9j_", "R0lGOD", "UklGR")


@dataclass(slots=True)
class Call:
    """One request of a client. `status` is HTTP's, None until (or unless) an answer was given."""

    id: int
    vendor: str
    method: str
    model: str
    body: Json
    started: float
    status: int | None = None
    paid: int = 0
    cancelled: bool = False
    finished: bool = False

    def as_json(self) -> Json:
        return asdict(self)


class Calls:
    """The newest thousand calls. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: deque[Call] = deque(maxlen=KEPT)
        self._count = 0
        self._paid = 0

    def record(self, vendor: str, method: str, model: str, body: Json) -> Call:
        """Remember a call that begins now. Pictures in `body` are kept as their SHA-256 and length only."""
        digested = _digest(body)
        with self._changed:
            self._count += 1
            call = Call(self._count, vendor, method, model, digested, time.time())
            self._calls.append(call)
            self._changed.notify_all()
        return call

    def pay(self, call: Call, pictures: int) -> None:
        """The work is done and charged, whether or not the client will see it."""
        with self._changed:
            call.paid += pictures
            self._paid += pictures
            self._changed.notify_all()

    def finish(self, call: Call, status: int | None, *, paid: int = 0) -> None:
        """The call is over: answered with `status`, or (None) cut off without an answer.

        Paid is paid; but a call whose client has left stays cancelled.
        """
        self.pay(call, paid)
        with self._changed:
            if not call.cancelled:
                call.status = status
                call.finished = True
                self._changed.notify_all()

    def cancel(self, call: Call) -> None:
        """The client went away. Nothing changes when the call had been answered before."""
        with self._changed:
            if not call.finished:
                call.cancelled = call.finished = True
                self._changed.notify_all()

    def list(self) -> Sequence[Call]:
        """Oldest first."""
        with self._changed:
            return tuple(self._calls)

    @property
    def paid(self) -> int:
        """Pictures charged since the last clear."""
        return self._paid

    def clear(self) -> None:
        with self._changed:
            self._calls.clear()
            self._paid = 0

    def wait_for(self, predicate: Callable[[Sequence[Call]], bool], timeout: float = 5) -> None:
        """Block until the calls satisfy `predicate`. Raises TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(tuple(self._calls)), timeout):
                raise TimeoutError(f"after {timeout} s the calls were {list(self._calls)}")


def _digest(value: Any) -> Any:
    match value:
        case dict():
            return {key: _digest(item) for key, item in value.items()}
        case list() | tuple():
            return [_digest(item) for item in value]
        case bytes():
            return _fingerprint(value)
        case str() if value.startswith(_PICTURE_STARTS) or len(value) > _LONG:
            return _fingerprint_text(value)
        case _:
            return value


def _fingerprint_text(text: str) -> Json | str:
    standard = text.replace("-", "+").replace("_", "/")
    try:
        return _fingerprint(pybase64.b64decode(standard + "=" * (-len(standard) % 4), validate=True))
    except ValueError:
        return text if len(text) <= _LONG else _fingerprint(text.encode(errors="backslashreplace"))


def _fingerprint(data: bytes) -> Json:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
