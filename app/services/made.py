"""The result of a request before a dialect writes it, and pictures found after an interruption."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from app.contract.answer import MaskApplied, StoredImage
from app.contract.ledger import PaidCall, StoredPicture
from app.contract.models import Model
from app.contract.safety import Block
from app.pictures.picture import EXTENSIONS, Picture

_TYPES = {extension: mime_type for mime_type, extension in EXTENSIONS.items()}


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored picture. `name` is the object's name. `pending`: it is not in the bucket yet."""

    bucket: str
    name: str
    url: str
    mime_type: str
    generated_at: datetime
    pending: bool

    @property
    def image(self) -> StoredImage:
        """The picture as responses describe it."""
        generated_at = self.generated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return StoredImage(
            url=self.url,
            filename=self.name.rpartition("/")[2],
            mime_type=self.mime_type,
            generated_at=generated_at,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """The result of a request: at least one picture, and what the response says about it.

    `requested` is the id of the requested model, `model` the one that served. If the caller wants URLs,
    `stored` has an entry for each picture, and the bytes of `pictures` can no longer be read. `filtered` and
    `failed` describe the missing samples, as in Generation. For /gen, `prompt` is the text that the model
    got, and `prompt_enhanced` says whether it was rewritten.
    """

    model: Model
    requested: str
    pictures: tuple[Picture, ...]
    stored: tuple[Stored, ...] = ()
    filtered: tuple[Block, ...] = ()
    failed: tuple[str, ...] = ()
    mask_applied: MaskApplied | None = None
    prompt: str = ""
    prompt_enhanced: bool = False

    @property
    def substituted(self) -> str | None:
        """The id of the requested model, if another one served."""
        return None if self.model.id == self.requested else self.requested


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """A picture of an interrupted request.

    `picture` is set if it is in the private store. Otherwise it is in the bucket, or, if `pending`, on the
    spool.
    """

    call: PaidCall
    name: str
    picture: Picture | None = None
    pending: bool = False

    @property
    def number(self) -> int:
        """Its number among the pictures of the call."""
        return int(self.name.rpartition("-")[2].partition(".")[0])

    @property
    def row(self) -> StoredPicture:
        """Its row in the ledger."""
        bucket, extension = self.call.bucket or "", self.name.rpartition(".")[2]
        return StoredPicture(self.call.id, self.number, bucket, self.name, _TYPES[extension])


def stored_rows(found: Iterable[FoundPicture]) -> tuple[StoredPicture, ...]:
    """Returns the ledger's rows of the pictures that are not in the private store."""
    return tuple(one.row for one in found if not one.picture)
