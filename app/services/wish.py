"""A wish: one request in the ledger, and its paid calls."""

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
class _LedgerCall:
    """One paid call: its row in `calls`, and its state in this process. Implements `app.ports.PaidCall`."""

    wish: "Wish"
    model: Model
    order: Order
    slot: int
    attempt: int = 1
    state: CallState = "reserved"
    charged: int = 0
    new: NewCall = field(init=False)
    batch: "_Batch" = field(init=False)

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
        await self.batch.reserve()

    async def fence(self, place: Place | None, /) -> None:
        bucket, stem = (place.bucket, place.stem) if place else (None, None)
        fence = partial(self.wish.ledger.fence, self.id, bucket=bucket, stem=stem)
        if not await self.batch.reserve(fence):
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
        if self.batch.begun:
            self.wish.ledger.submit(Close(self.id, state, self.charged, made, text=text))

    def again(self) -> PaidCall:
        other = _LedgerCall(self.wish, self.model, self.order, self.slot, self.attempt + 1)
        other.batch = _Batch(self.wish, (other,))
        return other


class _Batch:
    """Calls of a wish that are reserved in one commit, by the first call that needs it."""

    def __init__(self, wish: "Wish", calls: Sequence[_LedgerCall]) -> None:
        self.begun = False
        self._wish = wish
        self._calls = calls
        self._ended = asyncio.Event()
        self._failure: GatewayError | None = None

    async def reserve(self, fence: Callable[[], Awaitable[None]] | None = None) -> bool:
        """Reserve the calls if that is not done yet. Raises as `PaidCall.reserve`, for each of the calls.

        Returns True if this call of `reserve` did it, and carried out `fence` in the same commit.
        """
        if self.begun:
            await self._ended.wait()
            if self._failure:
                raise self._failure
            return False
        self.begun = True
        self._failure = Busy()  # for the other calls, if this one is cancelled
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
    """One request of a caller in the ledger: it pays for the request's calls. Implements `app.ports.Wish`.

    With an Idempotency-Key (`key`) it is in the ledger from the start, else from its first paid call.
    """

    def __init__(self, ledger: Ledger, prices: Prices, caller: Caller, route: str, key: str | None) -> None:
        self.ledger = ledger
        self.prices = prices
        self.caller = caller.id
        self.api_key = caller.key
        self.scopes = caller.scopes
        self.route = route
        self.key = key
        self.id: str | None = None
        self.rewritten: str | None = None
        self.rewrite_lost = False
        self.paid_before = False
        self.private_names: dict[Blob, str] = {}  # of pictures in the private store
        self._calls: list[_LedgerCall] = []
        self._pictures: list[StoredPicture] = []
        self._first_slot = 0

    def check(self, model: Model, operation: Operation, /) -> None:
        if self.api_key and operation != REWRITE:  # a rewrite is part of /gen, which was checked
            self.api_key.check_operation(operation)
            self.api_key.check_model(model.id)

    def pay_for(self, model: Model, orders: Sequence[Order], /) -> tuple[PaidCall, ...]:
        self.check(model, orders[0].operation)
        slot = self._first_slot + len({call.slot for call in self._calls})
        calls = tuple(_LedgerCall(self, model, order, slot + n) for n, order in enumerate(orders))
        batch = _Batch(self, calls)
        for call in calls:
            call.batch = batch
        return calls

    async def add(
        self, calls: Sequence[_LedgerCall], fence: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Reserve the calls, and carry out `fence` in the same commit. Raises as `PaidCall.fence`."""
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
                log.error("a request is not running in the ledger any more", outcome=type(outcome).__name__)
                raise Busy
        self._calls += calls
        if fenced:
            raise fenced

    def stored(self, picture: StoredPicture, /) -> None:
        self._pictures.append(picture)

    def resume(self, record: Record) -> None:
        """Take over an interrupted request: its rewritten prompt, and the number of its next slot."""
        self._first_slot = max((call.slot for call in record.calls), default=-1) + 1
        sent = [call for call in record.calls if call.operation == REWRITE and call.state in CHARGED]
        texts = [call.text for call in sent if call.text]
        self.rewritten = texts[-1] if texts else None
        self.rewrite_lost = bool(sent) and not texts
        self.paid_before = any(call.state in CHARGED for call in record.calls)

    def finish(self, status: int | None = None, body: str | None = None) -> None:
        """End the request. If `status` and `body` are given, they are kept for repeated requests."""
        if self.id is not None:
            process, pictures = self.ledger.process, tuple(self._pictures)
            self.ledger.submit(Finish(self.id, process, status, body, pictures))

    @property
    def receipt(self) -> str | None:
        """The receipt's id, if this request or an earlier try of it has sent a call."""
        now = any(call.state in CHARGED for call in self._calls)
        return self.id if now or self.paid_before else None

    @property
    def cost_micros(self) -> int:
        """The cost of this request's calls as far as it is known, without an earlier try's."""
        return sum(call.charged for call in self._calls if call.state in CHARGED)

    @property
    def outcome_unknown(self) -> bool:
        """Whether a call can be charged although its result is not known."""
        return self.rewrite_lost or any(call.state in _UNKNOWN for call in self._calls)
