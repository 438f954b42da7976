"""Pays for requests: every paid call is in the ledger before it is sent, and no request is paid twice."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import structlog
from pydantic import BaseModel

from app.contract.errors import (
    Busy,
    GatewayError,
    KeyInFlight,
    KeyReused,
    SafetyBlocked,
    UpstreamTimeout,
)
from app.contract.ledger import (
    Begun,
    OtherRequest,
    OverBudget,
    Recovered,
    Replay,
    Running,
    TakenOver,
    Unpriced,
)
from app.contract.prices import Prices
from app.contract.recovery import recovered
from app.contract.safety import block
from app.pictures.blob import Blobs
from app.pictures.in_json import JsonWriter
from app.ports import Call, PrivateStore
from app.services.auth import Caller
from app.services.finding import Finder
from app.services.made import Found, Made, rows
from app.services.replays import Keeping, fingerprint, kept, replayed
from app.services.wish import CHARGED, REWRITE, Wish
from app.storage.ledger import Ledger
from app.threads import off_loop

_PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0)
"""Between looks at a request that another process is working on."""
_MISSING = "it is unknown whether this picture was made"
"""The sentence for each picture of an interrupted request that is not found."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a caller. `made` is None for a replay, the answer to an earlier request."""

    status: int
    body: JsonWriter
    made: Made | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What to do for a wish.

    `request` is the validated body. `make` makes the pictures, `recover` builds the same result from pictures
    that were found. `present` returns the answer, and `refuse` the status and the body of an error.
    """

    request: BaseModel
    call: Call
    make: Callable[[], Awaitable[Made]]
    recover: Callable[[Sequence[Found]], Awaitable[Made]]
    present: Callable[[Made], object]
    refuse: Callable[[GatewayError], tuple[int, object]]


class Paying:
    """Fulfils the wishes of callers, and pays for each once.

    A request with a key gets the same answer as an earlier request with that key. If that one is under way,
    this one waits. If it was interrupted, it goes on, or is answered with the pictures that it has paid for.
    """

    def __init__(self, ledger: Ledger, prices: Prices, finder: Finder, private: PrivateStore) -> None:
        self.ledger = ledger
        self._prices = prices
        self._finder = finder
        self._private = private
        self._running: dict[str, asyncio.Event] = {}

    def wish(self, who: Caller, route: str, key: str | None) -> Wish:
        return Wish(self.ledger, self._prices, who, route, key)

    def keeping(self, wish: Wish, blobs: Blobs) -> Keeping:
        """Returns the landing of pictures that are returned in base64: they are kept for replays."""
        return Keeping(self._private, wish.kept, blobs)

    async def fulfil(self, wish: Wish, work: Work) -> Reply:
        """Raises `contract.errors`: those of `work.make`, KeyReused and KeyInFlight."""
        if wish.key is None:
            try:
                made = await work.make()
                return Reply(200, JsonWriter(work.present(made)), made)
            finally:
                wish.finish()
        same = await off_loop(fingerprint, work.request)
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
                    return await self._work(wish, outcome, work)
                case Replay():
                    wish.id, wish.paid_before = outcome.wish, True
                    body = await replayed(outcome.body, self._private, work.call.blobs)
                    return Reply(outcome.status, body)
                case Running():
                    await self._wait(outcome, looks, work.call)
                case OtherRequest():
                    raise KeyReused
                case OverBudget() | Unpriced():
                    raise AssertionError("a wish without calls costs nothing")
        raise AssertionError("never counted to the end")

    async def _work(self, wish: Wish, outcome: Begun | TakenOver, work: Work) -> Reply:
        wish.id = outcome.wish
        ended = self._running[wish.id] = asyncio.Event()
        status, text = None, None
        try:
            resumed = await self._resume(wish, work) if isinstance(outcome, TakenOver) else None
            made = resumed or await work.make()
            body = JsonWriter(work.present(made))
            to_come = any(one.pending for one in made.stored) or (resumed and resumed.failed)
            if not to_come:  # otherwise it is not final
                status, text = 200, kept(body, wish.kept)
            return Reply(200, body, made)
        except SafetyBlocked as exc:
            status, refusal = work.refuse(exc)
            text = kept(JsonWriter(refusal), {})
            raise
        finally:
            wish.finish(status if text else None, text)
            ended.set()
            del self._running[wish.id]

    async def _resume(self, wish: Wish, work: Work) -> Made | None:
        """Returns the pictures of an interrupted request, or None if it has not sent a call for any."""
        record = await self.ledger.look(wish.id or "")
        if not record:
            raise Busy
        drawn = [call for call in record.calls if call.operation != REWRITE and call.state in CHARGED]
        wish.go_on(record)
        if not drawn:
            return None
        found: list[Found] = []
        missing = 0
        for call in drawn:
            pictures = await self._finder.find(call, work.call.blobs)
            self.ledger.tell(recovered(call, Recovered(len(pictures), rows(pictures))))
            missing += max((call.made if call.state == "settled" else call.samples) - len(pictures), 0)
            found += pictures
        for row in rows(found):
            wish.stored(row)
        if found:
            wish.kept.update((one.picture.blob, one.name) for one in found if one.picture)
            return replace(await work.recover(found), failed=(_MISSING,) * missing)
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
            raise KeyInFlight
        ended = self._running.get(running.wish)
        try:
            async with asyncio.timeout_at(call.answer_by if ended else loop.time() + pause):
                await (ended or asyncio.Event()).wait()
        except TimeoutError:
            if ended:
                raise KeyInFlight from None
