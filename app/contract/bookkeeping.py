"""The ledger's rules: what each command does to the rows it needs. Pure: the same for all databases.

The writer (`app/storage/ledger.py`) loads what the commands of a batch need into a Book, applies one command
after the other, and saves what has changed, all in one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from app.contract.book import Book, Needs
from app.contract.ledger import (
    Begun,
    CallState,
    Census,
    Key,
    NewCall,
    NotRunning,
    OtherRequest,
    OverBudget,
    PaidCall,
    Process,
    Record,
    Recovered,
    Replay,
    Reserved,
    Running,
    StoredPicture,
    TakenOver,
    Unpriced,
    Wish,
)

R_co = TypeVar("R_co", covariant=True)

Ending = Literal["settled", "unknown", "abandoned", "void"]

_BEFORE: dict[Ending, tuple[CallState, ...]] = {
    "settled": ("sent", "unknown", "abandoned"),
    "unknown": ("sent",),
    "abandoned": ("sent",),
    "void": ("reserved", "sent", "unknown", "abandoned"),
}
"""The states in which a call may end like this."""


class Command(Generic[R_co]):
    """Something the ledger is told to do.

    `lasting`: it is carried out even if the one who gave it has left: it tells what has happened to money.
    """

    __slots__ = ()
    lasting: ClassVar[bool] = False

    def needs(self, needs: Needs) -> None:
        """Add the rows it works on."""

    def apply(self, book: Book) -> R_co:
        """Change the book, and return the outcome. Nothing is changed if it raises."""
        raise NotImplementedError

    def undo(self, outcome: object) -> "Sequence[Command[object]]":
        """Returns what has to be done if the one who gave the command never learned of its outcome."""
        return ()


@dataclass(frozen=True, slots=True)
class Begin(Command[Begun | TakenOver | Replay | Running | OtherRequest | OverBudget | Unpriced]):
    """Record a wish and reserve its calls, or find what became of the same wish.

    `scopes`: whose budgets count, the caller's own first.
    """

    wish: str
    caller: str
    route: str
    key: str | None
    fingerprint: str
    calls: tuple[NewCall, ...]
    scopes: tuple[str, ...]
    process: str

    def needs(self, needs: Needs) -> None:
        needs.scopes.update(self.scopes)
        if self.key is not None:
            needs.keys.add(Key(self.caller, self.route, self.key))

    def apply(
        self, book: Book
    ) -> Begun | TakenOver | Replay | Running | OtherRequest | OverBudget | Unpriced:
        earlier = book.with_key(Key(self.caller, self.route, self.key)) if self.key is not None else None
        if earlier:
            return self._again(earlier, book)
        if refusal := book.refusal(self.calls, self.scopes):
            return refusal
        book.put_wish(
            Wish(
                id=self.wish,
                caller=self.caller,
                route=self.route,
                key=self.key,
                fingerprint=self.fingerprint,
                state="running",
                process=self.process,
                created_at=book.now,
            )
        )
        book.reserve(self.wish, self.calls, self.scopes, self.process)
        return Begun(self.wish)

    def _again(self, wish: Wish, book: Book) -> TakenOver | Replay | Running | OtherRequest:
        if wish.fingerprint != self.fingerprint:
            return OtherRequest(wish.id)
        if wish.state == "running":
            return Running(wish.id, wish.process)
        if wish.state == "interrupted" or wish.status is None:
            book.put_wish(wish._replace(state="running", process=self.process, expires_at=None))
            return TakenOver(wish.id)
        if not wish.replayed:
            book.put_wish(wish._replace(replayed=True))
        return Replay(wish.id, wish.status, wish.body or "")

    def undo(self, outcome: object) -> Sequence[Command[object]]:
        return (Finish(outcome.wish, self.process),) if isinstance(outcome, Begun | TakenOver) else ()


@dataclass(frozen=True, slots=True)
class Reserve(Command[Reserved | OverBudget | Unpriced | NotRunning]):
    """Reserve further calls of a running wish."""

    wish: str
    calls: tuple[NewCall, ...]
    scopes: tuple[str, ...]
    process: str

    def needs(self, needs: Needs) -> None:
        needs.wishes.add(self.wish)
        needs.scopes.update(self.scopes)

    def apply(self, book: Book) -> Reserved | OverBudget | Unpriced | NotRunning:
        wish = book.wishes.get(self.wish)
        if not wish or wish.state != "running" or wish.process != self.process:
            return NotRunning()
        if refusal := book.refusal(self.calls, self.scopes):
            return refusal
        book.reserve(self.wish, self.calls, self.scopes, self.process)
        return Reserved()

    def undo(self, outcome: object) -> Sequence[Command[object]]:
        return tuple(Close(call.id, "void") for call in self.calls) if isinstance(outcome, Reserved) else ()


@dataclass(frozen=True, slots=True)
class Fence(Command[bool]):
    """Mark a reserved call as sent. Only if the outcome is True may it be sent, and only once."""

    call: str
    bucket: str | None
    stem: str | None

    def needs(self, needs: Needs) -> None:
        needs.calls.add(self.call)

    def apply(self, book: Book) -> bool:
        call = book.calls.get(self.call)
        if not call or call.state != "reserved":
            return False
        deadline = book.now + book.terms.call_ms
        sent = call._replace(state="sent", sent_at=book.now, deadline_at=deadline)
        book.put_call(sent._replace(bucket=self.bucket, stem=self.stem))
        return True

    def undo(self, outcome: object) -> Sequence[Command[object]]:
        return (Close(self.call, "void"),) if outcome else ()


@dataclass(frozen=True, slots=True)
class Close(Command[bool]):
    """End a call. Returns False, and changes nothing, if it has ended already or cannot end like this.

    `charged` and `made` count for `settled` only: what is unknown or abandoned costs what was reserved.
    """

    lasting: ClassVar[bool] = True

    call: str
    state: Ending
    charged: int = 0
    made: int = 0
    pictures: tuple[StoredPicture, ...] = ()
    text: str | None = None

    def needs(self, needs: Needs) -> None:
        needs.calls.add(self.call)

    def apply(self, book: Book) -> bool:
        call = book.calls.get(self.call)
        if not call or call.state not in _BEFORE[self.state]:
            return False
        charged = {"settled": self.charged, "void": 0}.get(self.state, call.micros)
        made = self.made if self.state == "settled" else 0
        ended = call._replace(state=self.state, charged=charged, made=made, done_at=book.now)
        book.put_call(ended._replace(text=self.text))
        book.new_pictures += self.pictures
        return True


def recovered(call: PaidCall, found: Recovered) -> Close:
    """Returns the end of an interrupted call.

    If pictures are missing, nobody knows what it costs: the vendor may have blocked them, or they are lost.
    """
    if found.made < max(call.samples, 1):
        return Close(call.id, "unknown", pictures=found.pictures)
    return Close(call.id, "settled", call.micros, found.made, found.pictures)


@dataclass(frozen=True, slots=True)
class Finish(Command[bool]):
    """End a wish. Its reserved calls are void. Returns whether it holds its key still.

    A wish without calls leaves nothing behind. Its key is free if nothing is charged. Otherwise the answer is
    kept for replays; without an answer (`status` None) the wish is interrupted, and whoever repeats it takes
    it over. A finished wish may be finished again, with a better answer. Changes nothing if another process
    has taken the wish over. `pictures` are those of its calls.
    """

    lasting: ClassVar[bool] = True

    wish: str
    process: str
    status: int | None = None
    body: str | None = None
    pictures: tuple[StoredPicture, ...] = ()

    def needs(self, needs: Needs) -> None:
        needs.wishes.add(self.wish)
        needs.of_wishes.add(self.wish)

    def apply(self, book: Book) -> bool:
        wish = book.wishes.get(self.wish)
        if not wish or (wish.state == "running" and wish.process != self.process):
            return False
        book.new_pictures += self.pictures
        return book.finish(wish, self.status, self.body)


@dataclass(frozen=True, slots=True)
class Look(Command[Record | None]):
    """Read a wish, its calls and its pictures. None: there is no such wish."""

    wish: str

    def needs(self, needs: Needs) -> None:
        needs.wishes.add(self.wish)
        needs.of_wishes.add(self.wish)
        needs.pictures_of.add(self.wish)

    def apply(self, book: Book) -> Record | None:
        wish = book.wishes.get(self.wish)
        if not wish:
            return None
        calls = sorted(book.calls_of(self.wish), key=lambda call: (call.slot, call.attempt))
        theirs = {call.id for call in calls}
        found = [*book.pictures.values(), *book.new_pictures]
        return Record(wish, tuple(calls), tuple(picture for picture in found if picture.call in theirs))


# ── recovery ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Beat(Command[Census]):
    """Say that this process is alive. Returns all processes, and the time."""

    process: str
    host: str
    folder: str

    def needs(self, needs: Needs) -> None:
        needs.processes = True

    def apply(self, book: Book) -> Census:
        mine = Process(self.process, self.host, self.folder, book.now)
        book.processes[self.process] = book.beating[self.process] = mine
        return Census(book.now, tuple(book.processes.values()))


@dataclass(frozen=True, slots=True)
class Sweep(Command[tuple[PaidCall, ...]]):
    """Void what dead processes have reserved, and everybody's reservations that are past their deadline.

    Returns the calls that were sent and whose outcome somebody has to find out: those of dead processes, and
    those past their deadline. Wishes that have expired give up their keys.
    """

    dead: tuple[str, ...]

    def needs(self, needs: Needs) -> None:
        needs.open_of.update(self.dead)
        needs.overdue = True

    def apply(self, book: Book) -> tuple[PaidCall, ...]:
        lost = []
        for call in tuple(book.calls.values()):
            if call.process not in self.dead and call.deadline_at > book.now:
                continue
            if call.state == "reserved":
                book.put_call(call._replace(state="void", done_at=book.now))
            elif call.state == "sent":
                lost.append(call)
        for wish in tuple(book.wishes.values()):
            if wish.key is not None and wish.expires_at is not None:
                book.with_key(Key(wish.caller, wish.route, wish.key))
        return tuple(lost)


@dataclass(frozen=True, slots=True)
class Bury(Command[bool]):
    """End the wishes of a dead process as Finish does without an answer, and forget the process.

    Returns False, and changes nothing, as long as one of their calls is open.
    """

    dead: str

    def needs(self, needs: Needs) -> None:
        needs.running_of.add(self.dead)
        needs.open_of.add(self.dead)

    def apply(self, book: Book) -> bool:
        wishes = [w for w in book.wishes.values() if w.process == self.dead and w.state == "running"]
        calls = [call for wish in wishes for call in book.calls_of(wish.id)]
        calls += [call for call in book.calls.values() if call.process == self.dead]
        if any(call.state in ("reserved", "sent") for call in calls):
            return False
        for wish in wishes:
            book.finish(wish, None, None)
        book.buried.append(self.dead)
        return True
