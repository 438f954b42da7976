"""The request of /gen (text2img or img2img) with the document's rules and sentences, and its answer.

Names are snake_case in JSON too. Unknown fields are ignored.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from app.contract.answer import Base64Picture
from app.contract.errors import InvalidRequest
from app.contract.form_texts import flag_from_text, number_from_text
from app.contract.models import Model
from app.contract.words import Described
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge, blob_of_base64, picture

MAX_BODY_BYTES = 10 * 1024 * 1024
UPLOADS = {"init_image": 1}
"""Form fields that take files, and how many each."""

AspectRatio = Literal["1:1", "16:9", "9:16", "3:2", "3:5"]

MAX_PROMPT_CHARACTERS = 10_000
"""The longest prompt of any model. For other models the prompt is cut (`fit_words`)."""

INIT_IMAGE_SIZES: dict[AspectRatio, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "16:9": (1216, 640),
    "9:16": (640, 1216),
    "3:2": (1152, 768),
    "3:5": (768, 1280),
}
"""The document's table: width and height of an init_image for each ratio. `auto_resize` makes them."""


class InvalidGen(InvalidRequest):
    """The request breaks a rule of /gen. `error` is the document's sentence, `details` explains it."""

    def __init__(self, error: str, details: str) -> None:
        super().__init__(error)
        self.error = error
        self.details = details


_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def _read_text(value: object) -> object:
    if isinstance(value, str) and _NOT_TEXT.search(value):
        raise PydanticCustomError("not_text", "must not contain null characters or lone surrogates")
    return value


def _read_prompt(value: object) -> object:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise PydanticCustomError("missing", "Field required")
    return _read_text(value)


def _read_init_image(value: object) -> Picture:
    if isinstance(value, Picture):
        return value
    if value is None or value == "" or (isinstance(value, Blob) and not value.length):
        raise PydanticCustomError("missing", "Field required")
    if not isinstance(value, str | Blob):
        raise PydanticCustomError(
            "picture", "The 'init_image' field must be a base64 encoded PNG or JPEG image"
        )
    try:
        if isinstance(value, str):
            raise NotAPicture("not base64")
        found = picture(value)
    except PictureTooLarge as exc:
        raise PydanticCustomError("too_large", "The 'init_image' field is too large") from exc
    except NotAPicture as exc:
        raise PydanticCustomError("picture", "The 'init_image' field must be a PNG or JPEG image") from exc
    if found.mime_type not in ("image/png", "image/jpeg"):
        raise PydanticCustomError("picture", "The 'init_image' field must be a PNG or JPEG image")
    return found


Text = Annotated[
    str,
    BeforeValidator(_read_text),
    Field(max_length=MAX_PROMPT_CHARACTERS, json_schema_extra={"pattern": "^[^\\x00]*$"}),
]
Prompt = Annotated[
    str,
    BeforeValidator(_read_prompt),
    Field(max_length=MAX_PROMPT_CHARACTERS, json_schema_extra={"pattern": "^[^\\x00]*[^\\s\\x00][^\\x00]*$"}),
]

InitImage = Annotated[
    Picture,
    BeforeValidator(_read_init_image),
    WithJsonSchema(
        {
            "type": "string",
            "format": "init-image",
            "description": "A PNG or JPEG image in base64 or as a data: URI.",
        }
    ),
]


class _Gen(Described):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", arbitrary_types_allowed=True)

    prompt: Prompt
    negative_prompt: Text = ""
    regen_prompt: bool = False
    prompt_language: Literal["vi", "en"] | None = None
    aspect_ratio: AspectRatio = "1:1"
    response_format: Annotated[
        Literal["b64_json", "url"],
        # The second spelling is that of the image routes.
        Field(validation_alias=AliasChoices("response_format", "responseFormat")),
    ] = "b64_json"

    @model_validator(mode="before")
    @classmethod
    def _one_response_format(cls, values: dict[str, object]) -> dict[str, object]:
        given = [values[name] for name in ("response_format", "responseFormat") if name in values]
        if len(given) == 2 and given[0] != given[1]:
            raise PydanticCustomError(
                "two_spellings",
                "The 'responseFormat' field must not differ from 'response_format': they are the same field",
            )
        return values


class Text2Img(_Gen):
    """Make a picture from a text."""

    mode: Literal["text2img"]


class Img2Img(_Gen):
    """Change a picture as the prompt says. `similarity_strength` 1 keeps the picture, 0 ignores it.

    With `auto_resize` the picture can have any size, and is scaled and cut to the document's table.
    """

    mode: Literal["img2img"]
    init_image: InitImage
    similarity_strength: float = Field(0.5, ge=0, le=1, allow_inf_nan=False)
    auto_resize: bool = False

    @model_validator(mode="after")
    def _legal_size(self) -> Self:
        width, height = self.init_image.size
        if self.auto_resize:
            return self
        if not all(512 <= side <= 2048 for side in (width, height)):
            raise PydanticCustomError(
                "size", f"Image width and height must be within 512-2048 pixels, but are {width}x{height}"
            )
        if width % 64 or height % 64:
            raise PydanticCustomError(
                "size", f"Image size must be divisible by 64, but width and height are {width}x{height}"
            )
        return self


