"""The ledger's commands: what each of them does to the rows that it needs. The same for all databases.

The writer (`app/storage/ledger.py`) loads the rows that a batch of commands needs into a Book, applies the
commands one after the other, and saves the changed rows, all in one transaction. `recovery.py` has further
commands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from app.contract.book import Book, Needs
from app.contract.ledger import (
    Begun,
    CallState,
    Key,
    NewCall,
    NotRunning,
    OtherRequest,
    OverBudget,
    Record,
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
"""The states from which a call can end in each way."""


class Command(Generic[R_co]):
    """A command to the ledger, and (R) the type of its outcome.

    `lasting`: it is carried out even if its sender has left, because it records what happened to money.
    """

    __slots__ = ()
    lasting: ClassVar[bool] = False

    def needs(self, needs: Needs) -> None:
        """Add the rows that the command works on."""

    def apply(self, book: Book) -> R_co:
        """Change the book, and return the outcome. If it raises, the book is unchanged."""
        raise NotImplementedError

    def undo(self, outcome: object) -> "Sequence[Command[object]]":
        """Returns the commands that undo this one, for a sender that left before it got the outcome."""
        return ()


@dataclass(frozen=True, slots=True)
class Begin(Command[Begun | TakenOver | Replay | Running | OtherRequest | OverBudget | Unpriced]):
    """Record a wish and reserve its calls, or find the earlier wish with the same key.

    `scopes`: their budgets count, the caller's own first.
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
    """Mark a reserved call as sent. If the outcome is True, send the call, once; otherwise do not send it."""

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
    """End a call. The outcome is False, and nothing changes, if its state does not allow this end.

    `charged` (micro-USD) and `made` count for `settled` only. An unknown or abandoned call is charged what
    was reserved.
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


@dataclass(frozen=True, slots=True)
class Finish(Command[bool]):
    """End a wish and void its reserved calls. The outcome is whether the wish keeps its key.

    A wish without calls is deleted. If nothing is charged, its key becomes free. Otherwise the answer is kept
    for replays; without an answer (`status` None) the wish is interrupted, and a repeated request takes it
    over. A finished wish can be finished again, with a better answer. Nothing changes if another process has
    taken the wish over. `pictures` are those of its calls.
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
    """Read a wish, its calls and its pictures. The outcome is None for an unknown wish."""

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
        ids = {call.id for call in calls}
        pictures = [*book.pictures.values(), *book.new_pictures]
        return Record(wish, tuple(calls), tuple(picture for picture in pictures if picture.call in ids))
