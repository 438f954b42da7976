"""The `:generateContent` family: Gemini models that answer with a picture. Rules and answers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from app.contract.models import Model
from app.emulator import painter, retouch
from app.emulator.calls import Json
from app.emulator.objects import Objects
from app.emulator.trouble import Trouble
from app.emulator.vertex.wire import (
    BLOCKED_OUTPUT,
    BLOCKED_PROMPT,
    MEBIBYTE,
    AnyCase,
    GcsUri,
    Message,
    Whole,
    decode_base64,
    encode_base64,
    fetch,
    filled,
    invalid,
    open_picture,
    read,
    store,
)

MAX_INLINE_BYTES = 7 * MEBIBYTE
MAX_STORED_BYTES = 30 * MEBIBYTE
MAX_INPUTS = 14
_SIZES = {
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:2": (1248, 832),
    "3:4": (864, 1184),
    "4:3": (1184, 864),
    "4:5": (896, 1152),
    "5:4": (1152, 896),
    "9:16": (768, 1344),
    "16:9": (1344, 768),
    "21:9": (1536, 672),
}
_LONG_SIZES = {"1:4": (512, 2048), "4:1": (2048, 512), "1:8": (384, 3072), "8:1": (3072, 384)}
_SCALES = {"512": 0.5, "1K": 1, "2K": 2, "4K": 4}


# ── What a request may say ───────────────────────────────────────────────────────────────────────────


class _Blob(Message):
    mime_type: Literal["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"]
    data: str


class _FileData(Message):
    mime_type: str | None = None
    file_uri: GcsUri


class _Part(Message):
    text: str | None = None
    inline_data: _Blob | None = None
    file_data: _FileData | None = None
    thought: bool = False
    thought_signature: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.text, self.inline_data, self.file_data)) != 1:
            raise ValueError("exactly one of text, inlineData and fileData is needed")
        return self


class _Content(Message):
    role: Literal["user", "model"] | None = None
    parts: Annotated[list[_Part], Field(min_length=1)]


class _ImageOutputOptions(Message):
    mime_type: Literal["image/png", "image/jpeg"] = "image/png"
    compression_quality: Annotated[Whole, Field(ge=0, le=100)] = 75


class _ImageConfig(Message):
    aspect_ratio: str | None = None
    image_size: Literal["512", "1K", "2K", "4K"] | None = None
    person_generation: Annotated[Literal["ALLOW_NONE", "ALLOW_ADULT", "ALLOW_ALL"], AnyCase] | None = None
    prominent_people: str | None = None
    image_output_options: _ImageOutputOptions = _ImageOutputOptions()


class _ThinkingConfig(Message):
    include_thoughts: bool | None = None
    thinking_budget: Whole | None = None
    thinking_level: Annotated[Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"], AnyCase] | None = None


class _GenerationConfig(Message):
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
    image_config: _ImageConfig = _ImageConfig()
    thinking_config: _ThinkingConfig | None = None


class _SafetySetting(Message):
    category: Annotated[str, Field(pattern="^HARM_CATEGORY_")]
    threshold: Annotated[
        Literal["BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"],
        AnyCase,
    ]
    method: Literal["SEVERITY", "PROBABILITY"] | None = None


class _OutputConfig(Message):
    output_uri_prefix: GcsUri


class _Request(Message):
    contents: list[_Content] = Field(default=[])
    generation_config: _GenerationConfig = _GenerationConfig()
    system_instruction: _Content | None = None
    safety_settings: list[_SafetySetting] = Field(default=[])
    output_config: _OutputConfig | None = None
    labels: dict[str, str] = Field(default={})

    @property
    def parts(self) -> list[_Part]:
        return [part for content in self.contents for part in content.parts]

    @property
    def prompt(self) -> str:
        return "\n".join(part.text for part in self.parts if part.text)


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────


def generate(
    model: Model, body: Json, objects: Objects, *, unseeded: int, trouble: Trouble | None
) -> tuple[Json, int]:
    """The answer to a `:generateContent` call and the number of pictures it charges for. Raises Refusal.

    `unseeded` takes the place of the seed in a request without one. Of the troubles, those of the safety
    filter and the empty answers are played here; "every second picture" is every second call.
    """
    request = read(_Request, body)
    _check(model, request)
    sources = _open_inputs(objects, request.parts)
    kind, arg = (trouble.kind, trouble.arg) if trouble else (None, None)
    if kind == "blocked-prompt":
        message = f"The prompt was blocked. Support codes: {arg or BLOCKED_PROMPT}"
        feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": message}
        return {"promptFeedback": feedback, **_usage(model, request, 0)}, 0
    if kind == "blocked-output" or (kind == "half-blocked" and trouble and trouble.turn % 2):
        message = f"The generated image was blocked. Support codes: {arg or BLOCKED_OUTPUT}"
        return _answer(model, request, None, finishReason="IMAGE_SAFETY", finishMessage=message), 0
    if kind == "empty":
        return _answer(model, request, []), 0
    if kind == "text-only" or "IMAGE" not in request.generation_config.response_modalities:
        return _answer(model, request, [{"text": "I cannot draw that. Shall I describe it?"}]), 0
    seed = request.generation_config.seed
    picture = _draw(model, request, sources, unseeded if seed is None else seed)
    return _answer(model, request, _show(model, request, picture, objects)), 1


def _check(model: Model, request: _Request) -> None:
    if not request.contents:
        raise invalid("at least one contents field is required", "contents")
    config = request.generation_config
    if config.candidate_count not in (None, 1):
        raise invalid(
            "Multiple candidates is not enabled for this model", "generation_config.candidate_count"
        )
    size, field = config.image_config.image_size, "generation_config.image_config.image_size"
    if size and model.id == "gemini-2.5-flash-image":
        raise invalid("image_size is not supported by this model.", field)
    if (size in ("2K", "4K") and size not in model.capabilities) or (
        size == "512" and model.id != "gemini-3.1-flash-image"
    ):
        raise invalid(f"image_size {size} is not supported by this model.", field)
    ratio = config.image_config.aspect_ratio
    if ratio is not None and ratio not in _ratios(model):
        raise invalid("aspect_ratio is not supported.", "generation_config.image_config.aspect_ratio")


def _ratios(model: Model) -> dict[str, tuple[int, int]]:
    long = model.id in ("gemini-3.1-flash-image", "gemini-nano-banana-2.1")
    return _SIZES | _LONG_SIZES if long else _SIZES


def _open_inputs(objects: Objects, parts: Sequence[_Part]) -> list[Image.Image]:
    pictures = []
    for at, part in enumerate(parts):
        field = f"contents.parts[{at}]"
        if part.inline_data:
            data, limit = decode_base64(part.inline_data.data, field), MAX_INLINE_BYTES
        elif part.file_data:
            data, limit = fetch(objects, part.file_data.file_uri, field), MAX_STORED_BYTES
        else:
            continue
        pictures.append(open_picture(data, field, limit=limit, formats=("PNG", "JPEG", "WEBP")))
    if len(pictures) > MAX_INPUTS:
        raise invalid(f"At most {MAX_INPUTS} images are supported.", "contents")
    return pictures


def _draw(model: Model, request: _Request, sources: Sequence[Image.Image], seed: int) -> Image.Image:
    """A picture of the asked shape; of about the first input's shape when there is one and none is asked.

    With inputs, the whole first one is painted over and the others are put into it, unless the words ask for
    an edit. This family does not support masks: every pixel may change.
    """
    config = request.generation_config.image_config
    sizes = _ratios(model)
    if config.aspect_ratio is None and sources:
        shape = sources[0].width / sources[0].height
        base = min(sizes.values(), key=lambda size: abs(size[0] / size[1] - shape))
    else:
        base = sizes[config.aspect_ratio or "1:1"]
    scale = _SCALES[config.image_size or "1K"]
    size = int(base[0] * scale), int(base[1] * scale)
    if not sources:
        return painter.paint(request.prompt, size, seed=seed)
    edit = _Edit.read(request.parts, sources)
    if edit is None:
        return painter.redraw(sources, request.prompt, size, seed=seed)
    return painter.tint(edit.draw(size, seed), seed, 0.03)


# ── Edits, asked for in words ────────────────────────────────────────────────────────────────────────

_TASKS: dict[str, retouch.Task] = {
    "remove": "removal",
    "erase": "removal",
    "put": "insertion",
    "insert": "insertion",
    "add": "insertion",
    "background": "background",
    "continue": "outpaint",
    "extend": "outpaint",
}
_TASK = re.compile(rf"\bedit\b.*?\b({'|'.join(_TASKS)})\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Edit:
    """An edit that the words ask for: the task, the picture, the area, and what to make there."""

    task: retouch.Task
    original: Image.Image
    mask: Image.Image
    wish: str

    @classmethod
    def read(cls, parts: Sequence[_Part], sources: Sequence[Image.Image]) -> Self | None:
        """Returns None unless the last text contains "edit" and then names a task.

        The mask is the picture after a text that contains "mask"; without one it is guessed.
        """
        words, _, wish = next((part.text for part in reversed(parts) if part.text), "").partition("\n\n")
        named = list(zip(_labels(parts), sources, strict=True))
        originals = [picture for label, picture in named if "mask" not in label.lower()]
        masks = [picture for label, picture in named if "mask" in label.lower()]
        found = _TASK.search(words)
        if found is None or not originals:
            return None
        guessed: Literal["foreground", "background"] = (
            "background" if "background" in words.lower() else "foreground"
        )
        mask = masks[0].convert("L") if masks else painter.guess_mask(originals[0].size, guessed)
        return cls(_TASKS[found[1].lower()], originals[0], mask, wish)

    def draw(self, size: tuple[int, int], seed: int) -> Image.Image:
        original = self.original.convert("RGB").resize(size)
        mask = self.mask.resize(size, Image.Resampling.NEAREST)
        return retouch.edit(self.task, original, mask, self.wish, seed=seed)


def _labels(parts: Sequence[_Part]) -> Iterator[str]:
    """Yields for each picture the text before it."""
    label = ""
    for part in parts:
        if part.text is not None:
            label = part.text
        else:
            yield label


def _show(model: Model, request: _Request, picture: Image.Image, objects: Objects) -> list[Json]:
    """Words if wanted, then the picture. The pro models show a draft first, as a thought."""
    options = request.generation_config.image_config.image_output_options
    file = painter.encode(picture, options.mime_type, options.compression_quality)
    parts: list[Json] = []
    if model.id.startswith("gemini-3-pro"):
        draft = painter.encode(picture.resize((64, 64)))
        blob = {"mimeType": "image/png", "data": encode_base64(draft)}
        parts.append({"thought": True, "inlineData": blob})
    if "TEXT" in request.generation_config.response_modalities:
        parts.append({"text": "Here is the picture."})
    if request.output_config is not None:
        [uri] = store(objects, request.output_config.output_uri_prefix, [file], options.mime_type)
        parts.append({"fileData": {"mimeType": options.mime_type, "fileUri": uri}})
    else:
        parts.append({"inlineData": {"mimeType": options.mime_type, "data": encode_base64(file)}})
    return parts


def _answer(model: Model, request: _Request, parts: list[Json] | None, **candidate: str) -> Json:
    """One candidate; without content when `parts` is None."""
    candidate = {"finishReason": "STOP", **candidate}
    content = {} if parts is None else {"content": filled(role="model", parts=parts)}
    return {"candidates": [{**candidate, **content}], **_usage(model, request, 1290 if parts else 0)}


def _usage(model: Model, request: _Request, drawn: int) -> Json:
    asked = len(request.prompt.split())
    counts = filled(promptTokenCount=asked, candidatesTokenCount=drawn, totalTokenCount=asked + drawn)
    return {"usageMetadata": counts, "modelVersion": model.id}