GenRequest = Text2Img | Img2Img

GEN_REQUEST: TypeAdapter[GenRequest] = TypeAdapter(Annotated[GenRequest, Field(discriminator="mode")])


def refusal(request: GenRequest, model: Model) -> InvalidGen | None:
    """Returns why this model cannot serve the request, or None if it can. A long prompt is cut, not
    refused."""
    if request.mode not in model.operations:
        return InvalidGen("Invalid mode", f"The model {model.id} does not do {request.mode}")
    limit = model.prompt_characters
    if limit and len(request.negative_prompt) > limit:
        return InvalidGen(
            "Invalid negative_prompt",
            f"The 'negative_prompt' field must be at most {limit} characters for the model {model.id}",
        )
    return None


def read_gen(values: Any, blobs: Blobs, *, text: bool) -> GenRequest:
    """Build a request of /gen from parsed JSON or a parsed form (`text`: numbers and flags come as text).

    Raises InvalidGen for the first broken rule.
    """
    if isinstance(values, dict) and isinstance(image := values.get("init_image"), str) and image:
        with suppress(NotAPicture):
            values = {**values, "init_image": blob_of_base64(image, blobs)}
    try:
        return GEN_REQUEST.validate_python(_from_texts(values) if text else values)
    except ValidationError as exc:
        raise _sentence(exc.errors(include_url=False, include_input=False)[0]) from exc


def _from_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a form's fields with the numbers and flags that their texts stand for."""
    return {
        name: _from_text(name, value) if isinstance(value, str) else value for name, value in values.items()
    }


def _from_text(name: str, text: str) -> str | float | bool:
    """Returns the text itself if it is neither: the field then refuses it.

    Flags are read in any case, because clients in Python write "True". The image endpoints refuse that, and
    read a blank text as 0, because Nest did (tests/recordings/nest); here it would turn a forgotten strength
    into 0.
    """
    field = Img2Img.model_fields.get(name)
    if field and field.annotation is bool:
        return flag_from_text(text.lower())
    if field and field.annotation is float:
        return number_from_text(text)
    return text


_RESPONSE_FORMATS = 'must be "b64_json" or "url"'
_RULES = {
    "prompt": f"must be a valid text of at most {MAX_PROMPT_CHARACTERS} characters",
    "negative_prompt": f"must be a valid text of at most {MAX_PROMPT_CHARACTERS} characters",
    "regen_prompt": "must be true or false",
    "prompt_language": 'must be "vi" or "en"',
    "aspect_ratio": 'must be one of "1:1", "16:9", "9:16", "3:2", "3:5"',
    "response_format": _RESPONSE_FORMATS,
    "responseFormat": _RESPONSE_FORMATS,
    "similarity_strength": "must be a number from 0.0 to 1.0",
    "auto_resize": "must be true or false",
}


def _sentence(problem: ErrorDetails) -> InvalidGen:
    mode, field = (*problem["loc"], "", "")[:2]
    match problem["type"]:
        case "missing":
            return InvalidGen(
                f"Missing required parameter: {field}", f"The '{field}' field is required for {mode} mode"
            )
        case "two_spellings":
            return InvalidGen("Invalid responseFormat", problem["msg"])
        case "too_large":
            return InvalidGen("Image too large", problem["msg"])
        case "size":
            return InvalidGen("Invalid image dimensions", problem["msg"])
        case "picture":
            return InvalidGen("Invalid init_image", problem["msg"])
    if field not in _RULES:
        return InvalidGen("Invalid mode", 'The \'mode\' field must be "text2img" or "img2img"')
    return InvalidGen(f"Invalid {field}", f"The '{field}' field {_RULES[str(field)]}")


class Metadata(Described):
    """`model` made the picture; `requested_model` is the document's, if that is another one."""

    model: str
    requested_model: str | None = None
    aspect_ratio: AspectRatio
    dimensions: str
    prompt_enhanced: bool


class GenAnswer(Described):
    """One picture, in base64 or as a URL. `enhanced_prompt` is the prompt that the picture was made from."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    status: Literal["success"] = "success"
    image_base64: Base64Picture | None = None
    image_url: str | None = None
    enhanced_prompt: str
    model_used: str
    metadata: Metadata


def fit_words(text: str, characters: int) -> str:
    """Returns the text without surrounding space, cut after the last whole word that fits."""
    text = text.strip()
    if len(text) <= characters:
        return text
    whole = re.match(rf"(?s:.{{1,{characters}}})(?=\s)", text)
    return whole[0].rstrip() if whole else text[:characters]
