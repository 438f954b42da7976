"""The ledger's commands for processes that have died and calls that were interrupted."""

from dataclasses import dataclass

from app.contract.book import Book, Needs
from app.contract.bookkeeping import Close, Command
from app.contract.ledger import Census, Key, PaidCall, Process, Recovered


def recovered(call: PaidCall, found: Recovered) -> Close:
    """Returns the command that ends an interrupted call.

    If pictures are missing, its cost is unknown: the vendor may have blocked them, or they are lost.
    """
    if found.made < max(call.samples, 1):
        return Close(call.id, "unknown", pictures=found.pictures)
    return Close(call.id, "settled", call.micros, found.made, found.pictures)


@dataclass(frozen=True, slots=True)
class Beat(Command[Census]):
    """Record that this process is alive. The outcome is all processes and the time."""

    process: str
    host: str
    folder: str

    def needs(self, needs: Needs) -> None:
        needs.processes = True

    def apply(self, book: Book) -> Census:
        process = Process(self.process, self.host, self.folder, book.now)
        book.processes[self.process] = book.beating[self.process] = process
        return Census(book.now, tuple(book.processes.values()))


@dataclass(frozen=True, slots=True)
class Sweep(Command[tuple[PaidCall, ...]]):
    """Void the reserved calls of dead processes, and all reserved calls past their deadlines.

    The outcome is the sent calls with an outcome to find: those of dead processes, and those past their
    deadlines. Keys of expired wishes become free.
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
                book.with_key(Key(wish.caller, wish.route, wish.key))  # frees the key of an expired wish
        return tuple(lost)


@dataclass(frozen=True, slots=True)
class Bury(Command[bool]):
    """End the wishes of a dead process, as Finish does without an answer, and delete the process.

    The outcome is False, and nothing changes, while one of their calls is reserved or sent.
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
