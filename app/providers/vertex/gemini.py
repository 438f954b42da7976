"""The `:generateContent` image models: a request to a Gemini conversation, an answer to one picture."""

from collections.abc import Iterator
from typing import Any, assert_never

import structlog
from google.cloud.aiplatform_v1 import types

from app.contract.errors import InvalidRequest, SafetyBlocked
from app.contract.image import (
    CustomizeReference,
    ImageCustomize,
    ImageEdit,
    ImageRequest,
    ImageUpscale,
    MaskImageConfig,
    ProductRecontext,
    TextToImage,
    VirtualTryOn,
)
from app.contract.models import Model
from app.contract.pictures import GcsUri, Picture, Source
from app.contract.safety import block
from app.providers.received import picture_of_bytes
from app.providers.vertex.imagen import image_size
from app.providers.vertex.mask_classes import MASK_CLASSES

_log = structlog.get_logger(__name__)

_HARMS = ("HATE_SPEECH", "HARASSMENT", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
_PERSONS = {"dont_allow": "ALLOW_NONE", "allow_adult": "ALLOW_ADULT", "allow_all": "ALLOW_ALL"}

_EDITS = {
    "EDIT_MODE_INPAINT_REMOVAL": "Remove what stands in the white area and fill it with what fits around it.",
    "EDIT_MODE_INPAINT_INSERTION": "Put into the white area what is asked for below.",
    "EDIT_MODE_BGSWAP": "The white area is the background: replace it by what is asked for below.",
    "EDIT_MODE_OUTPAINT": "Continue the picture into the white area, seamlessly.",
}
_SUBJECTS = {
    "SUBJECT_TYPE_PERSON": "person",
    "SUBJECT_TYPE_ANIMAL": "animal",
    "SUBJECT_TYPE_PRODUCT": "product",
    "SUBJECT_TYPE_DEFAULT": "subject",
}
_CONTROLS = {
    "CONTROL_TYPE_FACE_MESH": "the pose and expression of the face",
    "CONTROL_TYPE_CANNY": "the edges and outlines",
    "CONTROL_TYPE_SCRIBBLE": "the lines of the sketch",
}


def encode(request: ImageRequest, model: Model, sample: int) -> types.GenerateContentRequest:
    """The call for one sample (counted from 0): these models make one picture a call, each with its own seed.

    `baseSteps`, `guidanceScale` and `enhancePrompt` tune a sampler that these models do not have: no effect.
    Raises InvalidRequest for a wish that would change the picture and cannot be met.
    """
    if not isinstance(request, ImageCustomize) and request.add_watermark is False:
        raise InvalidRequest(f"addWatermark false is not available with {model.id}")
    message = types.GenerateContentRequest.pb()(
        contents=[{"role": "user", "parts": [_part(part) for part in _told(request, model)]}],
        generation_config={
            "response_modalities": ["IMAGE"],
            "seed": _seed(request, sample),
            "image_config": _image_config(request, model),
        },
        safety_settings=_safety_settings(request),
    )
    return types.GenerateContentRequest.wrap(message)  # type: ignore[no-any-return]


def _part(part: str | Source) -> dict[str, Any]:
    match part:
        case Picture():
            return {"inline_data": {"mime_type": part.mime_type, "data": part.data}}
        case GcsUri():
            return {"file_data": {"mime_type": _type_by_name(part), "file_uri": part.uri}}
        case _:
            return {"text": part}


def _seed(request: ImageRequest, sample: int) -> int | None:
    seed: int | None = getattr(request, "seed", None)
    return None if seed is None else (seed + sample) % 2**31


def _image_config(request: ImageRequest, model: Model) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if isinstance(request, TextToImage | ProductRecontext):
        config["person_generation"] = _PERSONS[request.person_generation]
    if isinstance(request, TextToImage):
        config["aspect_ratio"] = request.aspect_ratio
        config["image_size"] = image_size(request, model)
        if request.output_options.mime_type != "image/png":
            config["image_output_options"] = request.output_options.model_dump()
    return config


def _safety_settings(request: ImageRequest) -> list[dict[str, str]]:
    if not isinstance(request, TextToImage | ProductRecontext):
        return []
    threshold = request.safety_setting.upper()
    return [{"category": f"HARM_CATEGORY_{harm}", "threshold": threshold} for harm in _HARMS]


def _type_by_name(source: GcsUri) -> str:
    """Gemini wants to be told the type of a file we never see."""
    name = source.uri.lower()
    if name.endswith((".jpg", ".jpeg")):
        return "image/jpeg"
    return "image/webp" if name.endswith(".webp") else "image/png"


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def _told(request: ImageRequest, model: Model) -> Iterator[str | Source]:
    """What the model is told and shown, in order."""
    match request:
        case TextToImage():
            yield _avoiding(request.prompt, request.negative_prompt)
        case ImageEdit():
            yield from _edit(request)
        case ImageCustomize():
            for reference in request.reference_images:
                yield _introduce(reference)
                yield reference.bytes_base64_encoded
            yield _avoiding(request.prompt, request.negative_prompt)
        case ProductRecontext():
            yield "These pictures show one product, from one or several sides. Keep it exactly as it is."
            yield from request.product_images
            yield "Show the product in a new scene: " + (request.prompt or "one that suits it.")
        case ImageUpscale() | VirtualTryOn():
            raise InvalidRequest(f"{request.operation} is not available with {model.id}")
        case _:
            assert_never(request)


def _avoiding(prompt: str, negative: str | None) -> str:
    return f"{prompt}\n\nAvoid in the picture: {negative}" if negative else prompt


def _edit(request: ImageEdit) -> Iterator[str | Source]:
    """Yields the original, its mask if that is a picture, and the task.

    The gateway applies such a mask to the answer afterwards. An automatic mask is described in words.
    """
    for reference in request.reference_images:
        if source := reference.bytes_base64_encoded:
            yield "The original:" if reference.reference_type == "REFERENCE_TYPE_RAW" else "The mask:"
            yield source
    task = f"Edit the original where the mask is white. {_EDITS[request.edit_mode]} "
    if automatic := request.automatic_mask:
        task = f"Edit the original. {_EDITS[request.edit_mode]} The white area is {_area(automatic)}. "
    yield (
        f"{task}Leave everything else as it is, and answer with the whole picture in the original's framing."
        + (f"\n\n{request.prompt}" if request.prompt else "")
    )


def _area(mask: MaskImageConfig) -> str:
    match mask.mask_mode:
        case "MASK_MODE_FOREGROUND":
            return "the main subject in the foreground"
        case "MASK_MODE_BACKGROUND":
            return "the background behind the main subject"
        case _:
            names = [MASK_CLASSES[number] for number in mask.mask_classes or ()]
            return "what is one of these: " + ", ".join(names)


def _introduce(reference: CustomizeReference) -> str:
    """What a reference is to be used for, under the number by which the prompt cites it."""
    number = f"[{reference.reference_id}]"
    match reference.reference_type:
        case "REFERENCE_TYPE_SUBJECT":
            subject = reference.subject_image_config
            kind = _SUBJECTS[subject.subject_type] if subject else "subject"
            described = subject and subject.subject_description
            return f"{number} is the {kind} in this picture" + (f": {described}" if described else ".")
        case "REFERENCE_TYPE_CONTROL":
            control = reference.control_image_config
            followed = _CONTROLS[control.control_type] if control else "the composition"
            return f"{number} is a control picture: follow {followed} in it, not its colours or its content."
        case "REFERENCE_TYPE_STYLE":
            style = reference.style_image_config
            named = f" ({style.style_description})" if style and style.style_description else ""
            return f"{number} is a style picture: draw in its style{named}, not its content."


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────


def decode(response: types.GenerateContentResponse) -> Picture:
    """The first picture that is no thought. Raises SafetyBlocked when there is none, whatever the reason."""
    message = types.GenerateContentResponse.pb(response)
    for candidate in message.candidates:
        for part in candidate.content.parts:
            if part.inline_data.data and not part.thought:
                return picture_of_bytes(part.inline_data.data)
    # Enums are open: over gRPC a reason newer than the client arrives as its number.
    finished = [(candidate.finish_reason, candidate.finish_message) for candidate in message.candidates]
    _log.info(
        "no picture",
        finish_reasons=[reason for reason, _ in finished],
        blocked=message.prompt_feedback.block_reason,
    )
    if message.prompt_feedback.block_reason:
        raise SafetyBlocked(block(message.prompt_feedback.block_reason_message))
    raise SafetyBlocked(block(*(text for _, text in finished)))
