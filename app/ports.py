"""What the gateway asks of the outside."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from app.contract.answer import MaskApplied
from app.contract.models import Model
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

    `kept`: its pictures are stored. `sent`: a call for a picture was sent, which may be paid. `left`: nobody
    waits for its answer any more, so that nothing more is sent.
    """

    kept: bool = False
    sent: bool = False
    left: bool = False


class Landing(Protocol):
    """Where the pictures of one request land that are to be stored: each is safe on disk when it is whole.

    `blobs` is the scope into which vendors' answers are written.
    """

    blobs: Blobs

    async def land(self, picture: Picture, model: Model, /, *, instead_of: Picture | None = None) -> None:
        """Give a whole picture the name it will have in the bucket, and keep its file until it is there.

        `instead_of`: the earlier picture that it was made of, which is deleted. Never raises: what the disk
        refuses is uploaded from where it is.
        """

    def discard(self, picture: Picture, /) -> None:
        """Delete a picture that has landed and is broken."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller, as providers and storage need to know it.

    `answer_by`: when (in the event loop's time) providers return at the latest, so that what is ready can be
    stored. `store_by`: when the caller has to be told where the pictures are or will be. `blobs` keeps what
    belongs to the request, and is closed when the request ends. `progress` is the request's, and the same in
    all copies of a Call but a rewrite's. `key` is the Idempotency-Key. `trouble` is
    the failure that the request rehearses ("429=7"); each of its calls carries it; never set in live.
    `landing` is set if the pictures are to be stored.
    """

    caller: str
    request_id: str
    answer_by: float
    store_by: float
    blobs: Blobs
    progress: Progress = field(default_factory=Progress)
    key: str | None = None
    trouble: str | None = None
    landing: Landing | None = None

    @property
    def answers(self) -> Blobs:
        """The scope into which vendors' answers are written."""
        return self.landing.blobs if self.landing else self.blobs


class Provider(Protocol[Request]):
    """A vendor's image models.

    Raises NoRoom and `contract.errors`: SafetyBlocked, InvalidRequest, RateLimited, ModelGone, Upstream….
    """

    async def run(self, request: Request, model: Model, call: Call, /) -> Generation: ...


class Admission(Protocol):
    """Says when a call may be sent to a vendor."""

    def latest(self, call: Call, /) -> float:
        """Returns until when (in the event loop's time) the call may be sent."""

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

        `bucket` defaults to the gateway's own. `again`: an earlier try may have landed, which is as good.
        `trouble`: as in Call. Raises UpstreamUnavailable when it can be tried again later, UpstreamFailed
        when not.
        """


class Spool(Protocol):
    """Where pictures wait on disk until the bucket has them. A process that dies leaves them to others."""

    def blobs(self, spare: Blobs, /) -> Blobs:
        """Returns a scope of blobs in the folder. What finds no more room there goes to that of `spare`."""

    async def land(self, blob: Blob, bucket: str, name: str, /) -> Path:
        """Keep a whole picture under its object's name. Returns the path of its file.

        A blob of the folder's becomes that file; of any other a copy is made. Raises NoRoom.
        """

    def remove(self, path: Path, /) -> None:
        """The bucket has it, or it is not wanted."""

    def release(self, path: Path, /) -> None:
        """Nobody else uploads it any more: the spool shall, until the bucket has it."""

    async def ready(self) -> str | None:
        """Returns if a picture can be kept now: None, or what is wrong with those that wait.

        Raises OSError with the folder's name if none can be kept.
        """


class Part(Protocol):
    """Something the gateway works with."""

    async def ready(self) -> str | None:
        """Returns None if it works, or in a few words what is wrong although it works; these are logged.

        Raises any exception if it does not work.
        """
