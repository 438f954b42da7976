"""The requests of `/api/v1/image/*`; those with reference images are in `references.py`.

The order of fields is the order of the document's tables, because error messages follow it. Fields that the
document does not have come last. Validators check what must hold between fields, before anything is paid.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import (
    AfterValidator,
    ConfigDict,
    WithJsonSchema,
    model_validator,
)

from app.contract.fields import (
    AtMost,
    Flag,
    FlagOrText,
    NonEmptyText,
    PictureField,
    Raw,
    ResponseFormat,
    Seed,
    SeedOrText,
    ServedFor,
    StorageUri,
    Text,
    Whole,
    WholeOrText,
    broken,
)
from app.contract.models import Operation
from app.contract.reading import Contract, Uploads, is_uploaded
from app.contract.references import ImageCustomize, ImageEdit
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
    """A request with a seed and a watermark, of which Google allows only one."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"seed": {"type": "integer"}}, "required": ["seed"]},
            "then": {"properties": {"addWatermark": {"enum": [False, None]}}},
        }
    )

    if TYPE_CHECKING:  # each subclass declares them in its own order
        add_watermark: bool | None
        seed: int | None

    @property
    def watermark(self) -> bool:
        """Whether to add a watermark. If the request does not say: yes, unless it has a seed."""
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
        """Returns the fields with the files of `images`: the first is the person, the others are products."""
        files = raw.get("images")
        if not is_uploaded(files):
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
        """Returns the fields with a single uploaded file as a list of one."""
        files = raw.get("productImages")
        return {**raw, "productImages": [files]} if isinstance(files, Blob) else raw


ImageRequest = TextToImage | ImageUpscale | ImageEdit | ImageCustomize | VirtualTryOn | ProductRecontext
