"""The two kinds of answers of `/api/v1/image/*`: stored images, and predictions."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, WithJsonSchema
from pydantic.alias_generators import to_camel

from app.contract.safety import Block
from app.contract.words import Described
from app.pictures.picture import Picture


class Answer(Described):
    """Base of what callers receive: camelCase outside, fields that are None are left out."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, validate_by_name=True, arbitrary_types_allowed=True
    )


Base64Picture = Annotated[Picture, WithJsonSchema({"type": "string"})]
"""Sent as base64, in pieces (`api/answers.py`)."""


class Filtered(Answer):
    """A sample that the vendor's filters removed. If its support code is unknown, only the reason is set."""

    rai_filtered_reason: str
    error_code: int | None = None
    category: str | None = None
    filtered_on: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, block: Block) -> Self:
        return cls(
            rai_filtered_reason=block.reason,
            error_code=block.code,
            category=block.category,
            filtered_on=block.side,
            hint=block.hint,
        )


class Failed(Answer):
    """A sample that is missing because of a quota, an outage, the deadline, or a broken picture."""

    message: str


class StoredImage(Answer):
    url: str
    filename: str
    mime_type: str
    generated_at: str


class Prediction(Answer):
    """A picture, or the place where it is stored."""

    bytes_base64_encoded: Base64Picture | None = None
    gcs_uri: str | None = None
    url: str | None = None
    mime_type: str


MaskApplied = Literal["exact", "instruction"]
"""How the mask was applied for a model that does not support masks.

exact: the gateway composed the model's picture with the original; no pixel outside the mask has changed.
instruction: the prompt described the area; other pixels may have changed.
"""


class StoredImages(Answer):
    """`requested_model` is set if another model made the pictures.

    `pending`: pictures that are made, but not stored yet. Their URLs will work later.
    """

    success: Literal[True] = True
    model: str
    requested_model: str | None = None
    images: tuple[StoredImage, ...]
    filtered: tuple[Filtered, ...] | None = None
    failed: tuple[Failed, ...] | None = None
    pending: tuple[StoredImage, ...] | None = None
    mask_applied: MaskApplied | None = None


class Predictions(Answer):
    predictions: tuple[Prediction, ...]
    model: str
    requested_model: str | None = None
    filtered: tuple[Filtered, ...] | None = None
    failed: tuple[Failed, ...] | None = None
    pending: tuple[StoredImage, ...] | None = None
    mask_applied: MaskApplied | None = None
