"""The catalogue: which models there are, what each can do, and which model follows one that is gone.

The data is `app/models.toml`, or the file that `MODELS_FILE` names.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from app.contract.words import Described

ImageOperation = Literal[
    "text-to-image",
    "image-upscale",
    "image-edit",
    "image-customize",
    "virtual-try-on",
    "product-recontext",
]
GenOperation = Literal["text2img", "img2img"]
Operation = Literal[ImageOperation, GenOperation, "rewrite"]
ModelStatus = Literal["active", "preview", "retired"]
Capability = Literal[
    "seed",
    "watermark-off",
    "enhance-prompt",
    "2K",
    "4K",
    "mask-modes",
    "control-computation",
    "several-products",
]
Families = Mapping[str, Collection[Operation]]
"""The families of models that a vendor's provider knows, and what it can ask of each."""

_PAGE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}/[^\s()]+")


class Model(Described):
    """One row of the catalogue.

    `vendor` and `family` are names of the providers that are plugged in (`Catalogue.check_served`).
    `location` is a region ("us-west-2"), "regional" (VERTEX_LOCATION) or "global" (VERTEX_GEMINI_LOCATION).
    `capabilities` are the optional abilities that a caller can ask for and a model can lack.
    `prompt_characters` is the longest prompt the model takes, where its vendor counts characters.
    `bedrock_id` and `vertex_id` are the names of an Anthropic model on those platforms. `source` is a public
    page, without "https://".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    vendor: str
    family: str
    short: str
    location: str
    operations: tuple[Operation, ...]
    capabilities: tuple[Capability, ...] = ()
    prompt_characters: int | None = None
    bedrock_id: str | None = None
    vertex_id: str | None = None
    status: ModelStatus
    retires: date | None = None
    source: str
    successor: str | None = None

    @field_validator("source")
    @classmethod
    def _is_a_page(cls, source: str) -> str:
        if not _PAGE.fullmatch(source):
            raise ValueError('must be a public page without "https://", for example "example.com/models"')
        return source


class Catalogue(BaseModel):
    """All rows, and the model that serves an operation when the caller names none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: dict[Operation, str]
    model: tuple[Model, ...]

    @model_validator(mode="after")
    def _names_exist(self) -> "Catalogue":
        ids = [model.id for model in self.model]
        if twice := {id for id in ids if ids.count(id) > 1}:
            raise ValueError(f"models listed twice: {', '.join(sorted(twice))}")
        named = {*self.defaults.values(), *(m.successor for m in self.model if m.successor)}
        if unknown := named - set(ids):
            raise ValueError(f"defaults or successors that are not models: {', '.join(sorted(unknown))}")
        for model in self.model:
            self._check_successors(model)
        for operation, id in self.defaults.items():
            if operation not in self[id].operations:
                raise ValueError(f"{id} is the default for {operation}, but cannot do it")
        return self

    def _check_successors(self, model: Model) -> None:
        seen = [model.id]
        while model.successor:
            successor = self[model.successor]
            if successor.id in seen:
                raise ValueError(f"successors go round in a circle: {' → '.join([*seen, successor.id])}")
            if not set(model.operations) <= set(successor.operations):
                raise ValueError(f"{successor.id} cannot do all that {model.id} can")
            seen.append(successor.id)
            model = successor

    def check_served(self, operations: Collection[Operation], vendors: Mapping[str, Families]) -> None:
        """Check that each operation has a default, and that every model that promises it is served.

        `vendors` are those that are plugged in for these operations. Raises ValueError.
        """
        if undecided := {*operations} - {*self.defaults}:
            raise ValueError(f"defaults are missing: {', '.join(sorted(undecided))}")
        for model in self.model:
            able = vendors.get(model.vendor, {}).get(model.family, ())
            if unable := {*model.operations} & {*operations} - {*able}:
                raise ValueError(
                    f"{model.id}: {model.vendor} has no family {model.family} that can do "
                    + ", ".join(sorted(unable))
                )

    def __getitem__(self, id: str) -> Model:
        return next(model for model in self.model if model.id == id)

    def serving(self, operation: Operation) -> tuple[str, ...]:
        """Returns the ids of the models that can do the operation, in the order of the file."""
        return tuple(model.id for model in self.model if operation in model.operations)

    def chain(self, id: str) -> Iterator[Model]:
        """Yields the model itself, its successor, the successor's successor …"""
        model: Model | None = self[id]
        while model:
            yield model
            model = self[model.successor] if model.successor else None


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read the catalogue. Raises OSError, and ValueError with a readable text if the file breaks a rule."""
    path = path or Path(__file__).parents[1] / "models.toml"
    return Catalogue.model_validate(tomllib.loads(path.read_text("utf-8")))
