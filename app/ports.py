"""What the gateway asks of the outside."""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from app.contract.answer import MaskApplied
from app.contract.models import Model
from app.contract.safety import Block
from app.pictures.blob import Blobs
from app.pictures.picture import Picture

Request = TypeVar("Request", contravariant=True)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a provider made: at least one picture, and a Block for each sample that was filtered.

    `mask_applied` is set if a model without mask support made an edit.
    """

    pictures: tuple[Picture, ...]
    filtered: tuple[Block, ...] = ()
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


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller, as providers and storage need to know it.

    `answer_by`: when (in the event loop's time) providers return at the latest, so that what is ready can be
    stored. `store_by`: when the caller has to be told where the pictures are or will be. `blobs` keeps what
    belongs to the request, and is closed when the request ends. `progress` is the request's, and the same in
    all copies of a Call but a rewrite's. `key` is the Idempotency-Key. `trouble` is
    the failure that the request rehearses ("429=7"); each of its calls carries it; never set in live.
    """

    caller: str
    request_id: str
    answer_by: float
    store_by: float
    blobs: Blobs
    progress: Progress = field(default_factory=Progress)
    key: str | None = None
    trouble: str | None = None


class Provider(Protocol[Request]):
    """A vendor's image models.

    Raises NoRoom and `contract.errors`: SafetyBlocked, InvalidRequest, RateLimited, ModelGone, Upstream….
    """

    async def run(self, request: Request, model: Model, call: Call, /) -> Generation: ...


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
    """Where pictures wait that are paid for and could not be stored."""

    async def keep(self, name: str, picture: Picture, bucket: str, /) -> None:
        """Keep the picture until the store is back; it will be saved there under the same name."""

    async def ready(self) -> None:
        """Return if a picture can be kept now. Raises OSError if not."""


class Part(Protocol):
    """Something the gateway cannot work without."""

    async def ready(self) -> None:
        """Return when it answers; raise any exception when it does not."""
