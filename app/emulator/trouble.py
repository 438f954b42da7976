"""Trouble on request: which failure a call rehearses, by words in its prompt or by the control routes.

In a prompt: `#trouble:KIND` or `#trouble:KIND=ARG`, for example `a cat #trouble:429=7`.
"""

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal[
    "blocked-prompt",  # the safety filter refuses the prompt
    "blocked-output",  # … refuses every picture
    "half-blocked",  # … refuses every second picture
    "text-only",  # the model answers with words instead of a picture
    "empty",  # an answer without any picture or reason
    "429",  # quota; ARG: seconds of Retry-After
    "500",
    "503",  # overload; ARG: seconds of Retry-After
    "slow",  # ARG: seconds (default 5), then the ordinary answer
    "hang",  # no answer until the client leaves
    "retired",  # the model is gone
    "drop",  # drawn and paid, then the connection is cut
    "storage-down",  # the store answers 503; ARG: for so many seconds (in a prompt: default 10)
    "answer",  # control only; ARG: {"status": 200, "body": …}, given once
]
Vendor = Literal["vertex", "gcs", "bedrock", "claude"]

_WORDS = re.compile(r"#trouble:([a-z0-9-]+)(?:=([0-9]+(?:\.[0-9]+)?))?")
_SAYABLE = frozenset(get_args(Kind)) - {"answer"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure to rehearse. `turn` counts from 0 how often this one was met before, for "every second"."""

    kind: Kind
    arg: Any = None
    turn: int = 0

    def seconds(self, default: float) -> float:
        """The argument of slow, 429 and 503."""
        return float(self.arg) if self.arg is not None else default


@dataclass(slots=True)
class _Order:
    kind: Kind
    vendor: Vendor | None
    model: str | None
    arg: Any
    times: int | None
    ends: float | None
    turn: int = 0

    def meets(self, vendor: str, model: str) -> bool:
        return self.vendor in (None, vendor) and self.model in (None, model)


class Troubles:
    """What is ordered at the moment. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[_Order] = []
        self._turns: Counter[str] = Counter()

    def set(
        self,
        kind: Kind,
        *,
        vendor: Vendor | None = None,
        times: int | None = None,
        arg: Any = None,
        model: str | None = None,
    ) -> None:
        """Order a trouble for the next `times` calls (None: until cleared), of a vendor or model if given."""
        ends = None
        if kind == "storage-down":
            vendor, ends = "gcs", None if arg is None else time.monotonic() + float(arg)
        if kind == "answer":
            times = times or 1
        with self._lock:
            self._orders.append(_Order(kind, vendor, model, arg, times, ends))

    def clear(self) -> None:
        with self._lock:
            self._orders.clear()
            self._turns.clear()

    def ask(self, vendor: str, model: str, text: str) -> Trouble | None:
        """The trouble this call shall have, if any: what was ordered first, then what its text says."""
        with self._lock:
            return self._ordered(vendor, model) or self._said(text)

    def _ordered(self, vendor: str, model: str) -> Trouble | None:
        now = time.monotonic()
        self._orders = [order for order in self._orders if order.ends is None or order.ends > now]
        order = next((order for order in self._orders if order.meets(vendor, model)), None)
        if order is None:
            return None
        trouble = Trouble(order.kind, order.arg, order.turn)
        order.turn += 1
        if order.turn == order.times:
            self._orders.remove(order)
        return trouble

    def _said(self, text: str) -> Trouble | None:
        found = next((match for match in _WORDS.finditer(text) if match[1] in _SAYABLE), None)
        if found is None:
            return None
        kind, arg = found[1], found[2]
        if kind == "storage-down":
            ends = time.monotonic() + float(arg or 10)
            self._orders.append(_Order("storage-down", "gcs", None, arg, None, ends))
            return None
        turn = self._turns[text]
        self._turns[text] += 1
        return Trouble(kind, arg, turn)  # type: ignore[arg-type]  # a member of _SAYABLE
