"""Rehearsed failures of a call: named by its header, its prompt or the control routes.

The header (in gRPC: metadata) is `X-Trouble: KIND` or `X-Trouble: KIND=ARG`, for example `429=7`. Without it,
the prompt may contain `#trouble:KIND=ARG`. How an answer travels (`travel.Travel`) is ordered by the control
routes only.
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
    "empty",  # an answer without any picture or reason
    "429",  # quota; ARG: seconds of Retry-After
    "500",
    "503",  # overload; ARG: seconds of Retry-After
    "slow",  # ARG: seconds (default 5), then the ordinary answer
    "hang",  # no answer until the client leaves
    "retired",  # the model is gone
    "drop",  # drawn and paid, then the connection is cut
    "storage-down",  # the store returns 503; ARG: how many seconds (default 30; by control: until cleared)
    "answer",  # control only; ARG: {"status": 200, "body": …}, given once
]
Vendor = Literal["vertex", "gcs", "bedrock", "claude"]

_WORD = re.compile(r"([a-z0-9-]+)(?:=([0-9]+(?:\.[0-9]+)?))?")
_IN_A_TEXT = re.compile(f"#trouble:{_WORD.pattern}")
_STORAGE_DOWN_SECONDS = 30.0
_SAYABLE = frozenset(get_args(Kind)) - {"answer"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure to rehearse. `turn` counts from 0 how often this one was met before, for "every second".

    Without a `kind` there is only how the answer travels, or the model's pause.
    """

    kind: Kind | None
    arg: Any = None
    turn: int = 0
    travel: Travel | None = None
    pause: float = 0
    """Seconds that the model takes without any trouble."""

    @property
    def waits(self) -> float:
        """Seconds before the work begins."""
        return self.pause + (self.seconds(5) if self.kind == "slow" else 0)

    def seconds(self, default: float) -> float:
        """The argument of slow, 429 and 503."""
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

    def meets(self, vendor: str, model: str) -> bool:
        return self.vendor in (None, vendor) and self.model in (None, model)


class Troubles:
    """What is ordered at the moment. Thread-safe. Every model takes `seconds`; the store takes none."""

    def __init__(self, seconds: float = 0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._orders: list[_Order] = []
        self._turns: Counter[str] = Counter()
        self._kept_out: dict[str, float] = {}  # until when, by object name

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
        """Order a trouble for the next `times` calls (None: until cleared), of a vendor or model if given.

        Of two orders for the same call the older one holds; one of a kind and one of travel both do.
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
            self._kept_out.clear()

    def ask(self, vendor: str, model: str, text: str, header: str | None = None) -> Trouble | None:
        """Returns the failure of this call, or None: one ordered by control, else one that the call names.

        `header` is the call's X-Trouble; if it is None, `text` is read. For the store, `model` is the
        object's name.
        """
        with self._lock:
            ordered, travel = self._ordered(vendor, model)
            trouble = ordered or self._carried(vendor, model, text, header)
        pause = 0 if vendor == "gcs" else self._seconds
        if travel is None and not pause:
            return trouble
        return replace(trouble or Trouble(None), travel=travel, pause=pause)

    def _ordered(self, vendor: str, model: str) -> tuple[Trouble | None, Travel | None]:
        now = time.monotonic()
        self._orders = [order for order in self._orders if order.ends is None or order.ends > now]
        met = [order for order in self._orders if order.meets(vendor, model)]
        saying = next((order for order in met if order.kind), None)
        shaping = next((order for order in met if order.travel), None)
        trouble = Trouble(saying.kind, saying.arg, saying.turn) if saying else None
        for order in met:
            if order is saying or order is shaping:
                order.turn += 1
                if order.turn == order.times:
                    self._orders.remove(order)
        return trouble, shaping.travel if shaping else None

    def _carried(self, vendor: str, model: str, text: str, header: str | None) -> Trouble | None:
        if header is None:
            return self._said(text)
        return self._stored(model, header) if vendor == "gcs" else self._called(text, header)

    def _said(self, text: str) -> Trouble | None:
        """Returns the failure named in a text. `storage-down` is then for all uploads: the store does not see
        texts."""
        found = next((match for match in _IN_A_TEXT.finditer(text) if match[1] in _SAYABLE), None)
        if found is None:
            return None
        if found[1] == "storage-down":
            ends = time.monotonic() + float(found[2] or _STORAGE_DOWN_SECONDS)
            self._orders.append(_Order("storage-down", "gcs", None, found[2], None, ends))
        return self._called(text, found[0].removeprefix("#trouble:"))

    def _called(self, text: str, header: str) -> Trouble | None:
        """Returns the failure of a call to a model."""
        kind, arg = _split(header)
        if kind is None or kind == "storage-down":
            return None
        turn = self._turns[text]
        self._turns[text] += 1
        return Trouble(kind, arg, turn)

    def _stored(self, name: str, header: str) -> Trouble | None:
        """Returns the failure of an upload. It applies to this object only, from the first try on.

        The later requests of a resumable upload have no name, and do not fail.
        """
        kind, arg = _split(header)
        if kind != "storage-down" or not name:
            return None
        now = time.monotonic()
        ends = self._kept_out.setdefault(name, now + float(arg or _STORAGE_DOWN_SECONDS))
        return Trouble(kind, arg) if now < ends else None


def _split(header: str) -> tuple[Kind | None, str | None]:
    """Returns kind and argument. An unknown kind is None."""
    found = _WORD.fullmatch(header)
    if found is None or found[1] not in _SAYABLE:
        return None, None
    return found[1], found[2]  # type: ignore[return-value]  # a member of _SAYABLE
