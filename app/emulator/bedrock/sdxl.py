"""Stable Diffusion XL 1.0 on Bedrock: what it accepts, and what it returns."""

from typing import Annotated, Literal, Self

from PIL import Image, ImageFilter, ImageOps
from pydantic import Field, model_validator

from app.contract.models import Model
from app.emulator import painter
from app.emulator.bedrock.wire import Body, encode_picture, invalid, open_picture, read
from app.emulator.calls import Json
from app.emulator.trouble import Trouble

SIZES = (
    *((1024, 1024), (1152, 896), (1216, 832), (1344, 768), (1536, 640)),
    *((640, 1536), (768, 1344), (832, 1216), (896, 1152)),
)
_DEFAULT_IMAGE_STRENGTH = 0.35


class _Prompt(Body):
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    weight: float = 1


class _Request(Body):
    text_prompts: Annotated[list[_Prompt], Field(min_length=1)]
    width: int | None = None
    height: int | None = None
    cfg_scale: Annotated[float, Field(ge=0, le=35)] = 7
    steps: Annotated[int, Field(ge=10, le=50)] = 30
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 0
    samples: Literal[1] = 1
    sampler: (
        Literal[
            "DDIM",
            "DDPM",
            "K_DPMPP_2M",
            "K_DPMPP_2S_ANCESTRAL",
            "K_DPM_2",
            "K_DPM_2_ANCESTRAL",
            "K_EULER",
            "K_EULER_ANCESTRAL",
            "K_HEUN",
            "K_LMS",
        ]
        | None
    ) = None
    clip_guidance_preset: Literal[
        "FAST_BLUE", "FAST_GREEN", "NONE", "SIMPLE", "SLOW", "SLOWER", "SLOWEST"
    ] = "NONE"
    style_preset: (
        Literal[
            "3d-model",
            "analog-film",
            "anime",
            "cinematic",
            "comic-book",
            "digital-art",
            "enhance",
            "fantasy-art",
            "isometric",
            "line-art",
            "low-poly",
            "modeling-compound",
            "neon-punk",
            "origami",
            "photographic",
            "pixel-art",
            "tile-texture",
        ]
        | None
    ) = None
    init_image: str | None = None
    init_image_mode: Literal["IMAGE_STRENGTH", "STEP_SCHEDULE"] = "IMAGE_STRENGTH"
    image_strength: Annotated[float, Field(ge=0, le=1)] = _DEFAULT_IMAGE_STRENGTH
    step_schedule_start: Annotated[float, Field(ge=0, le=1)] | None = None
    step_schedule_end: Annotated[float, Field(ge=0, le=1)] | None = None
    mask_source: Literal["MASK_IMAGE_WHITE", "MASK_IMAGE_BLACK", "INIT_IMAGE_ALPHA"] | None = None
    mask_image: str | None = None

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        if self.init_image is None and (self.mask_source or self.mask_image):
            raise ValueError("a mask needs an init_image")
        if (self.mask_source or "").startswith("MASK_IMAGE") != (self.mask_image is not None):
            raise ValueError("mask_source MASK_IMAGE_… and mask_image go together")
        return self


def invoke(model: Model, body: Json, *, unseeded: int, trouble: Trouble | None) -> tuple[Json, int]:
    """Returns the answer and the number of pictures charged. Raises Refusal."""
    request = read(_Request, body)
    if request.width and request.height and (request.width, request.height) not in SIZES:
        sizes = ", ".join(f"{width}x{height}" for width, height in SIZES)
        raise invalid(
            "for stable-diffusion-xl-1024-v0-9 and stable-diffusion-xl-1024-v1-0 the allowed dimensions are "
            f"{sizes}, but we received {request.width}x{request.height}"
        )
    seed = request.seed or unseeded
    match trouble.kind if trouble else None:
        case "empty":
            return {"result": "success", "artifacts": []}, 0
        case "blocked-prompt" | "blocked-output" | "half-blocked" | "text-only":
            blurred = _draw(request, seed).filter(ImageFilter.GaussianBlur(40))
            return _answer(blurred, seed, "CONTENT_FILTERED"), 0
    return _answer(_draw(request, seed), seed, "SUCCESS"), 1


def _answer(picture: Image.Image, seed: int, finish_reason: str) -> Json:
    artifact = {"seed": seed, "base64": encode_picture(picture), "finishReason": finish_reason}
    return {"result": "success", "artifacts": [artifact]}


def _draw(request: _Request, seed: int) -> Image.Image:
    prompt = request.text_prompts[0].text
    size = (request.width or 1024, request.height or 1024)
    if request.init_image is None:
        return painter.paint(prompt, size, seed=seed)
    source = _open(request.init_image)
    if request.width:
        source = ImageOps.fit(source.convert("RGB"), size)
    if request.mask_image is None:
        return painter.mix(source, prompt, request.image_strength, seed)
    mask = _open(request.mask_image).convert("L").resize(source.size)
    if request.mask_source == "MASK_IMAGE_BLACK":
        mask = ImageOps.invert(mask)
    return painter.repaint(source, mask, prompt, seed=seed)


def _open(text: str) -> Image.Image:
    return open_picture(text, sides=range(64, 2049), max_bytes=20_000_000, formats=("PNG", "JPEG"))
