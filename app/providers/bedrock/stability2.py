"""Stable Image Core, Ultra and Stable Diffusion 3.5 on the wire: a flat body in, images or a reason out."""

from typing import Any

from pydantic import BaseModel

from app.contract.errors import SafetyBlocked, UpstreamFailed
from app.contract.gen import AspectRatio, GenRequest, Img2Img
from app.contract.safety import block
from app.pictures.picture import Picture
from app.pictures.pixels import fit
from app.ports import Call
from app.providers.bedrock.answer import pictures_of, refused

# There is no 3:5; 9:16 is nearest.
_RATIOS: dict[AspectRatio, str] = {"1:1": "1:1", "16:9": "16:9", "9:16": "9:16", "3:2": "3:2", "3:5": "9:16"}

# The answer has the shape of the source, so the source is given the wanted shape.
_SOURCE_SIZES: dict[AspectRatio, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "9:16": (768, 1344),
    "3:2": (1152, 768),
    "3:5": (768, 1280),
}


def encode_sd3(request: GenRequest) -> dict[str, Any]:
    """As `encode`. Stable Diffusion 3.5 does both tasks, and a field tells them apart."""
    mode = {"mode": "image-to-image"} if isinstance(request, Img2Img) else {}
    return encode(request) | mode


def encode(request: GenRequest) -> dict[str, Any]:
    """Returns the body of InvokeModel. Slow when there is a picture."""
    body: dict[str, Any] = {"prompt": request.prompt, "output_format": "png"}
    if request.negative_prompt.strip():
        body["negative_prompt"] = request.negative_prompt
    if not isinstance(request, Img2Img):
        return body | {"aspect_ratio": _RATIOS[request.aspect_ratio]}
    source, size = request.init_image, _SOURCE_SIZES[request.aspect_ratio]
    body["image"] = (source if source.size == size else fit(source, size)).blob
    body["strength"] = round(1 - request.similarity_strength, 4)  # 0 returns the picture, 1 ignores it
    return body


class _Answer(BaseModel):
    images: list[object] = []
    finish_reasons: list[str | None] = []


async def decode(answer: object, call: Call) -> tuple[Picture, ...]:
    """Returns the pictures of an answer.

    Raises SafetyBlocked and UpstreamFailed, and ValueError if the answer has another shape.
    """
    found = _Answer.model_validate(answer)
    match next(filter(None, found.finish_reasons), None):
        case "Filter reason: prompt":
            raise refused("The content filter refused the prompt", "prompt")
        case "Filter reason: input image":
            raise refused("The content filter refused the init_image", "prompt")
        case str(reason) if reason.startswith("Filter reason"):
            raise refused("The content filter refused the picture", "output")
        case str():
            raise UpstreamFailed("The model did not finish the picture")
    if not found.images:
        raise SafetyBlocked(block())
    return await pictures_of(found.images, call)
