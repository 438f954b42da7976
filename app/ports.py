"""The ports: interfaces through which services and providers use vendors, stores and the ledger."""

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
    """What a provider returns: at least one picture, and why samples are missing.

    `filtered` has a Block for each filtered sample, `failed` a sentence for the caller for each sample that
    is missing for another reason. `mask_applied` is set if a model without mask support made an edit.
    """

    pictures: tuple[Picture, ...]
    filtered: tuple[Block, ...] = ()
    failed: tuple[str, ...] = ()
    mask_applied: MaskApplied | None = None


@dataclass(slots=True)
class Progress:
    """How far one request has come.

    `keeps_pictures`: its pictures are stored, so it can go on without its caller. `sent`: a call for a
    picture was sent, and can be charged. `left`: the caller has left, so nothing more is sent.
    """

    keeps_pictures: bool = False
    sent: bool = False
    left: bool = False


@dataclass(slots=True)
class Bill:
    """What a vendor has delivered for one call: the price depends on it. Filled while its answer is read.

    `pictures` counts the pictures that the vendor charges for, broken ones too. `text` is a rewritten prompt.
    """

    pictures: int = 0
    usage: Usage | None = None
    text: str | None = None


class PaidCall(Protocol):
    """One paid call in the ledger. Its price is reserved until settle, void, unknown or abandon ends it."""

    @property
    def id(self) -> str:
        """The call's id, which is part of the names of its pictures."""

    async def reserve(self) -> None:
        """Reserve the prices of all calls from the same `pay_for`: all of them or none.

        Raises BudgetExhausted, InvalidRequest if the model has no price and a budget in money applies, and
        Busy if the ledger does not answer.
        """

    async def fence(self, place: "Place | None", /) -> None:
        """Record that the call is being sent, and where its pictures will be. If this raises, do not send it.

        Reserves the price in the same commit, unless that is done. Raises as `reserve` does.
        """

    def settle(self, bill: Bill, /) -> None:
        """Record that the vendor has served the call, and charge for what the bill says."""

    def void(self) -> None:
        """Record that the vendor did certainly not serve the call. It costs nothing."""

    def unknown(self) -> None:
        """Record that the call was sent and its outcome is unknown. The reserved price is charged."""

    def abandon(self) -> None:
        """Record that the call was cancelled after it was sent. The reserved price is charged."""

    def again(self) -> "PaidCall":
        """Returns a new call for the same order. Call it after `void`."""


class Wish(Protocol):
    """One request in the ledger. It pays for all calls of the request."""

    def check(self, model: Model, operation: Operation, /) -> None:
        """Raises Forbidden if the caller's API key does not allow the model or the operation."""

    def pay_for(self, model: Model, orders: Sequence[Order], /) -> tuple[PaidCall, ...]:
        """Returns a paid call for each order. They are reserved together. Raises as `check` does."""

    def stored(self, picture: StoredPicture, /) -> None:
        """Record where a picture is stored, or will be."""

    @property
    def rewritten(self) -> str | None:
        """The rewritten prompt for which an earlier try of the same request has paid."""

    @property
    def rewrite_lost(self) -> bool:
        """Whether an earlier try has sent a rewrite with an unknown outcome. It is not sent again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pictures of one paid call are stored. A name is `stem`, a number and an extension."""

    bucket: str
    stem: str
    call_id: str


class Landing(Protocol):
    """Stores the pictures of one request as they arrive: each is safe on disk as soon as it is whole.

    `blobs` is the scope into which vendors' answers are written.
    """

    blobs: Blobs

    def place(self, model: Model, call_id: str, /) -> Place:
        """Returns where the pictures of a paid call will be stored."""

    async def land(self, picture: Picture, place: Place, /, *, later: bool = False) -> None:
        """Give a whole picture its object name, and keep its file on disk until the bucket has it.

        `later`: do not keep this picture, only its number, for the finished picture that `replace` lands.
        Never raises: if the disk is full, the picture is uploaded from where it is.
        """

    async def replace(self, raw: Picture, picture: Picture, /) -> None:
        """Land `picture`, which was made from `raw`, with the number of `raw`. Deletes `raw`."""

    def discard(self, picture: Picture, /) -> None:
        """Delete a picture that has landed but is broken."""


