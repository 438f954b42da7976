"""The requests with reference images: image-edit and image-customize."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import ConfigDict, WithJsonSchema, model_validator

from app.contract.answer import MaskApplied
from app.contract.fields import (
    AtMost,
    Flag,
    NonEmptyText,
    Number,
    OnlyWhen,
    PictureField,
    Raw,
    ResponseFormat,
    Seed,
    StorageUri,
    Text,
    Unless,
    Whole,
    broken,
)
from app.contract.models import Operation
from app.contract.reading import Contract, Uploads, is_uploaded
from app.pictures.picture import Picture


class Referencing(Contract):
    """Base of requests with reference images."""

    max_body_bytes: ClassVar[int] = 64 * 1024 * 1024
    uploads: ClassVar[Uploads] = {"referenceImages[][image]": None}

    @classmethod
    def from_form(cls, raw: dict[str, Raw]) -> dict[str, Raw]:
        """Returns the fields with the file `referenceImages[0][image]` as its `bytesBase64Encoded`."""
        references = raw.get("referenceImages")
        if not isinstance(references, list):
            return raw
        placed = [
            {**reference, "bytesBase64Encoded": reference["image"]}
            if isinstance(reference, dict) and is_uploaded(reference.get("image"))
            else reference
            for reference in references
        ]
        return {**raw, "referenceImages": placed}


class MaskImageConfig(Contract):
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"maskMode": {"const": "MASK_MODE_SEMANTIC"}}, "required": ["maskMode"]},
            "then": {
                "properties": {
                    "maskClasses": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "minItems": 1,
                        "maxItems": 5,
                    }
                },
                "required": ["maskClasses"],
            },
        }
    )

    mask_mode: Literal[
        "MASK_MODE_USER_PROVIDED", "MASK_MODE_BACKGROUND", "MASK_MODE_FOREGROUND", "MASK_MODE_SEMANTIC"
    ]
    dilation: Annotated[Number, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})] | None = None
    mask_classes: Annotated[tuple[Whole, ...], MaxLen(5)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.dilation is not None and not 0 <= self.dilation <= 1:
            raise broken("{path}.dilation must be between 0 and 1")
        if self.mask_mode == "MASK_MODE_SEMANTIC" and not self.mask_classes:
            raise broken("{path}.maskClasses should not be empty with MASK_MODE_SEMANTIC")
        return self


AUTOMATIC_MASKS = ("MASK_MODE_BACKGROUND", "MASK_MODE_FOREGROUND", "MASK_MODE_SEMANTIC")
"""Modes in which the model makes the mask. A mask picture that is sent with them is ignored, as Google
ignores it."""


def _has_automatic_mask(reference: Mapping[str, Raw]) -> bool:
    config = reference.get("maskImageConfig")
    while isinstance(config, list):
        config = config[0] if config else None
    mode = config.get("maskMode") if isinstance(config, Mapping) else None
    return reference.get("referenceType") == "REFERENCE_TYPE_MASK" and mode in AUTOMATIC_MASKS


class EditReference(Contract):
    """The picture to edit, or its mask. A mask that the model makes has no picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {
                "properties": {
                    "referenceType": {"const": "REFERENCE_TYPE_MASK"},
                    "maskImageConfig": {
                        "type": "object",
                        "properties": {"maskMode": {"enum": list(AUTOMATIC_MASKS)}},
                        "required": ["maskMode"],
                    },
                },
                "required": ["maskImageConfig"],
            },
            "else": {
                "properties": {"bytesBase64Encoded": {"type": "string"}},
                "required": ["bytesBase64Encoded"],
            },
        }
    )

    reference_type: Literal["REFERENCE_TYPE_RAW", "REFERENCE_TYPE_MASK"]
    reference_id: Whole
    bytes_base64_encoded: Annotated[PictureField | None, Unless(_has_automatic_mask)] = None
    mask_image_config: Annotated[MaskImageConfig | None, OnlyWhen("referenceType", "REFERENCE_TYPE_MASK")] = (
        None
    )


