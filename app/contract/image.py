"""The six requests of `/api/v1/image/*`, as the API document has them.

Fields stand in the order of the document's tables, because messages come in that order; our own optional
fields follow. Validators check what must hold between fields before anything is paid.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import (
    AfterValidator,
    AliasChoices,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from app.contract.answer import MaskApplied
from app.contract.fields import (
    AtMost,
    Flag,
    FlagOrText,
    NonEmptyText,
    Number,
    OnlyWhen,
    PictureField,
    Raw,
    Seed,
    SeedOrText,
    ServedFor,
    StorageUri,
    Text,
    Unless,
    Whole,
    WholeOrText,
    broken,
)
from app.contract.models import Operation
from app.contract.reading import Contract, Uploads
from app.pictures.blob import Blob
from app.pictures.picture import Picture

MAX_UPSCALED_PIXELS = 17_000_000


def _at_least_one(steps: int) -> int:
    if steps < 1:
        raise broken("{path} must not be less than 1")
    return steps


SafetySetting = Literal["block_low_and_above", "block_medium_and_above", "block_only_high", "block_none"]
PersonGeneration = Literal["dont_allow", "allow_adult", "allow_all"]
AspectRatio = Literal["1:1", "3:4", "4:3", "9:16", "16:9"]
SampleImageSize = Literal["1K", "2K"]
ResponseFormat = Annotated[
    Literal["url", "b64_json"],
    Field(validation_alias=AliasChoices("responseFormat", "response_format")),  # /gen's spelling
]

_DOCUMENTED_MODELS = (
    "imagen-3.0-generate-002",
    "imagen-3.0-generate-001",
    "imagen-3.0-fast-generate-001",
    "imagen-4.0-generate-001",
    "imagen-4.0-fast-generate-001",
    "imagen-4.0-ultra-generate-001",
    "gemini-3-pro-image-preview",
    "gemini-2.5-flash-image",
)


class OutputOptions(Contract):
    mime_type: Literal["image/png", "image/jpeg"] = "image/png"
    compression_quality: Annotated[WholeOrText, Ge(0), Le(100)] = 75


class Seeded(Contract):
    """A request with a seed and a watermark, which Google does not make together."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"seed": {"type": "integer"}}, "required": ["seed"]},
            "then": {"properties": {"addWatermark": {"enum": [False, None]}}},
        }
    )

    if TYPE_CHECKING:  # each stands where its document has it
        add_watermark: bool | None
        seed: int | None

    @property
    def watermark(self) -> bool:
        """Explicit, or on unless there is a seed."""
        return self.seed is None if self.add_watermark is None else self.add_watermark

    @model_validator(mode="after")
    def _seed_or_watermark(self) -> Self:
        if self.seed is not None and self.add_watermark:
            raise broken("seed is not available when addWatermark is true")
        return self


class TextToImage(Seeded):
    operation: ClassVar[Operation] = "text-to-image"

    model: (
        Annotated[
            str,
            ServedFor("text-to-image", _DOCUMENTED_MODELS),
            WithJsonSchema({"type": "string", "enum": _DOCUMENTED_MODELS}),
        ]
        | None
    ) = None
    prompt: NonEmptyText
    sample_count: Annotated[Whole, Ge(1), Le(4)] = 1
    add_watermark: Flag | None = None
    seed: Seed | None = None
    negative_prompt: Text | None = None
    output_options: OutputOptions = OutputOptions()
    storage_uri: StorageUri | None = None
    safety_setting: SafetySetting = "block_medium_and_above"
    person_generation: PersonGeneration = "allow_adult"
    aspect_ratio: AspectRatio | None = None
    sample_image_size: SampleImageSize | None = None
    enhance_prompt: Flag | None = None
    response_format: ResponseFormat = "url"


class ImageUpscale(Contract):
    operation: ClassVar[Operation] = "image-upscale"
    uploads: ClassVar[Uploads] = {"image": 1}
    sample_count: ClassVar[int] = 1

    image: PictureField
    upscale_factor: Literal["x2", "x3", "x4"] = "x2"
    prompt: Text = "Upscale the image"
    add_watermark: FlagOrText = True
    output_options: OutputOptions = OutputOptions()
    storage_uri: StorageUri | None = None
    response_format: ResponseFormat = "b64_json"

    @model_validator(mode="after")
    def _seventeen_megapixels(self) -> Self:
        if isinstance(self.image, Picture):
            width, height = self.image.size
            factor = int(self.upscale_factor[1:])
            if width * factor * height * factor > MAX_UPSCALED_PIXELS:
                raise broken("image must not exceed 17 megapixels after upscaling")
        return self


