"""Limits the calls under way to vendors: of the process, of each model and of each user. Others wait."""

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
    """Places of the process, of a model or of a user. As many calls may wait as may be under way.

    `lines` of a user: all of them, by model id. `lines` of a model: those that wait for their turn, by user
    id, the next one first.
    """

    limit: int
    under_way: int = 0
    waiting: int = 0
    lines: "OrderedDict[str, _Line]" = field(default_factory=OrderedDict)

    @property
    def has_room(self) -> bool:
        return self.under_way < self.limit

    @property
    def idle(self) -> bool:
        return not self.under_way and not self.waiting


@dataclass(eq=False, slots=True)
class _Line:
    """The calls of one user that wait for one model, the longest waiting first.

    `number` orders the lines of all models: the smallest has waited longest for its turn.
    """

    user_id: str
    user: _Share
    model: _Share
    turns: "OrderedDict[asyncio.Future[None], None]" = field(default_factory=OrderedDict)
    number: int = 0


class Admission:
    """Gives each call a place while it is under way. An `app.ports.Admission`.

    The process has `max_calls` places. One model may hold 60 % of them, one user `max_calls_per_user`. A call
    gets a place at once if all three shares have room, even if other calls wait. Otherwise it waits, and
    holds nothing. When a place becomes free, the waiting users take turns, except those whose share is full.
    The calls of one user for one model are served in their order.

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
        """Let no further call in. Those that wait are refused."""
        self._closed = True
        lines = [line for user in self._users.values() for line in user.lines.values()]
        for turn in [turn for line in lines for turn in line.turns]:
            if not turn.done():
                turn.set_exception(Busy())

    def latest(self, call: Call) -> float:
        """Returns the latest time at which the call may be sent, in the event loop's time."""
        return call.answer_by - self._min_seconds

    def has_room(self, model: Model, call: Call) -> bool:
        """Returns whether the call would get a place at once."""
        shares = self._process, self._models.get(model.id), self._users.get(call.caller)
        return all(share is None or share.has_room for share in shares)

    @asynccontextmanager
    async def place(self, model: Model, call: Call) -> AsyncIterator[None]:
        """Hold a place. Raises Busy if it is too late, if too many calls wait for the process or the model,
        or after `close`; and RateLimited if too many calls of this user wait."""
        if self._closed:
            raise Busy()
        latest = self.latest(call)
        if asyncio.get_running_loop().time() > latest:
            raise _refused("time", model, Busy())
        line = self._line(model, call)
        try:
            if self._process.has_room and line.model.has_room and line.user.has_room:
                self._take(line)
            else:
                self._check_queues(line, model)
                await self._wait(line, model, latest)
            try:
                yield
            finally:
                self._leave(line)
        finally:
            if line.user.idle and self._users.get(line.user_id) is line.user:
                del self._users[line.user_id]

    def _line(self, model: Model, call: Call) -> _Line:
        user = self._users.get(call.caller)
        if user is None:
            user = self._users[call.caller] = _Share(self._max_of_a_user)
        line = user.lines.get(model.id)
        if line is None:
            of_model = self._models.setdefault(model.id, _Share(self._max_of_a_model))
            line = user.lines[model.id] = _Line(call.caller, user, of_model)
        return line

    def _check_queues(self, line: _Line, model: Model) -> None:
        if line.user.waiting >= line.user.limit:
            raise _refused("user", model, RateLimited(_RETRY_AFTER_SECONDS))
        for name, share in (("model", line.model), ("process", self._process)):
            if share.waiting >= share.limit:
                raise _refused(name, model, Busy())

    async def _wait(self, line: _Line, model: Model, latest: float) -> None:
        """Return when the call has its place. A call that is cancelled or too late leaves nothing behind."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.turns[turn] = None
        self._count_waiting(line, 1)
        if len(line.turns) == 1:
            self._queue(line)
        try:
            async with asyncio.timeout_at(latest):
                await turn
        except BaseException as exc:
            if turn in line.turns:
                self._remove(line, turn)
            elif not turn.cancelled():  # it was given a place at the same moment
                self._leave(line)
            if isinstance(exc, TimeoutError):
                raise _refused("time", model, Busy()) from None
            raise

    def _take(self, line: _Line) -> None:
        for share in (self._process, line.model, line.user):
            share.under_way += 1

    def _leave(self, line: _Line) -> None:
        """Give the place back, and let waiting calls in."""
        had_room = line.user.has_room
        for share in (self._process, line.model, line.user):
            share.under_way -= 1
        if self._process.waiting:
            if not had_room:
                self._queue_again(line.user)
            self._admit()

    def _queue_again(self, user: _Share) -> None:
        """Queue the user's lines that have left the queue."""
        for line in user.lines.values():
            if line.turns and line.user_id not in line.model.lines:
                self._queue(line)

    def _admit(self) -> None:
        while self._process.has_room and (line := self._next()):
            turn = next(iter(line.turns))
            self._remove(line, turn)
            if not turn.cancelled():
                self._take(line)
                turn.set_result(None)
                if line.turns:  # the other users have their turn first
                    line.model.lines.pop(line.user_id)
                    self._queue(line)

    def _next(self) -> _Line | None:
        """Returns the line that has waited longest, of those that have room."""
        firsts = [
            line
            for model in self._models.values()
            if model.lines and model.has_room and (line := _first_with_room(model))
        ]
        return min(firsts, key=lambda line: line.number, default=None)

    def _queue(self, line: _Line) -> None:
        line.number = next(self._numbers)
        line.model.lines[line.user_id] = line

    def _remove(self, line: _Line, turn: "asyncio.Future[None]") -> None:
        del line.turns[turn]
        self._count_waiting(line, -1)
        if not line.turns:
            line.model.lines.pop(line.user_id, None)

    def _count_waiting(self, line: _Line, change: int) -> None:
        for share in (self._process, line.model, line.user):
            share.waiting += change


def _first_with_room(model: _Share) -> _Line | None:
    """Returns the first line whose user has room. Other lines leave the queue until their user has."""
    while model.lines:
        line = next(iter(model.lines.values()))
        if line.user.has_room:
            return line
        del model.lines[line.user_id]
    return None


def _refused(share: str, model: Model, error: Busy | RateLimited) -> Busy | RateLimited:
    log.warning("a call is not sent", model=model.id, no_room_in=share)
    return error
