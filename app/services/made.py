"""What a paid request made, before a dialect presents it."""

from dataclasses import dataclass

from app.contract.answer import MaskApplied
from app.contract.models import Model
from app.contract.safety import Block
from app.pictures.picture import Picture
from app.services.gallery import Stored


@dataclass(frozen=True, slots=True)
class Made:
    """At least one picture, and what else there is to say.

    `requested` is the id of the model that was asked for, `model` the one that served. `stored` is there if
    the caller wants URLs: one for each picture, whose bytes are then no longer readable. `filtered` and
    `failed` tell of the samples that are missing, as in Generation. `prompt` is the text
    that was drawn, if the caller is told; `prompt_enhanced` if it was rewritten.
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
        """The id of the model that was asked for, if another one served."""
        return None if self.model.id == self.requested else self.requested
