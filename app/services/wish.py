"""One request in the ledger, and its paid calls."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from app.contract.bookkeeping import Close, Ending, Finish
from app.contract.errors import BudgetExhausted, Busy, GatewayError, InvalidRequest
from app.contract.ledger import (
    Begun,
    CallState,
    NewCall,
    OverBudget,
    Record,
    Reserved,
    StoredPicture,
    Unpriced,
)
from app.contract.models import Model, Operation
from app.contract.prices import Order, Prices
from app.pictures.blob import Blob
from app.ports import Bill, PaidCall, Place
from app.services.auth import Caller
from app.storage.ledger import Ledger

REWRITE = "rewrite"
_UNKNOWN: tuple[CallState, ...] = ("sent", "unknown", "abandoned")
CHARGED: tuple[CallState, ...] = ("settled", *_UNKNOWN)

log = structlog.get_logger()


@dataclass(slots=True)
class _Paid:
    """A row of `calls`, and its state in this process. Implements `app.ports.PaidCall`."""

    wish: "Wish"
    model: Model
    order: Order
    slot: int
    attempt: int = 1
    state: CallState = "reserved"
    charged: int = 0
    new: NewCall = field(init=False)
    together: "_Together" = field(init=False)

    def __post_init__(self) -> None:
        micros = self.wish.prices.worst_cost(self.order)
        self.new = NewCall(
            self.slot,
            self.model.id,
            self.order.operation,
            micros or 0,
            0 if self.order.operation == REWRITE else self.order.samples,
            self.attempt,
            priced=micros is not None,
        )

    @property
    def id(self) -> str:
        return self.new.id

    async def reserve(self) -> None:
        await self.together.reserve()

    async def fence(self, place: Place | None, /) -> None:
        bucket, stem = (place.bucket, place.stem) if place else (None, None)
        fence = partial(self.wish.ledger.fence, self.id, bucket=bucket, stem=stem)
        if not await self.together.reserve(fence):
            await fence()
        self.state, self.charged = "sent", self.new.micros

    def settle(self, bill: Bill, /) -> None:
        self.charged = self.wish.prices.cost(self.order, bill.pictures, bill.usage) or 0
        self._end("settled", bill.pictures, bill.text)

    def void(self) -> None:
        self.charged = 0
        self._end("void")

    def unknown(self) -> None:
        self._end("unknown")

    def abandon(self) -> None:
        self._end("abandoned")

    def _end(self, state: Ending, made: int = 0, text: str | None = None) -> None:
        self.state = state
        if self.together.begun:
            self.wish.ledger.tell(Close(self.id, state, self.charged, made, text=text))

    def again(self) -> PaidCall:
        other = _Paid(self.wish, self.model, self.order, self.slot, self.attempt + 1)
        other.together = _Together(self.wish, (other,))
        return other


class _Together:
    """Calls of a wish that are reserved together, by the first of them that needs it."""

    def __init__(self, wish: "Wish", calls: Sequence[_Paid]) -> None:
        self.begun = False
        self._wish = wish
        self._calls = calls
        self._ended = asyncio.Event()
        self._failure: GatewayError | None = None

    async def reserve(self, fence: Callable[[], Awaitable[None]] | None = None) -> bool:
        """Returns True if this call has reserved them, and carried out `fence` in the same commit."""
        if self.begun:
            await self._ended.wait()
            if self._failure:
                raise self._failure
            return False
        self.begun = True
        self._failure = Busy()  # if this is cancelled
        try:
            await self._wish.add(self._calls, fence)
            self._failure = None
        except GatewayError as exc:
            self._failure = exc
            raise
        finally:
            self._ended.set()
        return True


class Wish:
    """One request of a caller. Implements `app.ports.Wish`.

    With a `key` it is in the ledger from its beginning, without one from its first call on.
    """

    def __init__(self, ledger: Ledger, prices: Prices, who: Caller, route: str, key: str | None) -> None:
        self.ledger = ledger
        self.prices = prices
        self.caller = who.id
        self.api_key = who.key
        self.scopes = who.scopes
        self.route = route
        self.key = key
        self.id: str | None = None
        self.rewritten: str | None = None
        self.rewrite_lost = False
        self.paid_before = False
        self.kept: dict[Blob, str] = {}  # names in the private store
        self._calls: list[_Paid] = []
        self._pictures: list[StoredPicture] = []
        self._first_slot = 0

    def check(self, model: Model, operation: Operation, /) -> None:
        if self.api_key and operation != REWRITE:  # a part of /gen
            self.api_key.check_operation(operation)
            self.api_key.check_model(model.id)

    def pay_for(self, model: Model, orders: Sequence[Order], /) -> tuple[PaidCall, ...]:
        self.check(model, orders[0].operation)
        slot = self._first_slot + len({call.slot for call in self._calls})
        calls = tuple(_Paid(self, model, order, slot + n) for n, order in enumerate(orders))
        together = _Together(self, calls)
        for call in calls:
            call.together = together
        return calls

    async def add(self, calls: Sequence[_Paid], fence: Callable[[], Awaitable[None]] | None = None) -> None:
        """Reserve the calls, and `fence` one of them in the same commit. Raises as `PaidCall.fence`."""
        new = [call.new for call in calls]
        reserving: Awaitable[object]
        if self.id is None:
            reserving = self.ledger.begin(
                caller=self.caller,
                route=self.route,
                key=None,
                fingerprint="",
                scopes=self.scopes,
                calls=new,
            )
        else:
            reserving = self.ledger.reserve(self.id, new, self.scopes)
        if fence:
            outcome, fenced = await asyncio.gather(reserving, fence(), return_exceptions=True)
        else:
            outcome, fenced = await reserving, None
        match outcome:
            case Begun():
                self.id = outcome.wish
            case Reserved():
                pass
            case OverBudget():
                raise BudgetExhausted(outcome.sentence)
            case Unpriced():
                raise InvalidRequest(f"{outcome.model} has no price, so a budget in USD does not allow it")
            case BaseException():
                raise outcome
            case _:
                log.error("a request has lost its place in the ledger", outcome=type(outcome).__name__)
                raise Busy
        self._calls += calls
        if fenced:
            raise fenced

    def stored(self, picture: StoredPicture, /) -> None:
        self._pictures.append(picture)

    def go_on(self, record: Record) -> None:
        """Continue a request of an earlier process that has not sent a call for a picture."""
        self._first_slot = max((call.slot for call in record.calls), default=-1) + 1
        sent = [call for call in record.calls if call.operation == REWRITE and call.state in CHARGED]
        texts = [call.text for call in sent if call.text]
        self.rewritten = texts[-1] if texts else None
        self.rewrite_lost = bool(sent) and not texts
        self.paid_before = any(call.state in CHARGED for call in record.calls)

    def finish(self, status: int | None = None, body: str | None = None) -> None:
        """End it. If there is a status, its answer is kept for repeated requests."""
        if self.id is not None:
            process, pictures = self.ledger.process, tuple(self._pictures)
            self.ledger.tell(Finish(self.id, process, status, body, pictures))

    @property
    def receipt(self) -> str | None:
        """Its id, if a call was sent for it, by this request or an earlier one."""
        now = any(call.state in CHARGED for call in self._calls)
        return self.id if now or self.paid_before else None

    @property
    def cost_micros(self) -> int:
        """The cost of its calls as far as it is known, without those of earlier requests."""
        return sum(call.charged for call in self._calls if call.state in CHARGED)

    @property
    def is_unknown(self) -> bool:
        """Whether a call may have been paid without a picture."""
        return self.rewrite_lost or any(call.state in _UNKNOWN for call in self._calls)