class ImageEdit(Referencing):
    operation: ClassVar[Operation] = "image-edit"

    prompt: Text | None = None
    reference_images: Annotated[tuple[EditReference, ...], MinLen(2), AtMost(2)]
    edit_mode: Literal[
        "EDIT_MODE_INPAINT_REMOVAL", "EDIT_MODE_INPAINT_INSERTION", "EDIT_MODE_BGSWAP", "EDIT_MODE_OUTPAINT"
    ]
    base_steps: Annotated[Whole, Ge(1), Le(75)] = 75
    guidance_scale: Annotated[Whole, Ge(0), Le(500)] | None = None
    sample_count: Annotated[Whole, Ge(1), Le(4)] = 4
    add_watermark: Flag = True
    storage_uri: StorageUri | None = None
    response_format: ResponseFormat = "b64_json"

    @property
    def original(self) -> EditReference:
        return self._only("REFERENCE_TYPE_RAW")

    @property
    def mask(self) -> EditReference:
        return self._only("REFERENCE_TYPE_MASK")

    @property
    def automatic_mask(self) -> MaskImageConfig | None:
        """The settings of a mask that the model makes; None if the mask is a picture."""
        config = self.mask.mask_image_config
        return config if config and config.mask_mode in AUTOMATIC_MASKS else None

    @property
    def mask_applied(self) -> MaskApplied:
        """How the mask is applied if the model that makes the edit does not support masks."""
        return "instruction" if self.automatic_mask else "exact"

    def _only(self, kind: str) -> EditReference:
        """Returns the only reference of this type. Raises a `broken` rule if there is not exactly one."""
        found = [reference for reference in self.reference_images if reference.reference_type == kind]
        if len(found) != 1:
            raise broken(f"referenceImages must contain exactly one {kind}")
        return found[0]

    @model_validator(mode="after")
    def _mask_fits_the_original(self) -> Self:
        original, mask = self.original.bytes_base64_encoded, self.mask.bytes_base64_encoded
        if isinstance(original, Picture) and isinstance(mask, Picture) and original.size != mask.size:
            raise broken("the mask must have the size of the image it masks")
        return self


class ControlImageConfig(Contract):
    control_type: Literal["CONTROL_TYPE_FACE_MESH", "CONTROL_TYPE_CANNY", "CONTROL_TYPE_SCRIBBLE"]
    enable_control_image_computation: Flag | None = None


class SubjectImageConfig(Contract):
    subject_description: Text | None = None
    subject_type: Literal[
        "SUBJECT_TYPE_PERSON", "SUBJECT_TYPE_ANIMAL", "SUBJECT_TYPE_PRODUCT", "SUBJECT_TYPE_DEFAULT"
    ]


class StyleImageConfig(Contract):
    style_description: Text | None = None


class CustomizeReference(Contract):
    reference_type: Literal["REFERENCE_TYPE_CONTROL", "REFERENCE_TYPE_SUBJECT", "REFERENCE_TYPE_STYLE"]
    reference_id: Whole
    bytes_base64_encoded: PictureField
    control_image_config: ControlImageConfig | None = None
    subject_image_config: SubjectImageConfig | None = None
    style_image_config: StyleImageConfig | None = None


class ImageCustomize(Referencing):
    operation: ClassVar[Operation] = "image-customize"

    prompt: NonEmptyText
    reference_images: Annotated[tuple[CustomizeReference, ...], MinLen(1), MaxLen(4)]
    sample_count: Annotated[Whole, Ge(1), Le(4)] = 4
    negative_prompt: Text | None = None
    seed: Seed | None = None
    storage_uri: StorageUri | None = None
    response_format: ResponseFormat = "b64_json"

    @property
    def watermark(self) -> bool:
        """Whether to add a watermark: the document has no field for it, and a seed excludes it."""
        return self.seed is None

    @model_validator(mode="after")
    def _cited_references_exist(self) -> Self:
        given = {reference.reference_id for reference in self.reference_images}
        for cited in re.findall(r"\[(\d{1,9})\]", self.prompt):
            if int(cited) not in given:
                raise broken(f"prompt cites [{cited}], but no reference image has referenceId {cited}")
        return self