@dataclass(frozen=True, slots=True)
class Call:
    """What providers and storage need to know about one request of a caller.

    `answer_by`, `store_by` and `ends` are event loop times. At `answer_by` providers return what is ready. At
    `store_by` the response says where the pictures are or will be. If pictures are stored, calls can go on
    until `ends`. `blobs` is the scope of the request's blobs. `wish` pays for its calls. `progress` is shared
    by all copies of this Call, except that of a rewrite. `trouble` is the failure that the request rehearses
    ("429=7"); always None in live. `landing` is set if the pictures are stored. `unfinished`: the vendor's
    pictures must be finished before they are stored. `place` and `bill` belong to one paid call.
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
        """When the vendor's answer must be complete (event loop time)."""
        return self.ends if self.progress.keeps_pictures else self.answer_by

    @property
    def answers(self) -> Blobs:
        """The scope into which vendors' answers are written."""
        return self.landing.blobs if self.landing else self.blobs


class Provider(Protocol[Request]):
    """A vendor's image models."""

    async def run(self, request: Request, model: Model, call: Call, /) -> Generation:
        """Make the pictures of the request, in calls that `call.wish` pays for.

        Raises NoRoom and `contract.errors`: SafetyBlocked, InvalidRequest, RateLimited, ModelGone, Upstream….
        """

    async def ready(self) -> str | None:
        """As `Part.ready`. Sends no paid call."""


class Admission(Protocol):
    """Limits the calls under way to vendors."""

    def latest(self, call: Call, /) -> float:
        """Returns the latest event loop time at which the call can be sent."""

    def has_room(self, model: Model, call: Call, /) -> bool:
        """Returns whether the call would get a place at once."""

    def place(self, model: Model, call: Call, /) -> AbstractAsyncContextManager[None]:
        """Hold a place while the call is under way.

        Raises Busy if it is too late to send the call, Busy or RateLimited if too many others wait.
        """


class Storage(Protocol):
    """Stores pictures in buckets."""

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

        `bucket` defaults to the gateway's own. `again`: succeed if an earlier try has stored it. `trouble`:
        as in Call. Raises UpstreamUnavailable if a later try can succeed, else UpstreamFailed.
        """


class Spooled(Protocol):
    """Pictures that wait on disk until the bucket has them."""

    async def find(self, bucket: str, stem: str, /) -> list[str]:
        """Returns the names of waiting pictures that begin with the stem, in the folders of all processes.

        The stem's last "/" ends their folder. Call this before asking the bucket: a picture can move from
        here to the bucket in between. Raises OSError.
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
        """Delete the file of a picture that the bucket has, or that is broken."""

    def release(self, path: Path, /) -> None:
        """Let the spool upload the picture. It tries until the bucket has it."""

    async def ready(self) -> str | None:
        """As `Part.ready`. Raises OSError with the folder's name if no picture can be kept now."""


class Buckets(Protocol):
    """Reads stored pictures."""

    async def names(self, bucket: str, stem: str, /) -> list[str]:
        """Returns the names of objects that begin with the stem. Raises as `Storage.save` does."""

    async def fetch(self, name: str, blobs: Blobs, /, *, bucket: str) -> Picture:
        """Returns the picture in an object. Raises as `Storage.save` does."""


class PrivateStore(Protocol):
    """Pictures for repeated requests. Names are `{call id}-{number}.{extension}`."""

    async def keep(self, name: str, picture: Picture, /) -> None:
        """Keep a picture, completely or not at all. Raises NoRoom, OSError and `contract.errors`."""

    async def find(self, call_id: str, blobs: Blobs, /) -> dict[str, Picture]:
        """Returns the pictures of a call by name, in the order of their numbers. Raises as `keep` does."""


class Part(Protocol):
    """Anything that /health/ready checks."""

    async def ready(self) -> str | None:
        """Returns None if it works, or a few words for the log if it works with a problem.

        Raises any exception if it does not work.
        """
