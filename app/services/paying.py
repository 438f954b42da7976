"""Pays for requests: every paid call is in the ledger before it is sent, and no request is paid twice."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import structlog
from pydantic import BaseModel

from app.contract.bookkeeping import Close, Ending, Finish, recovered
from app.contract.errors import (
    BudgetExhausted,
    Busy,
    GatewayError,
    InvalidRequest,
    KeyInFlight,
    KeyReused,
    SafetyBlocked,
    UpstreamTimeout,
)
from app.contract.ledger import (
    Begun,
    CallState,
    NewCall,
    OtherRequest,
    OverBudget,
    Record,
    Recovered,
    Replay,
    Reserved,
    Running,
    StoredPicture,
    TakenOver,
    Unpriced,
)
from app.contract.models import Model, Operation
from app.contract.prices import Order, Prices
from app.contract.safety import block
from app.pictures.blob import Blob, Blobs
from app.pictures.in_json import JsonWriter
from app.ports import Bill, Call, PaidCall, Place, PrivateStore
from app.services.auth import Caller
from app.services.finding import Finder
from app.services.made import Found, Made, rows
from app.services.replays import Keeping, fingerprint, kept, retold
from app.storage.ledger import Ledger
from app.threads import off_loop

_REWRITE = "rewrite"
_UNKNOWN: tuple[CallState, ...] = ("sent", "unknown", "abandoned")
_CHARGED: tuple[CallState, ...] = ("settled", *_UNKNOWN)
_PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0)
"""Between looks at a request that another process is working on."""
_RETRY_AFTER_SECONDS = 5
_MISSING = "it is unknown whether this picture was made"
"""What callers are told of each picture of an interrupted request that is not found."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Paid:
    """A row of `calls` and what this process knows of it. Implements `app.ports.PaidCall`."""

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
        micros = self.wish.paying.prices.worst_cost(self.order)
        self.new = NewCall(
            self.slot,
            self.model.id,
            self.order.operation,
            micros or 0,
            0 if self.order.operation == _REWRITE else self.order.samples,
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
        fence = partial(self.wish.paying.ledger.fence, self.id, bucket=bucket, stem=stem)
        if not await self.together.reserve(fence):
            await fence()
        self.state, self.charged = "sent", self.new.micros

    def settle(self, bill: Bill, /) -> None:
        self.charged = self.wish.paying.prices.cost(self.order, bill.pictures, bill.usage) or 0
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
            self.wish.paying.ledger.tell(Close(self.id, state, self.charged, made, text=text))

    def again(self) -> PaidCall:
        other = _Paid(self.wish, self.model, self.order, self.slot, self.attempt + 1)
        other.together = _Together(self.wish, (other,))
        return other


class _Together:
    """Calls of a wish that are reserved by the first of them that needs it."""

    def __init__(self, wish: "Wish", calls: Sequence[_Paid]) -> None:
        self.begun = False
        self._wish = wish
        self._calls = calls
        self._ended = asyncio.Event()
        self._failure: GatewayError | None = None

    async def reserve(self, fence: Callable[[], Awaitable[None]] | None = None) -> bool:
        """Returns True if they were not reserved before; then `fence`, too, is carried out."""
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

    It is in the ledger from its first call on; with a `key` it is from the beginning.
    """

    def __init__(self, paying: "Paying", who: Caller, route: str, key: str | None) -> None:
        self.paying = paying
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
        if self.api_key and operation != _REWRITE:  # which is a part of /gen
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
        ledger, new = self.paying.ledger, [call.new for call in calls]
        reserving: Awaitable[object]
        if self.id is None:
            reserving = ledger.begin(
                caller=self.caller,
                route=self.route,
                key=None,
                fingerprint="",
                scopes=self.scopes,
                calls=new,
            )
        else:
            reserving = ledger.reserve(self.id, new, self.scopes)
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
        """Begin again where an earlier process has stopped before it sent a call for a picture."""
        self._first_slot = max((call.slot for call in record.calls), default=-1) + 1
        sent = [call for call in record.calls if call.operation == _REWRITE and call.state in _CHARGED]
        texts = [call.text for call in sent if call.text]
        self.rewritten = texts[-1] if texts else None
        self.rewrite_lost = bool(sent) and not texts
        self.paid_before = any(call.state in _CHARGED for call in record.calls)

    def finish(self, status: int | None = None, body: str | None = None) -> None:
        """Nothing more is done for it. With a status, its answer is kept for those who repeat it."""
        if self.id is not None:
            ledger = self.paying.ledger
            ledger.tell(Finish(self.id, ledger.process, status, body, tuple(self._pictures)))

    @property
    def receipt(self) -> str | None:
        """Its id, if something was sent for it, now or earlier."""
        now = any(call.state in _CHARGED for call in self._calls)
        return self.id if now or self.paid_before else None

    @property
    def cost_micros(self) -> int:
        """What its calls cost now, as far as is known: not those of earlier tries."""
        return sum(call.charged for call in self._calls if call.state in _CHARGED)

    @property
    def is_unknown(self) -> bool:
        """Whether a call may have been paid for nothing."""
        return self.rewrite_lost or any(call.state in _UNKNOWN for call in self._calls)


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller is told. `made` is None for a replay, whose answer another request has got."""

    status: int
    body: JsonWriter
    made: Made | None = None


@dataclass(frozen=True, slots=True)
class Errand:
    """What has to be done for a wish.

    `request` is the validated body, `make` does the work, `recover` builds its result from pictures that were
    found, `present` its answer, and `refuse` status and body of an error.
    """

    request: BaseModel
    call: Call
    make: Callable[[], Awaitable[Made]]
    recover: Callable[[Sequence[Found]], Awaitable[Made]]
    present: Callable[[Made], object]
    refuse: Callable[[GatewayError], tuple[int, object]]


class Paying:
    """Does what a caller wishes, and pays for it once.

    A request with a key that was answered before is answered so again; one that is under way is waited for;
    one that was interrupted goes on, or is answered with the pictures that it has paid for.
    """

    def __init__(self, ledger: Ledger, prices: Prices, finder: Finder, private: PrivateStore) -> None:
        self.ledger = ledger
        self.prices = prices
        self._finder = finder
        self._private = private
        self._running: dict[str, asyncio.Event] = {}

    def wish(self, who: Caller, route: str, key: str | None) -> Wish:
        return Wish(self, who, route, key)

    def keeping(self, wish: Wish, blobs: Blobs) -> Keeping:
        """Returns where the pictures of an answer in base64 are kept for replays."""
        return Keeping(self._private, wish.kept, blobs)

    async def fulfil(self, wish: Wish, errand: Errand) -> Told:
        """Raises `contract.errors`: those of `errand.make`, KeyReused and KeyInFlight."""
        if wish.key is None:
            try:
                made = await errand.make()
                return Told(200, JsonWriter(errand.present(made)), made)
            finally:
                wish.finish()
        same = await off_loop(fingerprint, errand.request)
        for looks in count():
            outcome = await self.ledger.begin(
                caller=wish.caller,
                route=wish.route,
                key=wish.key,
                fingerprint=same,
                scopes=wish.scopes,
            )
            match outcome:
                case Begun() | TakenOver():
                    return await self._work(wish, outcome, errand)
                case Replay():
                    wish.id, wish.paid_before = outcome.wish, True
                    body = await retold(outcome.body, self._private, errand.call.blobs)
                    return Told(outcome.status, body)
                case Running():
                    await self._wait(outcome, looks, errand.call)
                case OtherRequest():
                    raise KeyReused
                case OverBudget() | Unpriced():
                    raise AssertionError("a wish without calls costs nothing")
        raise AssertionError("never counted to the end")

    async def _work(self, wish: Wish, outcome: Begun | TakenOver, errand: Errand) -> Told:
        wish.id = outcome.wish
        ended = self._running[wish.id] = asyncio.Event()
        status, text = None, None
        try:
            resumed = await self._resume(wish, errand) if isinstance(outcome, TakenOver) else None
            made = resumed or await errand.make()
            body = JsonWriter(errand.present(made))
            to_come = any(one.pending for one in made.stored) or (resumed and resumed.failed)
            if not to_come:  # otherwise it is not final
                status, text = 200, kept(body, wish.kept)
            return Told(200, body, made)
        except SafetyBlocked as exc:
            status, refusal = errand.refuse(exc)
            text = kept(JsonWriter(refusal), {})
            raise
        finally:
            wish.finish(status if text else None, text)
            ended.set()
            del self._running[wish.id]

    async def _resume(self, wish: Wish, errand: Errand) -> Made | None:
        """Returns what an interrupted request has made, or None if it has paid for no picture."""
        record = await self.ledger.look(wish.id or "")
        if not record:
            raise Busy
        drawn = [call for call in record.calls if call.operation != _REWRITE and call.state in _CHARGED]
        wish.go_on(record)
        if not drawn:
            return None
        found: list[Found] = []
        missing = 0
        for call in drawn:
            theirs = await self._finder.find(call, errand.call.blobs)
            self.ledger.tell(recovered(call, Recovered(len(theirs), rows(theirs))))
            missing += max((call.made if call.state == "settled" else call.samples) - len(theirs), 0)
            found += theirs
        for row in rows(found):
            wish.stored(row)
        if found:
            wish.kept.update((one.picture.blob, one.name) for one in found if one.picture)
            return replace(await errand.recover(found), failed=(_MISSING,) * missing)
        if all(call.state == "settled" and not call.made for call in drawn):
            raise SafetyBlocked(block())
        error = UpstreamTimeout()
        error.receipt = wish.id
        raise error

    async def _wait(self, running: Running, looks: int, call: Call) -> None:
        """Return when the request may have ended. Raises KeyInFlight when the caller's time is up."""
        loop = asyncio.get_running_loop()
        pause = _PAUSES_SECONDS[min(looks, len(_PAUSES_SECONDS) - 1)]
        if loop.time() + pause > call.answer_by:
            raise KeyInFlight(_RETRY_AFTER_SECONDS)
        ended = self._running.get(running.wish)
        try:
            async with asyncio.timeout_at(call.answer_by if ended else loop.time() + pause):
                await (ended or asyncio.Event()).wait()
        except TimeoutError:
            if ended:
                raise KeyInFlight(_RETRY_AFTER_SECONDS) from None
