"""A wish without a ledger, which records how each call ended, and stores without pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from app.contract.ledger import CallState, StoredPicture
from app.contract.models import Model, Operation
from app.contract.prices import Order
from app.pictures.blob import Blobs
from app.pictures.picture import Picture
from app.ports import Bill, Place
from app.services.finding import Finder


@dataclass(slots=True, eq=False)
class Noted:
    """Implements `app.ports.PaidCall`. `place` and `bill` are the arguments of `fence` and `settle`."""

    wish: "NotedWish"
    id: str
    order: Order
    state: CallState = "reserved"
    place: Place | None = None
    bill: Bill | None = None

    async def reserve(self) -> None: ...

    async def fence(self, place: Place | None, /) -> None:
        if self.wish.fails:
            raise self.wish.fails
        self.state, self.place = "sent", place

    def settle(self, bill: Bill, /) -> None:
        self.state, self.bill = "settled", bill

    def void(self) -> None:
        self.state = "void"

    def unknown(self) -> None:
        self.state = "unknown"

    def abandon(self) -> None:
        self.state = "abandoned"

    def again(self) -> "Noted":
        return self.wish.add(self.order)


@dataclass(slots=True)
class NotedWish:
    """Implements `app.ports.Wish`. Every `fence` raises `fails`, if it is set."""

    fails: Exception | None = None
    calls: list[Noted] = field(default_factory=list)
    pictures: list[StoredPicture] = field(default_factory=list)
    rewritten: str | None = None
    rewrite_lost: bool = False
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def check(self, model: Model, operation: Operation, /) -> None: ...

    def pay_for(self, model: Model, orders: Sequence[Order], /) -> tuple[Noted, ...]:
        return tuple(self.add(order) for order in orders)

    def add(self, order: Order) -> Noted:
        self.calls.append(Noted(self, f"{next(self._numbers):032x}", order))
        return self.calls[-1]

    def stored(self, picture: StoredPicture, /) -> None:
        self.pictures.append(picture)

    @property
    def states(self) -> list[CallState]:
        return [call.state for call in self.calls]


class Nothing:
    """Buckets without pictures."""

    async def names(self, bucket: str, stem: str, /) -> list[str]:
        return []

    async def fetch(self, name: str, blobs: Blobs, /, *, bucket: str) -> Picture:
        raise AssertionError("nothing was found")


class NothingWaits:
    """A spool without pictures."""

    async def find(self, bucket: str, stem: str, /) -> list[str]:
        return []


class NothingKept:
    """A private store that keeps nothing."""

    async def keep(self, name: str, picture: Picture, /) -> None: ...

    async def find(self, call_id: str, blobs: Blobs, /) -> dict[str, Picture]:
        return {}


def no_finder(blobs: Blobs) -> Finder:
    return Finder(Nothing(), NothingWaits(), NothingKept(), lambda: blobs)
