"""The `:generateContent` family: Gemini models that return a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from app.contract.models import Model
from app.emulator import painter
from app.emulator.calls import Json
from app.emulator.gcs.objects import Objects
from app.emulator.trouble import Trouble
from app.emulator.vertex.gemini_edit import Edit
from app.emulator.vertex.gemini_request import Part, Request
from app.emulator.vertex.wire import (
    BLOCKED_OUTPUT,
    BLOCKED_PROMPT,
    MEBIBYTE,
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
_USAGE_PER_PICTURE = 1290  # tokens


@dataclass(frozen=True, slots=True)
class _Traits:
    """What the catalogue does not know about a model."""

    image_size: bool = True
    """Accepts imageSize."""
    half_size: bool = False
    """Accepts imageSize 512."""
    long_ratios: bool = False
    draft: bool = False
    """Sends a draft of the picture first, as a thought."""


_TRAITS = {
    "gemini-2.5-flash-image": _Traits(image_size=False),
    "gemini-3.1-flash-image": _Traits(half_size=True, long_ratios=True),
    "gemini-nano-banana-2.1": _Traits(long_ratios=True),
    "gemini-3-pro-image": _Traits(draft=True),
    "gemini-3-pro-image-preview": _Traits(draft=True),
}
_COMMON_TRAITS = _Traits()


def generate(
    model: Model, body: Json, objects: Objects, *, unseeded: int, trouble: Trouble | None
) -> tuple[Json, int]:
    """Returns the answer to a `:generateContent` call and the number of pictures charged. Raises Refusal.

    `unseeded` is the seed of a request without one. The troubles of the safety filter and the empty answers
    are played here; `half-blocked` blocks every second call.
    """
    request = read(Request, body)
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


def _check(model: Model, request: Request) -> None:
    if not request.contents:
        raise invalid("at least one contents field is required", "contents")
    config = request.generation_config
    if config.candidate_count not in (None, 1):
        raise invalid(
            "Multiple candidates is not enabled for this model", "generation_config.candidate_count"
        )
    _check_size(model, config.image_config.image_size)
    ratio = config.image_config.aspect_ratio
    if ratio is not None and ratio not in _ratios(model):
        raise invalid("aspect_ratio is not supported.", "generation_config.image_config.aspect_ratio")


def _check_size(model: Model, size: str | None) -> None:
    traits, field = _traits(model), "generation_config.image_config.image_size"
    if size and not traits.image_size:
        raise invalid("image_size is not supported by this model.", field)
    too_large = size in ("2K", "4K") and size not in model.capabilities
    if too_large or (size == "512" and not traits.half_size):
        raise invalid(f"image_size {size} is not supported by this model.", field)


def _traits(model: Model) -> _Traits:
    return _TRAITS.get(model.id, _COMMON_TRAITS)


def _ratios(model: Model) -> dict[str, tuple[int, int]]:
    return _SIZES | _LONG_SIZES if _traits(model).long_ratios else _SIZES


def _open_inputs(objects: Objects, parts: Sequence[Part]) -> list[Image.Image]:
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


def _draw(model: Model, request: Request, sources: Sequence[Image.Image], seed: int) -> Image.Image:
    """Draws a picture with the requested aspect ratio, by default about that of the first input.

    The first input is painted over as a whole and the others are put into it, unless the words ask for an
    edit. This family does not support masks: every pixel can change.
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
    edit = Edit.read(request.parts, sources)
    if edit is None:
        return painter.redraw(sources, request.prompt, size, seed=seed)
    return painter.tint(edit.draw(size, seed), seed, 0.03)


def _show(model: Model, request: Request, picture: Image.Image, objects: Objects) -> list[Json]:
    """Returns the parts of the answer: a draft if the model sends one, text if it is wanted, the picture."""
    options = request.generation_config.image_config.image_output_options
    file = painter.encode(picture, options.mime_type, options.compression_quality)
    parts: list[Json] = []
    if _traits(model).draft:
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


def _answer(model: Model, request: Request, parts: list[Json] | None, **candidate: str) -> Json:
    """Returns an answer with one candidate. Without `parts` the candidate has no content."""
    candidate = {"finishReason": "STOP", **candidate}
    content = {} if parts is None else {"content": filled(role="model", parts=parts)}
    return {
        "candidates": [{**candidate, **content}],
        **_usage(model, request, _USAGE_PER_PICTURE if parts else 0),
    }


def _usage(model: Model, request: Request, drawn: int) -> Json:
    asked = len(request.prompt.split())
    counts = filled(promptTokenCount=asked, candidatesTokenCount=drawn, totalTokenCount=asked + drawn)
    return {"usageMetadata": counts, "modelVersion": model.id}
