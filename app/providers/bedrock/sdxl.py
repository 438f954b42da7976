"""Stable Diffusion XL 1.0 on the wire: text_prompts in, artifacts out."""

from typing import Any

from pydantic import BaseModel

from app.contract.errors import SafetyBlocked, UpstreamFailed
from app.contract.gen import AspectRatio, GenRequest
from app.contract.safety import block
from app.pictures.picture import Picture
from app.ports import Call
from app.providers.bedrock.answer import pictures_of, refused

# The model draws nine sizes. 1024x576 and 576x1024 of the gateway's document are not among them.
_SIZES: dict[AspectRatio, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "9:16": (768, 1344),
    "3:2": (1216, 832),
    "3:5": (768, 1344),
}


def encode(request: GenRequest) -> dict[str, Any]:
    """Returns the body of InvokeModel for a Text2Img: the model cannot do img2img."""
    prompts = [{"text": request.prompt, "weight": 1.0}]
    if request.negative_prompt.strip():
        prompts.append({"text": request.negative_prompt, "weight": -1.0})
    width, height = _SIZES[request.aspect_ratio]
    return {
        "text_prompts": prompts,
        "width": width,
        "height": height,
        "cfg_scale": 7,
        "steps": 30,
        "samples": 1,
    }


class _Artifact(BaseModel):
    base64: object = None
    finishReason: str


class _Answer(BaseModel):
    artifacts: list[_Artifact] = []


async def decode(answer: object, call: Call) -> tuple[Picture, ...]:
    """Returns the pictures of an answer. A filtered artifact is refused: it holds a blurred picture.

    Raises SafetyBlocked and UpstreamFailed, and ValueError if the answer has another shape.
    """
    artifacts = _Answer.model_validate(answer).artifacts
    if not artifacts:
        raise SafetyBlocked(block())
    if any(artifact.finishReason == "CONTENT_FILTERED" for artifact in artifacts):
        raise refused("The content filter refused the picture", "output")
    if any(artifact.finishReason != "SUCCESS" for artifact in artifacts):
        raise UpstreamFailed("The model did not finish the picture")
    return await pictures_of((artifact.base64 for artifact in artifacts), call)
