"""Vertex's wire: requests in proto-JSON, errors as google.rpc.Status, and the pictures inside."""

import time
from collections.abc import Sequence
from io import BytesIO
from typing import Annotated, Any, TypeVar

import pybase64
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import ErrorDetails

from app.emulator.calls import Json
from app.emulator.gcs.objects import Objects, Refused

MAX_PIXELS = 50_000_000
MEBIBYTE = 1024 * 1024
BLOCKED_PROMPT, BLOCKED_OUTPUT = "42876398", "56562880"
"""The default support codes: Other in the prompt, Violence in the output."""


class Refusal(Exception):
    """An error answer. `code` is an HTTP status, `status` the name of a gRPC code.

    `details` are those of google.rpc.Status.
    """

    def __init__(self, code: int, status: str, message: str, details: Sequence[Json] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        self.details = list(details)

    def as_json(self) -> Json:
        error: Json = {"code": self.code, "message": self.message, "status": self.status}
        if self.details:
            error["details"] = self.details
        return {"error": error}


def detail(kind: str, **fields: Any) -> Json:
    """Returns one element of `details`, for example of detail("RetryInfo", retryDelay="7s")."""
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def invalid(message: str, field: str | None = None) -> Refusal:
    """Returns a 400 INVALID_ARGUMENT. `field` is the path of the invalid field."""
    if field is None:
        return Refusal(400, "INVALID_ARGUMENT", message)
    violation = {"field": field, "description": message}
    return Refusal(400, "INVALID_ARGUMENT", message, [detail("BadRequest", fieldViolations=[violation])])


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────────


def _whole(value: Any) -> Any:
    """Returns a whole double as an int: a protobuf Value holds every number as a double."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _any_case(value: Any) -> Any:
    return value.upper().replace("-", "_") if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_whole)]
AnyCase = BeforeValidator(_any_case)
GcsUri = Annotated[str, Field(pattern=r"^gs://[^/]+(/.*)?$")]


class Message(BaseModel):
    """Proto-JSON: a field can be named in lowerCamelCase or snake_case. Unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=to_camel, validate_by_name=True
    )


M = TypeVar("M", bound=Message)


def read(message: type[M], body: Json) -> M:
    """Returns the body as a `message`. Raises Refusal with Google's own messages."""
    try:
        return message.model_validate(body)
    except ValidationError as exc:
        violations = [_violation(error) for error in exc.errors(include_url=False, include_input=False)]
        text = "\n".join(violation["description"] for violation in violations)
        details = [detail("BadRequest", fieldViolations=violations)]
        raise Refusal(400, "INVALID_ARGUMENT", text, details) from exc


def _violation(error: ErrorDetails) -> dict[str, str]:
    path = _path(error["loc"])
    if error["type"] != "extra_forbidden":
        return {"field": path, "description": f"Invalid value at '{path}': {error['msg']}"}
    parent, name = _path(error["loc"][:-1]), error["loc"][-1]
    where = f" at '{parent}'" if parent else ""
    text = f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
    return {"field": parent, "description": text}


def _path(location: Sequence[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{to_snake(part)}" for part in location)
    return "".join(parts).removeprefix(".")


def filled(**fields: Any) -> Json:
    """Returns the fields that proto-JSON writes: empty lists and zeros are left out."""
    return {name: value for name, value in fields.items() if value not in ([], 0)}


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────


def decode_base64(text: str, field: str) -> bytes:
    """Accepts the standard and the URL-safe alphabet, with or without padding. Raises Refusal."""
    standard = text.replace("-", "+").replace("_", "/")
    try:
        return pybase64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError as exc:
        raise invalid("Base64 decoding failed.", field) from exc


def encode_base64(data: bytes) -> str:
    return pybase64.b64encode(data).decode("ascii")


def open_picture(data: bytes, field: str, *, limit: int | None, formats: tuple[str, ...]) -> Image.Image:
    """Opens a picture. Raises Refusal for more than `limit` bytes, another format, or a broken file.

    `formats` are Pillow's names. `field` is the picture's place in the request, for the error.
    """
    if limit is not None and len(data) > limit:
        raise invalid(f"Image size exceeds the limit of {limit // MEBIBYTE} MB.", field)
    try:
        picture = Image.open(BytesIO(data), formats=formats)
        if picture.width * picture.height > MAX_PIXELS:
            raise invalid("Image has too many pixels.", field)
        picture.load()
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as exc:
        raise invalid("Provided image is not valid.", field) from exc
    return picture


def fetch(objects: Objects, uri: str, field: str) -> bytes:
    """Returns an object's bytes. Raises Refusal: 400 for a bad URI, 404 if the object does not exist."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    try:
        stored = objects.get(bucket, name)
    except Refused as exc:
        raise invalid(f"Invalid Cloud Storage URI: {uri}", field) from exc
    if stored is None:
        raise Refusal(404, "NOT_FOUND", f"The Cloud Storage object was not found: {uri}")
    return stored.data


def store(objects: Objects, prefix: str, pictures: Sequence[bytes], mime_type: str) -> list[str]:
    """Writes pictures into a new folder under a gs:// prefix. Returns their URIs. Raises Refusal."""
    bucket, _, path = prefix.removeprefix("gs://").partition("/")
    folder = "/".join(filter(None, (path.rstrip("/"), str(time.time_ns()))))
    uris = []
    for number, data in enumerate(pictures):
        name = f"{folder}/sample_{number}.{mime_type.removeprefix('image/')}"
        try:
            objects.put(bucket, {"name": name, "contentType": mime_type}, data)
        except Refused as exc:
            raise invalid(f"Cannot write to {prefix}") from exc
        uris.append(f"gs://{bucket}/{name}")
    return uris
