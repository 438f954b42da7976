"""Stable Image Core, Ultra and Stable Diffusion 3.5 on Bedrock: what they accept, and what they return."""

from typing import Annotated, Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from app.contract.models import Model
from app.emulator import painter
from app.emulator.bedrock.wire import Body, encode_picture, open_picture, read
from app.emulator.calls import Json
from app.emulator.trouble import Trouble

# In pixels. The vendor documents the ratios only; these sizes have sides of 640 to 1536.
_SIZES = {
    "16:9": (1344, 768),
    "1:1": (1024, 1024),
    "21:9": (1536, 640),
    "2:3": (832, 1216),
    "3:2": (1216, 832),
    "4:5": (896, 1088),
    "5:4": (1088, 896),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
}
Ratio = Literal["16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"]
Text = Annotated[str, Field(max_length=10_000)]


class _Common(Body):
    prompt: Annotated[Text, Field(min_length=1)]
    negative_prompt: Text = ""
    aspect_ratio: Ratio | None = None


class _Core(_Common):
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 0
    output_format: Literal["png", "jpeg"] = "png"


class _Ultra(_Common):
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 0
    output_format: Literal["png", "jpeg"] = "png"
    mode: Literal["text-to-image"] = "text-to-image"
    image: str | None = None
    strength: Annotated[float, Field(ge=0, le=1)] = 0.35

    @model_validator(mode="after")
    def _image_or_ratio(self) -> Self:
        if self.image is not None and self.aspect_ratio is not None:
            raise ValueError("aspect_ratio is for text-to-image only")
        return self


class _Sd35(_Common):
    seed: Annotated[int, Field(ge=0, le=4_294_967_294)] = 0
    output_format: Literal["png", "jpeg", "webp"] = "png"
    mode: Literal["text-to-image", "image-to-image"] = "text-to-image"
    image: str | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _fits_the_mode(self) -> Self:
        if self.mode == "image-to-image":
            if self.image is None or self.strength is None:
                raise ValueError("image and strength are required for image-to-image")
            if self.aspect_ratio is not None:
                raise ValueError("aspect_ratio is for text-to-image only")
        elif self.image is not None or self.strength is not None:
            raise ValueError("image and strength are for image-to-image only")
        return self


def invoke(model: Model, body: Json, *, unseeded: int, trouble: Trouble | None) -> tuple[Json, int]:
    """Returns the answer and the number of pictures charged. Raises Refusal."""
    request: _Core | _Ultra | _Sd35 = read(_request_type(model), body)
    seed = request.seed or unseeded
    match trouble.kind if trouble else None:
        case "blocked-prompt":
            return {"finish_reasons": ["Filter reason: prompt"]}, 0
        case "blocked-output" | "half-blocked" | "text-only":
            return {"seeds": [seed], "finish_reasons": ["Filter reason: output image"], "images": []}, 0
        case "empty":
            return {"seeds": [seed], "finish_reasons": [None], "images": []}, 0
    picture = encode_picture(_draw(request, seed), f"image/{request.output_format}")
    return {"seeds": [seed], "finish_reasons": [None], "images": [picture]}, 1


def _request_type(model: Model) -> type[_Core | _Ultra | _Sd35]:
    if model.family == "sd3":
        return _Sd35
    return _Ultra if "img2img" in model.operations else _Core


def _draw(request: _Core | _Ultra | _Sd35, seed: int) -> Image.Image:
    if isinstance(request, _Core) or request.image is None:
        return painter.paint(request.prompt, _SIZES[request.aspect_ratio or "1:1"], seed=seed)
    formats = ("PNG", "JPEG", "WEBP")
    source = open_picture(request.image, sides=range(64, 4097), max_bytes=20_000_000, formats=formats)
    return painter.mix(source, request.prompt, 1 - (request.strength or 0), seed)
