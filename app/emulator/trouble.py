"""Rehearsed failures of a call, named by its header, by its prompt, or by the control routes.

The header (in gRPC: metadata) is `X-Trouble: KIND` or `X-Trouble: KIND=ARG`, for example `429=7`. Without the
header, the prompt can contain `#trouble:KIND=ARG`. Only the control routes can order a `travel.Travel`.
"""

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from app.emulator.travel import Travel

Kind = Literal[
    "blocked-prompt",  # the safety filter refuses the prompt
    "blocked-output",  # … refuses every picture
    "half-blocked",  # … refuses every second picture
    "text-only",  # the model answers with words instead of a picture
    "empty",  # the answer holds neither a picture nor a reason
    "429",  # quota; ARG: seconds of Retry-After
    "500",
    "503",  # overload; ARG: seconds of Retry-After
    "slow",  # ARG: seconds (default 5), then the ordinary answer
    "hang",  # no answer until the client disconnects
    "retired",  # the model is gone
    "drop",  # the picture is drawn and paid, then the connection is cut
    "storage-down",  # the store returns 503; ARG: for how many seconds (30; by control: until cleared)
    "answer",  # control only, once by default; ARG: the answer, {"status": 200, "body": …, "headers": …}
]
Vendor = Literal["vertex", "gcs", "bedrock", "claude"]

_WORD = re.compile(r"([a-z0-9-]+)(?:=([0-9]+(?:\.[0-9]+)?))?")
_IN_A_TEXT = re.compile(f"#trouble:{_WORD.pattern}")
_STORAGE_DOWN_SECONDS = 30.0
_NAMEABLE = frozenset(get_args(Kind)) - {"answer"}
"""The kinds that a header or a prompt can name."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What shall happen to one call. Without `kind` only `travel` and `pause` apply.

    `turn` is how often the same trouble has been played before, for "every second picture".
    """

    kind: Kind | None
    arg: Any = None
    turn: int = 0
    travel: Travel | None = None
    pause: float = 0
    """Seconds that the model takes anyway."""

    @property
    def waits(self) -> float:
        """Seconds to wait before the work begins."""
        return self.pause + (self.seconds(5) if self.kind == "slow" else 0)

    def seconds(self, default: float) -> float:
        """Returns the argument of slow, 429 or 503."""
        return float(self.arg) if self.arg is not None else default


@dataclass(slots=True)
class _Order:
    kind: Kind | None
    vendor: Vendor | None
    model: str | None
    arg: Any
    times: int | None
    ends: float | None
    travel: Travel | None = None
    turn: int = 0

    def applies_to(self, vendor: str, model: str) -> bool:
        return self.vendor in (None, vendor) and self.model in (None, model)


class Troubles:
    """The troubles that are ordered now. Thread-safe. Every model takes `seconds`, the store none."""

    def __init__(self, seconds: float = 0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._orders: list[_Order] = []
        self._turns: Counter[str] = Counter()
        self._down_until: dict[str, float] = {}  # by object name, in seconds of time.monotonic

    def set(
        self,
        kind: Kind | None = None,
        *,
        travel: Travel | None = None,
        vendor: Vendor | None = None,
        times: int | None = None,
        arg: Any = None,
        model: str | None = None,
    ) -> None:
        """Orders a trouble for the next `times` calls (None: until cleared), of a vendor or model if given.

        If two orders apply to a call, the older one wins. An order with a kind and one with a travel combine.
        """
        ends = None
        if kind == "storage-down":
            vendor, ends = "gcs", None if arg is None else time.monotonic() + float(arg)
        if kind == "answer":
            times = times or 1
        with self._lock:
            self._orders.append(_Order(kind, vendor, model, arg, times, ends, travel))

    def clear(self) -> None:
        with self._lock:
            self._orders.clear()
            self._turns.clear()
            self._down_until.clear()

    def ask(self, vendor: str, model: str, text: str, header: str | None = None) -> Trouble | None:
        """Returns the trouble of this call, or None. An ordered trouble goes before one that the call names.

        `header` is the call's X-Trouble. If it is None, `text` can name the trouble. For the store, `model`
        is the object's name.
        """
        with self._lock:
            ordered, travel = self._take_ordered(vendor, model)
            trouble = ordered or self._named_by_call(vendor, model, text, header)
        pause = 0 if vendor == "gcs" else self._seconds
        if travel is None and not pause:
            return trouble
        return replace(trouble or Trouble(None), travel=travel, pause=pause)

    def _take_ordered(self, vendor: str, model: str) -> tuple[Trouble | None, Travel | None]:
        now = time.monotonic()
        self._orders = [order for order in self._orders if order.ends is None or order.ends > now]
        fitting = [order for order in self._orders if order.applies_to(vendor, model)]
        failure = next((order for order in fitting if order.kind), None)
        journey = next((order for order in fitting if order.travel), None)
        trouble = Trouble(failure.kind, failure.arg, failure.turn) if failure else None
        for order in fitting:
            if order is failure or order is journey:  # one order can be both
                order.turn += 1
                if order.turn == order.times:
                    self._orders.remove(order)
        return trouble, journey.travel if journey else None

    def _named_by_call(self, vendor: str, model: str, text: str, header: str | None) -> Trouble | None:
        if header is None:
            return self._named_in_text(text)
        return self._of_object(model, header) if vendor == "gcs" else self._of_model(text, header)

    def _named_in_text(self, text: str) -> Trouble | None:
        """Returns the trouble that a text names.

        The store does not see texts: `storage-down` in a text becomes an order for all uploads.
        """
        found = next((match for match in _IN_A_TEXT.finditer(text) if match[1] in _NAMEABLE), None)
        if found is None:
            return None
        if found[1] == "storage-down":
            ends = time.monotonic() + float(found[2] or _STORAGE_DOWN_SECONDS)
            self._orders.append(_Order("storage-down", "gcs", None, found[2], None, ends))
        return self._of_model(text, found[0].removeprefix("#trouble:"))

    def _of_model(self, text: str, header: str) -> Trouble | None:
        """Returns the trouble of a call to a model. Turns are counted per text."""
        kind, arg = _split(header)
        if kind is None or kind == "storage-down":
            return None
        turn = self._turns[text]
        self._turns[text] += 1
        return Trouble(kind, arg, turn)

    def _of_object(self, name: str, header: str) -> Trouble | None:
        """Returns the trouble of an upload. It applies to this object only, from the first attempt on.

        The later requests of a resumable upload have no name and do not fail.
        """
        kind, arg = _split(header)
        if kind != "storage-down" or not name:
            return None
        now = time.monotonic()
        ends = self._down_until.setdefault(name, now + float(arg or _STORAGE_DOWN_SECONDS))
        return Trouble(kind, arg) if now < ends else None


def _split(header: str) -> tuple[Kind | None, str | None]:
    """Returns kind and argument. The kind is None if it is unknown or cannot be named."""
    found = _WORD.fullmatch(header)
    if found is None or found[1] not in _NAMEABLE:
        return None, None
    return found[1], found[2]  # type: ignore[return-value]  # it is in _NAMEABLE
