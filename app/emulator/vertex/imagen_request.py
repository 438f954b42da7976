"""What a `:predict` request can say: one class per message, each field with its range.

Rules about one message are here. Rules about pictures and models are in `imagen_jobs.py` and
`imagen_edit.py`.
"""

from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from app.emulator.vertex.wire import AnyCase, GcsUri, Message, Whole

AspectRatio = Literal["1:1", "3:4", "4:3", "9:16", "16:9"]
Safety = Annotated[
    Literal[
        "BLOCK_LOW_AND_ABOVE",
        "BLOCK_MEDIUM_AND_ABOVE",
        "BLOCK_ONLY_HIGH",
        "BLOCK_NONE",
        "BLOCK_MOST",
        "BLOCK_SOME",
        "BLOCK_FEW",
        "BLOCK_FEWEST",
    ],
    AnyCase,
]
Steps = Annotated[Whole, Field(ge=1, le=75)]


class Source(Message):
    """A picture: either its bytes or its gs:// URI."""

    bytes_base64_encoded: str | None = None
    gcs_uri: GcsUri | None = None
    mime_type: Literal["image/png", "image/jpeg"] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.bytes_base64_encoded is None) == (self.gcs_uri is None):
            raise ValueError("exactly one of bytesBase64Encoded and gcsUri is needed")
        return self


class Wrapped(Message):
    image: Source


class OutputOptions(Message):
    mime_type: Literal["image/png", "image/jpeg"] = "image/png"
    compression_quality: Annotated[Whole, Field(ge=0, le=100)] = 75


class Parameters(Message):
    """The parameters of every model of the family."""

    add_watermark: bool | None = None
    output_options: OutputOptions = OutputOptions()
    storage_uri: GcsUri | None = None
    safety_setting: Safety | None = None
    person_generation: Annotated[Literal["DONT_ALLOW", "ALLOW_ADULT", "ALLOW_ALL"], AnyCase] | None = None
    include_rai_reason: bool = False
    include_safety_attributes: bool = False


class Sampled(Parameters):
    sample_count: Annotated[Whole, Field(ge=1, le=4)] | None = None
    seed: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = None


class Prompted(Sampled):
    negative_prompt: str | None = None
    language: Literal["auto", "en", "zh", "zh-CN", "zh-TW", "hi", "ja", "ko", "pt", "es"] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=500)] | None = None
    aspect_ratio: AspectRatio | None = None


class Generate(Prompted):
    enhance_prompt: bool | None = None
    sample_image_size: Literal["1K", "2K"] | None = None


class EditConfig(Message):
    base_steps: Steps | None = None


class Edit(Prompted):
    edit_mode: (
        Literal[
            "EDIT_MODE_DEFAULT",
            "EDIT_MODE_INPAINT_REMOVAL",
            "EDIT_MODE_INPAINT_INSERTION",
            "EDIT_MODE_BGSWAP",
            "EDIT_MODE_OUTPAINT",
            "EDIT_MODE_CONTROLLED_EDITING",
            "EDIT_MODE_STYLE",
            "EDIT_MODE_PRODUCT_IMAGE",
        ]
        | None
    ) = None
    base_steps: Steps | None = None  # its place in the REST reference
    edit_config: EditConfig | None = None  # its place in google-genai


class UpscaleConfig(Message):
    upscale_factor: Literal["x2", "x3", "x4"]
    enhance_input_image: bool | None = None
    image_preservation_factor: Annotated[float, Field(ge=0, le=1)] | None = None


class Upscale(Parameters):
    upscale_config: UpscaleConfig
    mode: Literal["upscale"] = "upscale"
    sample_count: Annotated[Whole, Field(ge=1, le=1)] = 1


class TryOn(Sampled):
    base_steps: Annotated[Whole, Field(ge=1)] = 32


class Recontext(Sampled):
    enhance_prompt: bool | None = None


class Prompt(Message):
    prompt: Annotated[str, Field(min_length=1)]


class MaskConfig(Message):
    mask_mode: Literal[
        "MASK_MODE_DEFAULT",
        "MASK_MODE_USER_PROVIDED",
        "MASK_MODE_BACKGROUND",
        "MASK_MODE_FOREGROUND",
        "MASK_MODE_SEMANTIC",
    ]
    dilation: Annotated[float, Field(ge=0, le=1)] = 0
    mask_classes: list[Whole] = Field(default=[], max_length=5)


class SubjectConfig(Message):
    subject_type: Literal[
        "SUBJECT_TYPE_DEFAULT", "SUBJECT_TYPE_PERSON", "SUBJECT_TYPE_ANIMAL", "SUBJECT_TYPE_PRODUCT"
    ]
    subject_description: str | None = None


class StyleConfig(Message):
    style_description: str | None = None


class ControlConfig(Message):
    control_type: Literal[
        "CONTROL_TYPE_DEFAULT",
        "CONTROL_TYPE_CANNY",
        "CONTROL_TYPE_SCRIBBLE",
        "CONTROL_TYPE_FACE_MESH",
        "CONTROL_TYPE_COLOR_SUPERPIXEL",
    ]
    enable_control_image_computation: bool | None = None  # its name in the REST reference
    compute_control: bool | None = None  # its name in google-genai


class Reference(Message):
    """One reference picture, with the settings of its own type only."""

    reference_type: Literal[
        "REFERENCE_TYPE_RAW",
        "REFERENCE_TYPE_MASK",
        "REFERENCE_TYPE_CONTROL",
        "REFERENCE_TYPE_STYLE",
        "REFERENCE_TYPE_SUBJECT",
    ]
    reference_id: Whole
    reference_image: Source | None = None
    mask_image_config: MaskConfig | None = None
    subject_image_config: SubjectConfig | None = None
    style_image_config: StyleConfig | None = None
    control_image_config: ControlConfig | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kind = self.reference_type.removeprefix("REFERENCE_TYPE_")
        configs = {
            "MASK": self.mask_image_config,
            "SUBJECT": self.subject_image_config,
            "STYLE": self.style_image_config,
            "CONTROL": self.control_image_config,
        }
        if others := [of for of, config in configs.items() if config is not None and of != kind]:
            raise ValueError(f"{others[0].lower()}ImageConfig does not belong to {self.reference_type}")
        if kind in ("MASK", "CONTROL") and configs[kind] is None:
            raise ValueError(f"{kind.lower()}ImageConfig is needed")
        mask = self.mask_image_config
        if mask and mask.mask_mode == "MASK_MODE_SEMANTIC" and not mask.mask_classes:
            raise ValueError("maskClasses is needed for MASK_MODE_SEMANTIC")
        computed = mask and mask.mask_mode != "MASK_MODE_USER_PROVIDED"
        if self.reference_image is None and not computed:
            raise ValueError("referenceImage is needed")
        return self


class Editing(Message):
    prompt: str = ""
    reference_images: Annotated[list[Reference], Field(min_length=1, max_length=4)]


class Upscaling(Message):
    image: Source
    prompt: str = ""


class Dressing(Message):
    person_image: Wrapped
    product_images: Annotated[list[Wrapped], Field(min_length=1, max_length=3)]


class Placing(Message):
    prompt: str = ""
    product_images: Annotated[list[Wrapped], Field(min_length=1, max_length=3)]


I = TypeVar("I", bound=Message)  # noqa: E741
P = TypeVar("P", bound=Message)


class Body(Message, Generic[I, P]):
    instances: Annotated[list[I], Field(min_length=1, max_length=1)]
    parameters: P
    labels: dict[str, str] = Field(default={})
