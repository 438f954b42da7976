"""Titan Image Generator v2 and Nova Canvas on Bedrock: what they accept, and what they return."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from PIL import Image, ImageOps
from pydantic import Field, model_validator

from app.contract.models import Model
from app.emulator import painter
from app.emulator.bedrock.wire import BLOCKED, FILTERED, Body, encode_picture, invalid, open_picture, read
from app.emulator.calls import Json
from app.emulator.trouble import Trouble

Size = tuple[int, int]

_LARGE = (
    *((1024, 1024), (768, 768), (768, 1152), (1152, 768), (768, 1280), (1280, 768), (896, 1152)),
    *((1152, 896), (768, 1408), (1408, 768), (640, 1408), (1408, 640), (1152, 640), (1173, 640)),
)
_SMALL = (
    *((512, 512), (384, 576), (576, 384), (384, 640), (640, 384), (448, 576), (576, 448)),
    *((384, 704), (704, 384), (320, 704), (704, 320)),
)
TITAN_SIZES = _LARGE + _SMALL
_MAX_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Rules:
    """The limits in which Titan and Nova differ."""

    characters: int
    """Of a prompt."""
    sides: range
    """Lengths in pixels that a side of an input picture can have."""
    sizes: frozenset[Size] | None = None
    """The sizes of an answer. None: any within Nova's limits, and an edit keeps the size of its input."""


_RULES = {
    "titan": _Rules(512, range(1, 1409), frozenset(TITAN_SIZES)),
    "nova": _Rules(1024, range(320, 4097)),
}

# ── Requests ─────────────────────────────────────────────────────────────────────────────────────────

Text = Annotated[str, Field(min_length=1)]


class _Texts(Body):
    text: Text
    negativeText: Text | None = None


class _TextToImage(_Texts):
    conditionImage: str | None = None
    controlMode: Literal["CANNY_EDGE", "SEGMENTATION"] = "CANNY_EDGE"
    controlStrength: Annotated[float, Field(ge=0, le=1)] = 0.7
    style: (
        Literal[
            "3D_ANIMATED_FAMILY_FILM",
            "DESIGN_SKETCH",
            "FLAT_VECTOR_ILLUSTRATION",
            "GRAPHIC_NOVEL_ILLUSTRATION",
            "MAXIMALISM",
            "MIDCENTURY_RETRO",
            "PHOTOREALISM",
            "SOFT_DIGITAL_PAINTING",
        ]
        | None
    ) = None


class _Variation(Body):
    images: Annotated[list[str], Field(min_length=1, max_length=5)]
    text: Text | None = None
    negativeText: Text | None = None
    similarityStrength: Annotated[float, Field(ge=0.2, le=1)] = 0.7


class _Masked(Body):
    image: str
    negativeText: Text | None = None
    maskPrompt: Text | None = None
    maskImage: str | None = None
    returnMask: bool = False

    @model_validator(mode="after")
    def _one_mask(self) -> Self:
        if (self.maskPrompt is None) == (self.maskImage is None):
            raise ValueError("exactly one of maskPrompt and maskImage is needed")
        return self


class _Inpainting(_Masked):
    text: Text | None = None


class _Outpainting(_Masked):
    text: Text
    outPaintingMode: Literal["DEFAULT", "PRECISE"] = "DEFAULT"


class _Colors(_Texts):
    colors: Annotated[
        list[Annotated[str, Field(pattern="^#[0-9A-Fa-f]{6}$")]], Field(min_length=1, max_length=10)
    ]
    referenceImage: str | None = None


class _BackgroundRemoval(Body):
    image: str


class _Config(Body):
    numberOfImages: Annotated[int, Field(ge=1, le=5)] = 1
    quality: Literal["standard", "premium"] = "standard"
    cfgScale: Annotated[float, Field(ge=1.1, le=10)] = 8
    seed: Annotated[int, Field(ge=0, le=2_147_483_646)] = 42
    width: int | None = None
    height: int | None = None

    @model_validator(mode="after")
    def _both_sides(self) -> Self:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        return self

    @property
    def size(self) -> Size:
        return self.width or 1024, self.height or 1024


class _TextImageTask(Body):
    taskType: Literal["TEXT_IMAGE"]
    textToImageParams: _TextToImage
    imageGenerationConfig: _Config = _Config()


class _VariationTask(Body):
    taskType: Literal["IMAGE_VARIATION"]
    imageVariationParams: _Variation
    imageGenerationConfig: _Config = _Config()


class _InpaintingTask(Body):
    taskType: Literal["INPAINTING"]
    inPaintingParams: _Inpainting
    imageGenerationConfig: _Config = _Config()


class _OutpaintingTask(Body):
    taskType: Literal["OUTPAINTING"]
    outPaintingParams: _Outpainting
    imageGenerationConfig: _Config = _Config()


class _ColorTask(Body):
    taskType: Literal["COLOR_GUIDED_GENERATION"]
    colorGuidedGenerationParams: _Colors
    imageGenerationConfig: _Config = _Config()


class _BackgroundRemovalTask(Body):
    taskType: Literal["BACKGROUND_REMOVAL"]
    backgroundRemovalParams: _BackgroundRemoval


