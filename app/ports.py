"""What the gateway asks of the outside."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.contract.answer import MaskApplied
from app.contract.models import Model
from app.contract.pictures import Picture
from app.contract.safety import Block

Request = TypeVar("Request", contravariant=True)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a provider made: at least one picture, and a Block for each sample that was filtered.

    `mask_applied` is set if a model without mask support made an edit.
    """

    pictures: tuple[Picture, ...]
    filtered: tuple[Block, ...] = ()
    mask_applied: MaskApplied | None = None


answer_by: ContextVar[float] = ContextVar("answer_by")
"""When (in the event loop's time) providers are to have answered, so that what is ready can be stored."""

store_by: ContextVar[float] = ContextVar("store_by")
"""When (in the event loop's time) the caller has to be told where the pictures are or will be."""

rehearsed: ContextVar[str | None] = ContextVar("rehearsed", default=None)
"""The failure that a request rehearses ("429=7"). Each of its calls carries it. Never set in live."""


class Provider(Protocol[Request]):
    """A vendor's image models.

    Raises only `contract.errors`: SafetyBlocked, InvalidRequest, RateLimited, ModelGone, Upstream….
    A cancelled call is cancelled at the vendor where the vendor allows it.
    """

    async def run(self, request: Request, model: Model, /) -> Generation: ...

    async def aclose(self) -> None: ...


class Storage(Protocol):
    """Where pictures go."""

    def url(self, name: str, /, *, bucket: str) -> str:
        """Returns the public URL of an object. The object need not exist yet."""

    async def save(
        self, name: str, picture: Picture, /, *, bucket: str | None = None, again: bool = False
    ) -> str:
        """Store the picture under the object name and return its public URL.

        `bucket` defaults to the gateway's own. `again`: an earlier try may have landed, which is as good.
        Raises UpstreamUnavailable when it can be tried again later, UpstreamFailed when not.
        """

    async def aclose(self) -> None: ...


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
