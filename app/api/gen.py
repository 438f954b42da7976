"""The routes /gen and /pro/gen, which do the same."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.body import BodyFormat, Raw, read_raw
from app.api.caller import CurrentCaller
from app.api.examples import GEN_EXAMPLES, GEN_FORM, GREY_PNG
from app.api.exchange import parts
from app.api.gen_errors import GEN, GenRoute
from app.api.openapi.errors import failures
from app.api.openapi.headers import IDEMPOTENCY_KEY, MADE_HEADERS
from app.api.openapi.schemas import schema
from app.api.serving import serve
from app.contract.errors import InvalidRequest, SafetyBlocked
from app.contract.gen import (
    MAX_BODY_BYTES,
    UPLOADS,
    GenAnswer,
    GenRequest,
    Img2Img,
    InvalidGen,
    Metadata,
    Text2Img,
    read_gen,
)
from app.contract.safety import block
from app.contract.words import words
from app.pictures.blob import Blobs
from app.services.made import Made

router = APIRouter(tags=["gen"], route_class=GenRoute)


def _build(raw: Raw, body_format: BodyFormat, blobs: Blobs) -> GenRequest:
    return read_gen(raw, blobs, text=body_format != "json")


_read = partial(read_raw, build=_build, max_bytes=MAX_BODY_BYTES, uploads=UPLOADS)


_ANSWER = {
    "status": "success",
    "image_base64": GREY_PNG,
    "enhanced_prompt": "a beautiful sunset over mountains, highly detailed, soft natural light",
    "model_used": "stability.stable-diffusion-xl-v1",
    "metadata": {
        "model": "stability.stable-diffusion-xl-v1",
        "aspect_ratio": "16:9",
        "dimensions": "1344x768",
        "prompt_enhanced": True,
    },
}
_REFUSALS = {
    "missing prompt": InvalidGen(
        "Missing required parameter: prompt", "The 'prompt' field is required for text2img mode"
    ),
    "init_image's size": InvalidGen(
        "Invalid image dimensions", "Image size must be divisible by 64, but width and height are 1000x1024"
    ),
    "malformed": InvalidRequest("Malformed JSON: unexpected end of data, at position 1"),
    "safety filter": SafetyBlocked(block("")),
}


def _described() -> dict[str, Any]:
    """Returns arguments for the route's decorator: FastAPI cannot describe a body that the route reads."""
    text2img, img2img = Text2Img.model_json_schema(), Img2Img.model_json_schema()
    refusals = failures(*(400, 401, 402, 403, 408, 409, 413, 415, 422, 429, 500, 503, 504), dialect=GEN)
    refusals[400]["content"]["application/json"]["examples"] = {
        name: {"value": GEN.body(error)} for name, error in _REFUSALS.items()
    }
    shown = {name: {"value": example} for name, example in GEN_EXAMPLES.items()}
    made = {"schema": schema(GenAnswer, "serialization"), "example": _ANSWER}
    return {
        "response_class": Response,
        "response_model": None,
        "responses": {
            200: {
                "description": "The picture",
                "content": {"application/json": made},
                "headers": MADE_HEADERS,
            },
            **refusals,
        },
        "openapi_extra": {
            "parameters": [IDEMPOTENCY_KEY],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"oneOf": [text2img, img2img]}, "examples": shown},
                    "multipart/form-data": {"schema": _form(img2img)},
                },
            },
        },
    }


def _form(img2img: dict[str, Any]) -> dict[str, Any]:
    """Returns the form's schema: the fields of img2img without nulls, with examples and a file."""
    fields = img2img["properties"] | {
        "init_image": {
            "type": "string",
            "format": "binary",
            "description": f"{words('Img2Img', 'init_image')} A PNG or JPEG file.",
        },
        "prompt_language": {
            "type": "string",
            "enum": ["vi", "en"],
            "description": words("Img2Img", "prompt_language"),
        },
    }
    shown = {name: fields[name] | {"examples": [value]} for name, value in GEN_FORM.items()}
    return img2img | {"properties": fields | shown}


@router.post("/pro/gen", summary="The same as /gen", **_described())
@router.post("/gen", summary="Make a picture from words, or change one", **_described())
async def gen(request: Request, who: CurrentCaller) -> Response:
    """`mode: "text2img"` makes a picture from words, `mode: "img2img"` changes the picture in `init_image`.

    With `regen_prompt: true` Claude improves the prompt first, and translates it if it is Vietnamese. The
    response holds the picture in base64; with `response_format: "url"` it is stored, and the response holds
    its URL.
    """
    return await serve(request, who, _read, parts(request.scope).gen, _answer)


def _answer(request: GenRequest, made: Made) -> GenAnswer:
    (picture,) = made.pictures
    width, height = picture.size
    return GenAnswer(
        image_base64=None if made.stored else picture,
        image_url=made.stored[0].url if made.stored else None,
        enhanced_prompt=made.prompt,
        model_used=made.model.id,
        metadata=Metadata(
            model=made.model.id,
            requested_model=made.substituted,
            aspect_ratio=request.aspect_ratio,
            dimensions=f"{width}x{height}",
            prompt_enhanced=made.prompt_enhanced,
        ),
    )