def _uploaded(value: Raw) -> bool:
    return isinstance(value[0] if isinstance(value, list) and value else value, Blob)


class Referencing(Contract):
    """A request with reference images, which may be many and come with settings of their own."""

    max_body_bytes: ClassVar[int] = 64 * 1024 * 1024
    uploads: ClassVar[Uploads] = {"referenceImages[][image]": None}

    @classmethod
    def from_form(cls, raw: dict[str, Raw]) -> dict[str, Raw]:
        """`referenceImages[0][image]` is the file that JSON gives as `bytesBase64Encoded`."""
        references = raw.get("referenceImages")
        if not isinstance(references, list):
            return raw
        placed = [
            {**reference, "bytesBase64Encoded": reference["image"]}
            if isinstance(reference, dict) and _uploaded(reference.get("image"))
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
"""Modes in which the model makes the mask itself. A mask picture sent with them is ignored, as Google
does."""


def _has_automatic_mask(reference: Mapping[str, Raw]) -> bool:
    config = reference.get("maskImageConfig")
    while isinstance(config, list):
        config = config[0] if config else None
    mode = config.get("maskMode") if isinstance(config, Mapping) else None
    return reference.get("referenceType") == "REFERENCE_TYPE_MASK" and mode in AUTOMATIC_MASKS


class EditReference(Contract):
    """The picture to edit, or a mask. A mask that the model makes itself has no picture."""

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
        """The settings of a mask that the model makes itself; None if the mask is a picture."""
        config = self.mask.mask_image_config
        return config if config and config.mask_mode in AUTOMATIC_MASKS else None

    @property
    def mask_applied(self) -> MaskApplied:
        """How the mask is followed when a model makes the edit that knows no masks."""
        return "instruction" if self.automatic_mask else "exact"

    def _only(self, kind: str) -> EditReference:
        """The one reference of its kind. Raises when there is none or another."""
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
        """The document gives no addWatermark here: on unless there is a seed."""
        return self.seed is None

    @model_validator(mode="after")
    def _cited_references_exist(self) -> Self:
        given = {reference.reference_id for reference in self.reference_images}
        for cited in re.findall(r"\[(\d{1,9})\]", self.prompt):
            if int(cited) not in given:
                raise broken(f"prompt cites [{cited}], but no reference image has referenceId {cited}")
        return self


class VirtualTryOn(Contract):
    operation: ClassVar[Operation] = "virtual-try-on"
    uploads: ClassVar[Uploads] = {"images": None}

    person_image: PictureField
    product_images: Annotated[tuple[PictureField, ...], MinLen(1), AtMost(3)]
    sample_count: Annotated[WholeOrText, Ge(1), Le(4)] = 1
    base_steps: Annotated[
        WholeOrText, AfterValidator(_at_least_one), WithJsonSchema({"type": "integer", "minimum": 1})
    ] = 32
    add_watermark: FlagOrText = True
    output_options: OutputOptions = OutputOptions()
    storage_uri: StorageUri | None = None
    response_format: ResponseFormat = "b64_json"

    @classmethod
    def from_form(cls, raw: dict[str, Raw]) -> dict[str, Raw]:
        """`images`: the first file is the person, the others are products."""
        files = raw.get("images")
        if not _uploaded(files):
            return raw
        person, *products = files if isinstance(files, list) else [files]
        return {**raw, "personImage": person, "productImages": products}


class ProductRecontext(Seeded):
    operation: ClassVar[Operation] = "product-recontext"
    uploads: ClassVar[Uploads] = {"productImages": None}

    prompt: Text | None = None
    product_images: Annotated[tuple[PictureField, ...], MinLen(1), MaxLen(3)]
    sample_count: Annotated[WholeOrText, Ge(1), Le(4)] = 1
    add_watermark: FlagOrText | None = None
    enhance_prompt: FlagOrText = True
    safety_setting: SafetySetting = "block_medium_and_above"
    person_generation: PersonGeneration = "allow_adult"
    seed: SeedOrText | None = None
    storage_uri: StorageUri | None = None
    response_format: ResponseFormat = "b64_json"

    @classmethod
    def from_form(cls, raw: dict[str, Raw]) -> dict[str, Raw]:
        """One uploaded file is a list of one."""
        files = raw.get("productImages")
        return {**raw, "productImages": [files]} if isinstance(files, Blob) else raw


ImageRequest = TextToImage | ImageUpscale | ImageEdit | ImageCustomize | VirtualTryOn | ProductRecontext
