"""What a `:generateContent` request can say: one class per message, each field with its range.

Rules about one message are here; rules about pictures and models are in `gemini.py`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.emulator.vertex.wire import AnyCase, GcsUri, Message, Whole


class Blob(Message):
    mime_type: Literal["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"]
    data: str


class FileData(Message):
    mime_type: str | None = None
    file_uri: GcsUri


class Part(Message):
    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    thought: bool = False
    thought_signature: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.text, self.inline_data, self.file_data)) != 1:
            raise ValueError("exactly one of text, inlineData and fileData is needed")
        return self


class Content(Message):
    role: Literal["user", "model"] | None = None
    parts: Annotated[list[Part], Field(min_length=1)]


class ImageOutputOptions(Message):
    mime_type: Literal["image/png", "image/jpeg"] = "image/png"
    compression_quality: Annotated[Whole, Field(ge=0, le=100)] = 75


class ImageConfig(Message):
    aspect_ratio: str | None = None
    image_size: Literal["512", "1K", "2K", "4K"] | None = None
    person_generation: Annotated[Literal["ALLOW_NONE", "ALLOW_ADULT", "ALLOW_ALL"], AnyCase] | None = None
    prominent_people: str | None = None
    image_output_options: ImageOutputOptions = ImageOutputOptions()


class ThinkingConfig(Message):
    include_thoughts: bool | None = None
    thinking_budget: Whole | None = None
    thinking_level: Annotated[Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"], AnyCase] | None = None


class GenerationConfig(Message):
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: float | None = None
    candidate_count: Whole | None = None
    max_output_tokens: Annotated[Whole, Field(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Annotated[Whole, Field(ge=-(2**31), lt=2**31)] | None = None
    response_modalities: list[Annotated[Literal["TEXT", "IMAGE"], AnyCase]] = Field(
        default=["TEXT", "IMAGE"], min_length=1
    )
    image_config: ImageConfig = ImageConfig()
    thinking_config: ThinkingConfig | None = None


class SafetySetting(Message):
    category: Annotated[str, Field(pattern="^HARM_CATEGORY_")]
    threshold: Annotated[
        Literal["BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"],
        AnyCase,
    ]
    method: Literal["SEVERITY", "PROBABILITY"] | None = None


class OutputConfig(Message):
    output_uri_prefix: GcsUri


class Request(Message):
    contents: list[Content] = Field(default=[])
    generation_config: GenerationConfig = GenerationConfig()
    system_instruction: Content | None = None
    safety_settings: list[SafetySetting] = Field(default=[])
    output_config: OutputConfig | None = None
    labels: dict[str, str] = Field(default={})

    @property
    def parts(self) -> list[Part]:
        return [part for content in self.contents for part in content.parts]

    @property
    def prompt(self) -> str:
        return "\n".join(part.text for part in self.parts if part.text)
