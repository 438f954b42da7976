"""The ports: what services ask of vendors, stores and the ledger."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from app.contract.answer import MaskApplied
from app.contract.ledger import StoredPicture
from app.contract.models import Model, Operation
from app.contract.prices import Order, Usage
from app.contract.safety import Block
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import Picture

Request = TypeVar("Request", contravariant=True)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a provider made: at least one picture, and what became of the samples that are missing.

    `filtered` has a Block for each sample that was filtered, `failed` a sentence for the caller for each that
    was lost in another way. `mask_applied` is set if a model without mask support made an edit.
    """

    pictures: tuple[Picture, ...]
    filtered: tuple[Block, ...] = ()
    failed: tuple[str, ...] = ()
    mask_applied: MaskApplied | None = None


@dataclass(slots=True)
class Progress:
    """How far one request has come.

    `kept`: its pictures are stored. `sent`: a call for a picture was sent, and can be charged. `left`: the
    caller has left, so nothing more is sent.
    """

    kept: bool = False
    sent: bool = False
    left: bool = False


@dataclass(slots=True)
class Bill:
    """What a vendor has delivered, noted while its answer is read: its price depends on it.

    `pictures` counts those that the vendor charges for, broken ones too. `text`: the prompt of a rewrite.
    """

    pictures: int = 0
    usage: Usage | None = None
    text: str | None = None


class PaidCall(Protocol):
    """One paid call in the ledger. Its price is reserved until one of four methods ends it, at once."""

    @property
    def id(self) -> str:
        """Part of the names of its pictures."""

    async def reserve(self) -> None:
        """Reserve its price, and those of the calls made by the same `pay_for`: all of them or none.

        Raises BudgetExhausted, InvalidRequest if the model has no price and a budget in money applies, and
        Busy if the ledger does not answer.
        """

    async def fence(self, place: "Place | None", /) -> None:
        """Record that it is sent, and where its pictures will be. If this raises, do not send it.

        Reserves it first if that is not done yet, in the same commit. Raises as `reserve` does.
        """

    def settle(self, bill: Bill, /) -> None:
        """The vendor has served it."""

    def void(self) -> None:
        """It was surely not served."""

    def unknown(self) -> None:
        """It was sent, and its outcome is unknown."""

    def abandon(self) -> None:
        """It was sent, and was cancelled."""

    def again(self) -> "PaidCall":
        """Returns a new call for the same order. Call it after `void`."""


class Wish(Protocol):
    """One request in the ledger: it pays for all calls of the request."""

    def check(self, model: Model, operation: Operation, /) -> None:
        """Raises Forbidden if the caller's API key may not use it."""

    def pay_for(self, model: Model, orders: Sequence[Order], /) -> tuple[PaidCall, ...]:
        """Returns calls that will be reserved together. Raises as `check` does."""

    def stored(self, picture: StoredPicture, /) -> None:
        """Note where a picture of one of its calls is stored, or will be."""

    @property
    def rewritten(self) -> str | None:
        """The prompt that an earlier try of the same request has paid for."""

    @property
    def rewrite_lost(self) -> bool:
        """Whether an earlier try has sent a rewrite whose outcome is unknown. It is not sent again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pictures of one paid call are: their names are `stem`, a number and an extension."""

    bucket: str
    stem: str
    call_id: str


class Landing(Protocol):
    """Where the pictures of one request are kept: each is safe on disk as soon as it is whole.

    `blobs` is the scope into which vendors' answers are written.
    """

    blobs: Blobs

    def place(self, model: Model, call_id: str, /) -> Place:
        """Returns where the pictures of a paid call will be."""

    async def land(self, picture: Picture, place: Place, /, *, later: bool = False) -> None:
        """Give a whole picture the name it will have in the bucket, and keep its file until it is there.

        `later`: only name it; `replace` keeps what is made of it. Never raises: if the disk is full, the
        picture is uploaded from where it is.
        """

    async def replace(self, raw: Picture, picture: Picture, /) -> None:
        """Land `picture`, which was made of `raw`, under the name of `raw`. `raw` is deleted."""

    def discard(self, picture: Picture, /) -> None:
        """Delete a picture that has landed and is broken."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller, as providers and storage need to know it.

    Times are the event loop's. At `answer_by` providers return what is ready, so that it can be stored; at
    `store_by` the caller is told where the pictures are or will be; `ends` is the deadline of calls whose
    pictures are kept, which go on when the caller's time is up. `blobs` holds the request's blobs until it
    ends. `wish` pays for its calls. All copies of a Call share its `progress`, but for a rewrite's.
    `trouble` is the failure that the request rehearses ("429=7"), sent with each call; never set in live.
    `landing` is set if the pictures are to be kept. `unfinished`: the caller must not get the pictures as
    they arrive. `place` and `bill` belong to one paid call: where its pictures land, and what was delivered.
    """

    caller: str
    request_id: str
    answer_by: float
    store_by: float
    ends: float
    blobs: Blobs
    wish: Wish
    progress: Progress = field(default_factory=Progress)
    trouble: str | None = None
    landing: Landing | None = None
    unfinished: bool = False
    place: Place | None = None
    bill: Bill = field(default_factory=Bill)

    @property
    def deadline(self) -> float:
        """When the vendor's answer must be whole, in the event loop's time."""
        return self.ends if self.progress.kept else self.answer_by

    @property
    def answers(self) -> Blobs:
        """The scope into which vendors' answers are written."""
        return self.landing.blobs if self.landing else self.blobs


