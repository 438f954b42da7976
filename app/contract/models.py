"""The catalogue: which models there are, what each can do, and who follows a model that is gone.

The data is `app/models.toml`, or the file that `MODELS_FILE` names.
"""

import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from app.contract.words import Described

Vendor = Literal["google", "aws", "anthropic"]
Family = Literal["imagen", "gemini", "sdxl", "titan", "stability2", "claude"]
Operation = Literal[
    "text-to-image",
    "image-upscale",
    "image-edit",
    "image-customize",
    "virtual-try-on",
    "product-recontext",
    "text2img",
    "img2img",
    "rewrite",
]
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

_FAMILIES: dict[Vendor, tuple[Family, ...]] = {
    "google": ("imagen", "gemini"),
    "aws": ("sdxl", "titan", "stability2"),
    "anthropic": ("claude",),
}
_OPERATIONS: dict[Family, tuple[Operation, ...]] = {
    "imagen": (
        "text-to-image",
        "image-upscale",
        "image-edit",
        "image-customize",
        "virtual-try-on",
        "product-recontext",
    ),
    "gemini": ("text-to-image", "image-edit", "image-customize", "product-recontext"),
    "sdxl": ("text2img",),
    "titan": ("text2img", "img2img"),
    "stability2": ("text2img", "img2img"),
    "claude": ("rewrite",),
}
"""What the providers can ask of each family. A catalogue that promises more is refused at the start."""


class Model(Described):
    """One row of the catalogue.

    `location` is a region ("us-west-2"), "regional" (VERTEX_LOCATION) or "global" (VERTEX_GEMINI_LOCATION).
    `capabilities` are the optional abilities a caller may ask for and a model may lack.
    `prompt_characters` is the longest prompt the model takes, where its vendor counts characters.
    `bedrock_id` and `vertex_id` are the names of an Anthropic model on those platforms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    vendor: Vendor
    family: Family
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

    @model_validator(mode="after")
    def _is_served(self) -> "Model":
        if self.family not in _FAMILIES[self.vendor]:
            raise ValueError(f"{self.id}: {self.vendor} has no family {self.family}")
        if unable := set(self.operations) - set(_OPERATIONS[self.family]):
            raise ValueError(f"{self.id}: the family {self.family} cannot do {', '.join(sorted(unable))}")
        return self


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
            raise ValueError(f"defaults or successors that are no models: {', '.join(sorted(unknown))}")
        for operation, id in self.defaults.items():
            if operation not in self[id].operations:
                raise ValueError(f"{id} is the default for {operation}, but cannot do it")
        for model in self.model:
            seen = [model.id]
            while model.successor:
                successor = self[model.successor]
                if successor.id in seen:
                    raise ValueError(f"successors go round in a circle: {' → '.join([*seen, successor.id])}")
                if not set(model.operations) <= set(successor.operations):
                    raise ValueError(f"{successor.id} cannot do all that {model.id} can")
                seen.append(successor.id)
                model = successor
        return self

    def __getitem__(self, id: str) -> Model:
        return next(model for model in self.model if model.id == id)

    def serving(self, operation: Operation) -> tuple[str, ...]:
        """Ids of the models that can do the operation, in the order of the file."""
        return tuple(model.id for model in self.model if operation in model.operations)

    def chain(self, id: str) -> Iterator[Model]:
        """The model itself, its successor, the successor's successor …"""
        model: Model | None = self[id]
        while model:
            yield model
            model = self[model.successor] if model.successor else None


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read the catalogue. Raises ValueError with a readable text when the file breaks a rule."""
    path = path or Path(__file__).parents[1] / "models.toml"
    return Catalogue.model_validate(tomllib.loads(path.read_text("utf-8")))
