"""Serves paid requests: their calls are in the ledger before they are sent, and none is paid twice."""

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
from app.services.made import FoundPicture, Made, stored_rows
from app.services.replays import PrivateLanding, answer_from_text, answer_to_text, fingerprint
from app.services.wish import CHARGED, REWRITE, Wish
from app.storage.ledger import Ledger
from app.threads import off_loop

_PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0)
"""Pauses between looks at a request that another process serves."""
_MISSING = "it is unknown whether this picture was made"
"""The sentence for each picture of an interrupted request that is not found."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reply:
    """The response to a caller. `made` is None if it repeats the response to an earlier request."""

    status: int
    body: JsonWriter
    made: Made | None = None


@dataclass(frozen=True, slots=True)
class PaidRequest:
    """A validated request, and the functions that serve it.

    `make` makes the pictures. `recover` builds the same result from found pictures of an earlier, interrupted
    request. `present` returns the body of the response, `refuse` the status and the body of an error.
    """

    body: BaseModel
    call: Call
    make: Callable[[], Awaitable[Made]]
    recover: Callable[[Sequence[FoundPicture]], Awaitable[Made]]
    present: Callable[[Made], object]
    refuse: Callable[[GatewayError], tuple[int, object]]


class Paying:
    """Serves requests so that each is paid once, even if callers repeat it or the process dies.

    A request with an Idempotency-Key gets the same response as an earlier request with that key. If the
    earlier one is under way, the new one waits for it. If the earlier one was interrupted, the new one
    continues it: it returns the pictures that were paid for, or makes them if no call was sent.
    """

    def __init__(self, ledger: Ledger, prices: Prices, finder: Finder, private: PrivateStore) -> None:
        self.ledger = ledger
        self._prices = prices
        self._finder = finder
        self._private = private
        self._running: dict[str, asyncio.Event] = {}

    def wish(self, caller: Caller, route: str, key: str | None) -> Wish:
        """Returns the ledger's side of a new request. `key` is its Idempotency-Key."""
        return Wish(self.ledger, self._prices, caller, route, key)

    def private_landing(self, wish: Wish, blobs: Blobs) -> PrivateLanding:
        """Returns a landing for pictures that are returned in base64. It keeps them for replays."""
        return PrivateLanding(self._private, wish.private_names, blobs)

    async def fulfil(self, wish: Wish, request: PaidRequest) -> Reply:
        """Serve the request, or repeat the response to an earlier one with the same key.

        Raises what `request.make` raises, KeyReused, KeyInFlight, and Busy if the ledger does not answer.
        """
        if wish.key is None:
            try:
                made = await request.make()
                return Reply(200, JsonWriter(request.present(made)), made)
            finally:
                wish.finish()
        same = await off_loop(fingerprint, request.body)
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
                    return await self._serve(wish, outcome, request)
                case Replay():
                    wish.id, wish.paid_before = outcome.wish, True
                    body = await answer_from_text(outcome.body, self._private, request.call.blobs)
                    return Reply(outcome.status, body)
                case Running():
                    await self._wait(outcome, looks, request.call)
                case OtherRequest():
                    raise KeyReused
                case OverBudget() | Unpriced():
                    raise AssertionError("a wish without calls costs nothing")
        raise AssertionError("count() does not end")

    async def _serve(self, wish: Wish, outcome: Begun | TakenOver, request: PaidRequest) -> Reply:
        wish.id = outcome.wish
        ended = self._running[wish.id] = asyncio.Event()
        status, text = None, None
        try:
            resumed = await self._resume(wish, request) if isinstance(outcome, TakenOver) else None
            made = resumed or await request.make()
            body = JsonWriter(request.present(made))
            to_come = any(one.pending for one in made.stored) or (resumed and resumed.failed)
            if not to_come:  # only a final response is repeated
                status, text = 200, answer_to_text(body, wish.private_names)
            return Reply(200, body, made)
        except SafetyBlocked as exc:
            status, refusal = request.refuse(exc)
            text = answer_to_text(JsonWriter(refusal), {})
            raise
        finally:
            wish.finish(status if text else None, text)
            ended.set()
            del self._running[wish.id]

    async def _resume(self, wish: Wish, request: PaidRequest) -> Made | None:
        """Returns the result of an interrupted request, or None if no call for a picture was sent.

        Raises SafetyBlocked if its calls made no pictures, and UpstreamTimeout if none of them is found.
        """
        record = await self.ledger.look(wish.id or "")
        if not record:
            raise Busy
        drawn = [call for call in record.calls if call.operation != REWRITE and call.state in CHARGED]
        wish.resume(record)
        if not drawn:
            return None
        found: list[FoundPicture] = []
        missing = 0
        for call in drawn:
            pictures = await self._finder.find(call, request.call.blobs)
            self.ledger.submit(recovered(call, Recovered(len(pictures), stored_rows(pictures))))
            missing += max((call.made if call.state == "settled" else call.samples) - len(pictures), 0)
            found += pictures
        for row in stored_rows(found):
            wish.stored(row)
        if found:
            wish.private_names.update((one.picture.blob, one.name) for one in found if one.picture)
            return replace(await request.recover(found), failed=(_MISSING,) * missing)
        if all(call.state == "settled" and not call.made for call in drawn):
            raise SafetyBlocked(block())
        error = UpstreamTimeout()
        error.receipt = wish.id
        raise error

    async def _wait(self, running: Running, looks: int, call: Call) -> None:
        """Return when the running request can have ended. Raises KeyInFlight when the caller's time is up."""
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
