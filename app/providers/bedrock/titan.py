"""Titan Image Generator v2 and Nova Canvas on the wire: taskType and params in, images or an error out."""

import secrets
from typing import Any

from pydantic import BaseModel

from app.contract.errors import SafetyBlocked
from app.contract.gen import INIT_IMAGE_SIZES, AspectRatio, GenRequest, Img2Img
from app.contract.safety import block
from app.pictures.picture import Picture
from app.pictures.pixels import fit, lighten, limit, transcode
from app.ports import Call
from app.providers.bedrock.answer import pictures_of, refused

Sizes = dict[AspectRatio, tuple[int, int]]

# Titan draws sizes of a fixed table: it has AWS's own 16:9, and no 9:16 at all.
TITAN_SIZES: Sizes = {
    "1:1": (1024, 1024),
    "16:9": (1173, 640),
    "9:16": (768, 1408),
    "3:2": (1152, 768),
    "3:5": (768, 1280),
}
# Nova Canvas takes any sides that 16 divides.
NOVA_SIZES: Sizes = TITAN_SIZES | {"16:9": (1280, 720), "9:16": (720, 1280)}

_SOURCE_SIDE = 1408
_SOURCE_BYTES = 5_000_000
_LEAST_SIMILARITY = 0.2
_SEEDS = 2_147_483_647


def encode(request: GenRequest, *, sizes: Sizes) -> dict[str, Any]:
    """Returns the body of InvokeModel. Slow when there is a picture. `sizes`: those that the model draws.

    The seed is drawn here: without one, the vendor always takes the same.
    """
    width, height = sizes[request.aspect_ratio]
    return _task(request) | {
        "imageGenerationConfig": {
            "numberOfImages": 1,
            "quality": "standard",
            "width": width,
            "height": height,
            "cfgScale": 8.0,
            "seed": secrets.randbelow(_SEEDS),
        }
    }


def _task(request: GenRequest) -> dict[str, Any]:
    texts = {"text": request.prompt}
    if request.negative_prompt.strip():
        texts["negativeText"] = request.negative_prompt
    if not isinstance(request, Img2Img):
        return {"taskType": "TEXT_IMAGE", "textToImageParams": texts}
    source = {
        "images": [_source(request).blob],
        "similarityStrength": max(_LEAST_SIMILARITY, request.similarity_strength),
    }
    return {"taskType": "IMAGE_VARIATION", "imageVariationParams": texts | source}


def _source(request: Img2Img) -> Picture:
    """Returns the init_image with sides of at most 1408 pixels, at most 5 MB, and opaque."""
    picture, size = request.init_image, INIT_IMAGE_SIZES[request.aspect_ratio]
    if request.auto_resize and picture.size != size:
        small = fit(picture, size)
    else:
        small = limit(picture, _SOURCE_SIDE)
    if small.mime_type == "image/png" and small.blob.head(26)[25] in (4, 6):  # the colour type: with alpha
        small = transcode(small, "image/jpeg", 95)
    return lighten(small, _SOURCE_BYTES, keep_size=True)


class _Answer(BaseModel):
    images: list[object] | None = None
    error: str | None = None


async def decode(answer: object, call: Call) -> tuple[Picture, ...]:
    """Returns the pictures of an answer.

    Raises SafetyBlocked and BrokenPicture, and ValueError if the answer has another shape.
    """
    found = _Answer.model_validate(answer)
    if found.images:
        return await pictures_of(found.images, call)
    if found.error:
        raise refused("The content filter refused the picture", "output")
    raise SafetyBlocked(block())
