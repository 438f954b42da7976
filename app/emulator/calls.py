"""The calls that the emulator received, and how many pictures the vendors would have charged for."""

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
    """One request. `started` is a Unix time in seconds, `paid` a number of pictures.

    `status` is the HTTP status of the answer, and None until (or unless) there is an answer.
    """

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
        """Records a call that begins now. Of a picture in `body` only SHA-256 and length are kept."""
        digested = _digest(body)
        with self._changed:
            self._count += 1
            call = Call(self._count, vendor, method, model, digested, time.time())
            self._calls.append(call)
            self._changed.notify_all()
        return call

    def pay(self, call: Call, pictures: int) -> None:
        """Charges for finished work, whether or not the client will see it."""
        with self._changed:
            call.paid += pictures
            self._paid += pictures
            self._changed.notify_all()

    def finish(self, call: Call, status: int | None, *, paid: int = 0) -> None:
        """Ends a call with the status of its answer, or with None if the connection was cut before an answer.

        A cancelled call stays cancelled, but `paid` pictures are charged for it too.
        """
        self.pay(call, paid)
        with self._changed:
            if not call.cancelled:
                call.status = status
                call.finished = True
                self._changed.notify_all()

    def cancel(self, call: Call) -> None:
        """Ends a call because its client has disconnected. Does nothing after the answer."""
        with self._changed:
            if not call.finished:
                call.cancelled = call.finished = True
                self._changed.notify_all()

    def list(self) -> Sequence[Call]:
        """Returns the calls, oldest first."""
        with self._changed:
            return tuple(self._calls)

    @property
    def paid(self) -> int:
        """Number of pictures charged since the last clear."""
        return self._paid

    def clear(self) -> None:
        with self._changed:
            self._calls.clear()
            self._paid = 0

    def wait_for(self, predicate: Callable[[Sequence[Call]], bool], timeout: float = 5) -> None:
        """Blocks until the calls satisfy `predicate`. Raises TimeoutError after `timeout` seconds."""
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