class Provider(Protocol[Request]):
    """A vendor's image models."""

    async def run(self, request: Request, model: Model, call: Call, /) -> Generation:
        """Make the pictures that the request asks for, in paid calls of `call.wish`.

        Raises NoRoom and `contract.errors`: SafetyBlocked, InvalidRequest, RateLimited, ModelGone, Upstream….
        """

    async def ready(self) -> str | None:
        """As `Part.ready`. Nothing is paid."""


class Admission(Protocol):
    """Says when a call may be sent to a vendor."""

    def latest(self, call: Call, /) -> float:
        """Returns the latest time (of the event loop) at which the call can be sent."""

    def has_room(self, model: Model, call: Call, /) -> bool:
        """Whether the call would get a place at once."""

    def place(self, model: Model, call: Call, /) -> AbstractAsyncContextManager[None]:
        """Hold a place while the call is under way.

        Raises Busy if it is too late to send the call, Busy or RateLimited if too many others wait.
        """


class Storage(Protocol):
    """Where pictures go."""

    def url(self, name: str, /, *, bucket: str) -> str:
        """Returns the public URL of an object. The object need not exist yet."""

    async def save(
        self,
        name: str,
        picture: Picture,
        /,
        *,
        bucket: str | None = None,
        again: bool = False,
        trouble: str | None = None,
    ) -> str:
        """Store the picture under the object name and return its public URL.

        `bucket` defaults to the gateway's own. `again`: success if an earlier try has stored it. `trouble`:
        as in Call. Raises UpstreamUnavailable if it can be tried again later, UpstreamFailed if not.
        """


class Spooled(Protocol):
    """Pictures that wait on disk until the bucket has them."""

    async def find(self, bucket: str, stem: str, /) -> list[str]:
        """Returns the names of whole pictures that wait in any process's folder and begin with the stem.

        The stem's last "/" ends their folder. Ask here before the bucket: a picture that was uploaded
        meanwhile is missing here, and is there. Raises OSError.
        """


class Spool(Spooled, Protocol):
    """Keeps pictures on disk until the bucket has them. If a process dies, others upload its pictures."""

    def blobs(self, spare: Blobs, /) -> Blobs:
        """Returns a scope of blobs in the folder. If the folder is full, blobs go to `spare`."""

    async def land(self, blob: Blob, bucket: str, name: str, /) -> Path:
        """Keep a whole picture under its object's name. Returns the path of its file.

        A blob of the folder becomes that file; any other blob is copied. Raises NoRoom.
        """

    def remove(self, path: Path, /) -> None:
        """Delete the file of a picture that the bucket has, or that is not wanted."""

    def release(self, path: Path, /) -> None:
        """Leave the upload of a picture to the spool, which tries until the bucket has it."""

    async def ready(self) -> str | None:
        """As `Part.ready`. Raises OSError with the folder's name if no picture can be kept now."""


class Buckets(Protocol):
    """Reads what has been stored."""

    async def names(self, bucket: str, stem: str, /) -> list[str]:
        """Returns the names of the objects that begin with the stem. Raises as `save` does."""

    async def fetch(self, name: str, blobs: Blobs, /, *, bucket: str) -> Picture:
        """Returns the picture of an object. Raises as `save` does."""


class PrivateStore(Protocol):
    """Pictures for repeated requests. Names are `{call id}-{number}.{extension}`."""

    async def keep(self, name: str, picture: Picture, /) -> None:
        """Keep a picture whole, or not at all. Raises NoRoom, OSError and `contract.errors`."""

    async def find(self, call_id: str, blobs: Blobs, /) -> dict[str, Picture]:
        """Returns the pictures of a call by name, in the order of their numbers. Raises as `keep` does."""


class Part(Protocol):
    """Something the gateway works with."""

    async def ready(self) -> str | None:
        """Returns None if it works, or a few words for the log if it works with a problem.

        Raises any exception if it does not work.
        """
