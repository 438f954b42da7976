"""Limits the vendor calls under way: per process, per model and per user. Calls over a limit wait."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import structlog

from app.contract.errors import Busy, RateLimited
from app.contract.models import Model
from app.ports import Call

_MODEL_PERCENT = 60
"""The share of all places that one model may hold, so that others stay free when it is slow or hangs."""
_RETRY_AFTER_SECONDS = 5

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class _Share:
    """The places of the process, of a model or of a user.

    At most `limit` calls are under way, and as many wait. A user's `queues`: one per model id. A model's
    `rotation`: the queues that take turns, by user id, the next one first.
    """

    limit: int
    under_way: int = 0
    waiting: int = 0
    queues: "dict[str, _Queue]" = field(default_factory=dict)
    rotation: "OrderedDict[str, _Queue]" = field(default_factory=OrderedDict)

    @property
    def has_room(self) -> bool:
        return self.under_way < self.limit

    @property
    def idle(self) -> bool:
        return not self.under_way and not self.waiting


@dataclass(eq=False, slots=True)
class _Queue:
    """The calls of one user that wait for one model, in the order of their arrival.

    `number` orders the queues of all models: the one with the smallest number is served next.
    """

    user_id: str
    user: _Share
    model: _Share
    waiters: "OrderedDict[asyncio.Future[None], None]" = field(default_factory=OrderedDict)
    number: int = 0


class Admission:
    """Gives each vendor call a place while it is under way. Implements `app.ports.Admission`.

    The process has `max_calls` places. One model can hold 60 % of them, one user `max_calls_per_user`. A call
    gets a place at once if all three shares have room, even if other calls wait. Otherwise it waits, and
    holds nothing. When a place becomes free, the waiting users take turns, except those with a full share.
    The calls of one user for one model are served in the order of their arrival.

    A call is not sent when less than `min_seconds` of its time are left.
    """

    def __init__(self, max_calls: int, max_calls_per_user: int, *, min_seconds: float = 0) -> None:
        self._process = _Share(max_calls)
        self._max_of_a_model = max(1, max_calls * _MODEL_PERCENT // 100)
        self._max_of_a_user = max_calls_per_user
        self._min_seconds = min_seconds
        self._models: dict[str, _Share] = {}
        self._users: dict[str, _Share] = {}
        self._numbers = count()
        self._closed = False

    def close(self) -> None:
        """Refuse all waiting and all further calls with Busy."""
        self._closed = True
        queues = [queue for user in self._users.values() for queue in user.queues.values()]
        for waiter in [waiter for queue in queues for waiter in queue.waiters]:
            if not waiter.done():
                waiter.set_exception(Busy())

    def latest(self, call: Call) -> float:
        """Returns the latest time at which the call may be sent, in the event loop's time."""
        return call.answer_by - self._min_seconds

    def has_room(self, model: Model, call: Call) -> bool:
        """Returns whether the call would get a place at once."""
        shares = self._process, self._models.get(model.id), self._users.get(call.caller)
        return all(share is None or share.has_room for share in shares)

    @asynccontextmanager
    async def place(self, model: Model, call: Call) -> AsyncIterator[None]:
        """Hold a place during the `with` block, after waiting for one if necessary.

        Raises RateLimited if too many calls of this user wait. Raises Busy if it is too late to send the
        call, if too many calls wait for the process or the model, or after `close`.
        """
        if self._closed:
            raise Busy()
        latest = self.latest(call)
        if asyncio.get_running_loop().time() > latest:
            raise _refused("time", model, Busy())
        queue = self._queue_of(model, call)
        try:
            if self._process.has_room and queue.model.has_room and queue.user.has_room:
                self._take(queue)
            else:
                self._check_queues(queue, model)
                await self._wait(queue, model, latest)
            try:
                yield
            finally:
                self._release(queue)
        finally:
            if queue.user.idle and self._users.get(queue.user_id) is queue.user:
                del self._users[queue.user_id]

    def _queue_of(self, model: Model, call: Call) -> _Queue:
        user = self._users.get(call.caller)
        if user is None:
            user = self._users[call.caller] = _Share(self._max_of_a_user)
        queue = user.queues.get(model.id)
        if queue is None:
            of_model = self._models.setdefault(model.id, _Share(self._max_of_a_model))
            queue = user.queues[model.id] = _Queue(call.caller, user, of_model)
        return queue

    def _check_queues(self, queue: _Queue, model: Model) -> None:
        if queue.user.waiting >= queue.user.limit:
            raise _refused("user", model, RateLimited(_RETRY_AFTER_SECONDS))
        for name, share in (("model", queue.model), ("process", self._process)):
            if share.waiting >= share.limit:
                raise _refused(name, model, Busy())

    async def _wait(self, queue: _Queue, model: Model, latest: float) -> None:
        """Return when the call has its place. If it is cancelled or too late, it leaves the queue."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.waiters[waiter] = None
        self._count_waiting(queue, 1)
        if len(queue.waiters) == 1:
            self._enqueue(queue)
        try:
            async with asyncio.timeout_at(latest):
                await waiter
        except BaseException as exc:
            if waiter in queue.waiters:
                self._remove_waiter(queue, waiter)
            elif not waiter.cancelled():  # it got a place at the same moment
                self._release(queue)
            if isinstance(exc, TimeoutError):
                raise _refused("time", model, Busy()) from None
            raise

    def _take(self, queue: _Queue) -> None:
        for share in (self._process, queue.model, queue.user):
            share.under_way += 1

    def _release(self, queue: _Queue) -> None:
        """Give the place back, and let waiting calls in."""
        had_room = queue.user.has_room
        for share in (self._process, queue.model, queue.user):
            share.under_way -= 1
        if self._process.waiting:
            if not had_room:
                self._enqueue_again(queue.user)
            self._admit()

    def _enqueue_again(self, user: _Share) -> None:
        """Put the queues of a user who has room again back into the rotation of their models."""
        for queue in user.queues.values():
            if queue.waiters and queue.user_id not in queue.model.rotation:
                self._enqueue(queue)

    def _admit(self) -> None:
        while self._process.has_room and (queue := self._next()):
            waiter = next(iter(queue.waiters))
            self._remove_waiter(queue, waiter)
            if not waiter.cancelled():
                self._take(queue)
                waiter.set_result(None)
                if queue.waiters:  # the other users have their turn first
                    queue.model.rotation.pop(queue.user_id)
                    self._enqueue(queue)

    def _next(self) -> _Queue | None:
        """Returns the queue to serve next: the smallest `number` whose model and user have room."""
        firsts = [
            queue
            for model in self._models.values()
            if model.rotation and model.has_room and (queue := _first_with_room(model))
        ]
        return min(firsts, key=lambda queue: queue.number, default=None)

    def _enqueue(self, queue: _Queue) -> None:
        queue.number = next(self._numbers)
        queue.model.rotation[queue.user_id] = queue

    def _remove_waiter(self, queue: _Queue, waiter: "asyncio.Future[None]") -> None:
        del queue.waiters[waiter]
        self._count_waiting(queue, -1)
        if not queue.waiters:
            queue.model.rotation.pop(queue.user_id, None)

    def _count_waiting(self, queue: _Queue, change: int) -> None:
        for share in (self._process, queue.model, queue.user):
            share.waiting += change


def _first_with_room(model: _Share) -> _Queue | None:
    """Returns the first queue whose user has room. Queues of full users leave the rotation."""
    while model.rotation:
        queue = next(iter(model.rotation.values()))
        if queue.user.has_room:
            return queue
        del model.rotation[queue.user_id]
    return None


def _refused(share: str, model: Model, error: Busy | RateLimited) -> Busy | RateLimited:
    log.warning("a call is not sent", model=model.id, no_room_in=share)
    return error