_Task = (
    _TextImageTask | _VariationTask | _InpaintingTask | _OutpaintingTask | _ColorTask | _BackgroundRemovalTask
)
_TASKS: dict[str, type[_Task]] = {
    "TEXT_IMAGE": _TextImageTask,
    "IMAGE_VARIATION": _VariationTask,
    "INPAINTING": _InpaintingTask,
    "OUTPAINTING": _OutpaintingTask,
    "COLOR_GUIDED_GENERATION": _ColorTask,
    "BACKGROUND_REMOVAL": _BackgroundRemovalTask,
}

# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────


def invoke(model: Model, body: Json, *, unseeded: int, trouble: Trouble | None) -> tuple[Json, int]:
    """Returns the answer and the number of pictures charged. Raises Refusal."""
    del unseeded  # these models have a default seed
    rules = _RULES[model.family]
    kind = _TASKS.get(str(body.get("taskType")))
    if kind is None:
        raise invalid("Malformed input request: #/taskType: unknown task, please reformat your input.")
    task: _Task = read(kind, body)
    _check_texts(body, rules)
    _check_size(task, rules)
    match trouble.kind if trouble else None:
        case "blocked-prompt":
            raise invalid(BLOCKED)
        case "blocked-output" | "text-only":
            return {"images": [], "error": FILTERED}, 0
        case "empty":
            return {"images": [], "error": None}, 0
        case "half-blocked":
            kept = [encode_picture(picture) for picture in _draw(task, rules)][::2]
            return {"images": kept, "error": FILTERED}, len(kept)
    pictures = [encode_picture(picture) for picture in _draw(task, rules)]
    return {"images": pictures, "error": None}, len(pictures)


def _check_texts(body: Json, rules: _Rules) -> None:
    params = next(value for key, value in body.items() if key.endswith("Params"))
    for key in ("text", "negativeText", "maskPrompt"):
        if len(params.get(key) or "") > rules.characters:
            raise invalid(
                f"Malformed input request: #/{key}: expected maxLength: {rules.characters}, "
                f"actual: {len(params[key])}, please reformat your input and try again."
            )


def _check_size(task: _Task, rules: _Rules) -> None:
    if isinstance(task, _BackgroundRemovalTask):
        return
    width, height = task.imageGenerationConfig.size
    if rules.sizes is not None:
        legal = (width, height) in rules.sizes
    elif isinstance(task, _InpaintingTask | _OutpaintingTask):
        legal = task.imageGenerationConfig.width is None
    else:
        legal = _within_novas_limits(width, height)
    if not legal:
        raise invalid(f"The provided image size {width}x{height} is not supported by the model.")


def _within_novas_limits(width: int, height: int) -> bool:
    sides = all(320 <= side <= 4096 and side % 16 == 0 for side in (width, height))
    return sides and width * height < 4_194_304 and max(width, height) <= 4 * min(width, height)


def _draw(task: _Task, rules: _Rules) -> list[Image.Image]:
    if isinstance(task, _BackgroundRemovalTask):
        return [_cut_out(_open(task.backgroundRemovalParams.image, rules))]
    config = task.imageGenerationConfig
    return [_sample(task, rules, config.size, config.seed + n) for n in range(config.numberOfImages)]


def _sample(task: _Task, rules: _Rules, size: Size, seed: int) -> Image.Image:
    match task:
        case _VariationTask(imageVariationParams=params):
            source = ImageOps.fit(_open(params.images[0], rules).convert("RGB"), size)
            return painter.mix(source, params.text or "", params.similarityStrength, seed)
        case _InpaintingTask(inPaintingParams=params):
            source = _open(params.image, rules)
            return painter.repaint(source, _marked_area(params, source, rules), params.text or "", seed=seed)
        case _OutpaintingTask(outPaintingParams=outside):
            source = _open(outside.image, rules)
            mask = ImageOps.invert(_marked_area(outside, source, rules))
            return painter.repaint(source, mask, outside.text, seed=seed)
        case _ColorTask(colorGuidedGenerationParams=colors):
            return painter.paint(f"{colors.text} {' '.join(colors.colors)}", size, seed=seed)
        case _TextImageTask(textToImageParams=texts):
            if texts.conditionImage is None:
                return painter.paint(texts.text, size, seed=seed)
            source = ImageOps.fit(_open(texts.conditionImage, rules).convert("RGB"), size)
            return painter.mix(source, texts.text, texts.controlStrength / 2, seed)
    raise AssertionError(f"no drawing for {type(task).__name__}")


def _marked_area(params: _Masked, source: Image.Image, rules: _Rules) -> Image.Image:
    """Returns a mask that is white where the caller's mask is black. A maskPrompt means the foreground."""
    if params.maskImage is None:
        return painter.guess_mask(source.size, "foreground")
    mask = _open(params.maskImage, rules).convert("L")
    if mask.size != source.size:
        raise invalid("The mask image and the image must have the same size.")
    if mask.getextrema() != (0, 255) or any(mask.histogram()[1:255]):
        raise invalid("The mask image must hold pure black and pure white pixels only.")
    return ImageOps.invert(mask)


def _cut_out(source: Image.Image) -> Image.Image:
    picture = painter.mix(source, "", 1, 0)
    picture.putalpha(painter.guess_mask(picture.size, "foreground"))
    return picture


def _open(text: str, rules: _Rules) -> Image.Image:
    return open_picture(text, sides=rules.sides, max_bytes=_MAX_BYTES, formats=("PNG", "JPEG"))
