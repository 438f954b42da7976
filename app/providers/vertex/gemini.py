"""The `:generateContent` image models: a request to a Gemini conversation, an answer to one picture."""

from collections.abc import Iterator
from typing import assert_never

import structlog

from app.contract.errors import InvalidRequest, SafetyBlocked
from app.contract.image import ImageRequest, ImageUpscale, ProductRecontext, TextToImage, VirtualTryOn
from app.contract.models import ImageOperation, Model
from app.contract.prices import Order, Usage, today
from app.contract.references import CustomizeReference, ImageCustomize, ImageEdit, MaskImageConfig
from app.contract.safety import block
from app.pictures.picture import GcsUri, Picture, Source
from app.ports import Call
from app.providers.received import received
from app.providers.vertex.imagen import image_size
from app.providers.vertex.mask_classes import MASK_CLASSES
from app.providers.vertex.shapes import Json, an_object, constant, given, member, objects, text

_log = structlog.get_logger(__name__)

OPERATIONS: tuple[ImageOperation, ...] = (
    "text-to-image",
    "image-edit",
    "image-customize",
    "product-recontext",
)

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


def encode(request: ImageRequest, model: Model, sample: int) -> Json:
    """Returns the body of the call for one sample (from 0): these models make one picture a call.

    Each sample has its own seed. `baseSteps`, `guidanceScale` and `enhancePrompt` have no effect: they tune a
    sampler that these models do not have. Raises InvalidRequest for an operation that they do not know.
    """
    return given(
        contents=[{"role": "user", "parts": [_part(part) for part in _conversation(request, model)]}],
        generationConfig=given(
            responseModalities=["IMAGE"],
            seed=_seed(request, sample),
            imageConfig=_image_config(request, model),
        ),
        safetySettings=_safety_settings(request),
    )


def order(request: ImageRequest, model: Model) -> Order:
    """Returns what the call for one sample is priced by."""
    parts = list(_conversation(request, model))
    texts = [part for part in parts if isinstance(part, str)]
    return Order(
        model.id,
        request.operation,
        today(),
        size=(image_size(request, model) if isinstance(request, TextToImage) else None) or "1K",
        text_bytes=sum(len(text.encode()) for text in texts),
        sources=len(parts) - len(texts),
    )


def _part(part: str | Source) -> Json:
    match part:
        case Picture():
            return {"inlineData": {"mimeType": part.mime_type, "data": part.blob}}
        case GcsUri():
            return {"fileData": {"mimeType": _type_by_name(part), "fileUri": part.uri}}
        case _:
            return {"text": part}


def _seed(request: ImageRequest, sample: int) -> int | None:
    seed: int | None = getattr(request, "seed", None)
    return None if seed is None else (seed + sample) % 2**31


def _image_config(request: ImageRequest, model: Model) -> Json:
    config: Json = {}
    if isinstance(request, TextToImage | ProductRecontext):
        config["personGeneration"] = _PERSONS[request.person_generation]
    if isinstance(request, TextToImage):
        config["aspectRatio"] = request.aspect_ratio
        config["imageSize"] = image_size(request, model)
        if request.output_options.mime_type != "image/png":
            config["imageOutputOptions"] = request.output_options
    return given(**config)


def _safety_settings(request: ImageRequest) -> list[Json] | None:
    if not isinstance(request, TextToImage | ProductRecontext):
        return None
    threshold = request.safety_setting.upper()
    return [{"category": f"HARM_CATEGORY_{harm}", "threshold": threshold} for harm in _HARMS]


def _type_by_name(source: GcsUri) -> str:
    """Returns the type that Gemini requires of a file which the gateway does not read."""
    name = source.uri.lower()
    if name.endswith((".jpg", ".jpeg")):
        return "image/jpeg"
    return "image/webp" if name.endswith(".webp") else "image/png"


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def _conversation(request: ImageRequest, model: Model) -> Iterator[str | Source]:
    """Yields the texts and the pictures of the conversation, in order."""
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
    """Returns what a reference is for, with the number by which the prompt cites it."""
    number = f"[{reference.reference_id}]"
    match reference.reference_type:
        case "REFERENCE_TYPE_SUBJECT":
            subject = reference.subject_image_config
            kind = _SUBJECTS[subject.subject_type] if subject else "subject"
            described = subject and subject.subject_description
            return f"{number} is the {kind} in this picture" + (f": {described}" if described else ".")
        case "REFERENCE_TYPE_CONTROL":
            control = reference.control_image_config
            kind = "photo" if control and control.enable_control_image_computation else "control picture"
            followed = _CONTROLS[control.control_type] if control else "the composition"
            return f"{number} is a {kind}: follow {followed} in it, not its colours or its content."
        case "REFERENCE_TYPE_STYLE":
            style = reference.style_image_config
            named = f" ({style.style_description})" if style and style.style_description else ""
            return f"{number} is a style picture: draw in its style{named}, not its content."


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────


async def decode(answer: object, call: Call) -> Picture:
    """Returns the first picture that is not marked as a thought. Notes the tokens on the call's bill.

    Raises SafetyBlocked if there is no picture, whatever the reason, and UpstreamFailed if it is broken or
    the answer has another shape.
    """
    reply = an_object(answer)
    call.bill.usage = _usage(member(reply, "usageMetadata"))
    candidates = objects(reply, "candidates")
    for candidate in candidates:
        for part in objects(member(candidate, "content"), "parts"):
            data = member(part, "inlineData").get("data")
            if data and not part.get("thought"):
                return await received(data, call)
    feedback = member(reply, "promptFeedback")
    blocked = feedback.get("blockReason")
    _log.info(
        "no picture",
        finish_reasons=[constant(candidate.get("finishReason")) for candidate in candidates],
        blocked=constant(blocked),
    )
    if blocked:
        raise SafetyBlocked(block(text(feedback, "blockReasonMessage")))
    raise SafetyBlocked(block(*(text(candidate, "finishMessage") for candidate in candidates)))


def _usage(counts: Json) -> Usage | None:
    """Returns the tokens that the vendor reports, None if it does not."""
    input, drawn = _count(counts.get("promptTokenCount")), _count(counts.get("candidatesTokenCount"))
    if input is None or drawn is None:
        return None
    thoughts = _count(counts.get("thoughtsTokenCount")) or 0
    images = [
        _count(one.get("tokenCount"))
        for one in objects(counts, "candidatesTokensDetails")
        if one.get("modality") == "IMAGE"
    ]
    if not images or images[0] is None:
        return Usage(input, drawn + thoughts)
    return Usage(input, max(drawn - images[0], 0) + thoughts, images[0])


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
