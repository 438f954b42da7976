"""Bedrock's wire: request bodies, error answers, and the pictures inside both."""

from io import BytesIO
from typing import TypeVar

import pybase64
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import JSONResponse, Response

from app.emulator import painter
from app.emulator.calls import Json

MAX_BODY_BYTES = 25_000_000
BLOCKED = (
    "This request has been blocked by our content filters. Our filters automatically flagged this prompt "
    "because it may conflict our AUP or AWS Responsible AI Policy."
)
FILTERED = "All of the generated images have been blocked by our content filters."


class Refusal(Exception):
    """An error answer. `name` is AWS's name of the exception; `retry_after` is in seconds."""

    def __init__(self, status: int, name: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message
        self.retry_after = retry_after

    def response(self) -> Response:
        headers = {"x-amzn-errortype": f"{self.name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:g}"
        return JSONResponse({"message": self.message}, self.status, headers)


def invalid(message: str) -> Refusal:
    return Refusal(400, "ValidationException", message)


class Body(BaseModel):
    """A JSON object with these keys and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


B = TypeVar("B", bound=Body)


def read(kind: type[B], body: Json) -> B:
    """Returns the body as `kind`. Raises Refusal with the message of Bedrock's schema check."""
    try:
        return kind.model_validate(body)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        problem = _violation(errors[0]) if len(errors) == 1 else f"{len(errors)} schema violations found"
        message = f"Malformed input request: {problem}, please reformat your input and try again."
        raise invalid(message) from exc


def _violation(error: ErrorDetails) -> str:
    *parents, name = error["loc"] or ("",)
    path = "/".join(["#", *(str(part) for part in parents)])
    match error["type"]:
        case "extra_forbidden":
            return f"extraneous key [{name}] is not permitted"
        case "missing":
            return f"{path}: required key [{name}] not found"
        case _:
            return f"{path}/{name}: {error['msg']}"


def open_picture(text: str, *, sides: range, max_bytes: int, formats: tuple[str, ...]) -> Image.Image:
    """Opens a picture in plain base64, without `data:` prefix and line breaks. Raises Refusal.

    `sides` are the allowed lengths of a side in pixels, `formats` Pillow's names of the allowed formats.
    """
    try:
        data = pybase64.b64decode(text, validate=True)
        picture = Image.open(BytesIO(data), formats=formats)
        if not (picture.width in sides and picture.height in sides):
            raise invalid(f"Image sides must be {sides.start} to {sides[-1]} pixels long.")
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise invalid("Provided image is not valid base64 of a supported format.") from exc
    if len(data) > max_bytes:
        raise invalid(f"Image size exceeds {max_bytes} bytes.")
    return picture


def encode_picture(image: Image.Image, mime_type: str = "image/png") -> str:
    """Returns the file in base64."""
    return pybase64.b64encode(painter.encode(image, mime_type)).decode("ascii")
