"""The types of fields: texts, flags, numbers and pictures, with marks beside them (docs/validation.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import MaxLen, MinLen
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.contract.form_texts import flag_from_text, number_from_text
from app.contract.models import Operation
from app.pictures.blob import Blob
from app.pictures.picture import GcsUri, NotAPicture, Picture, PictureTooLarge, Source, picture
from app.pictures.pixels import normalise

Raw = Any
"""A value as it arrived: parsed JSON or a parsed form, with a Blob for each long picture."""

_LARGEST_SEED = 2**31 - 1


def broken(sentence: str) -> PydanticCustomError:
    """Returns the error that a validator raises for a broken rule that class-validator did not have.

    `{path}` in the sentence becomes the field's dotted path.
    """
    return PydanticCustomError("sentence", sentence)


def _whole(value: Raw) -> Raw:
    """Returns 2.0 as 2: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def javascript_number(value: Raw) -> Raw:
    """Returns what JavaScript's Number() makes of a text or a flag, as Nest did (tests/recordings/nest).

    Blank text is 0, spaces around a number are ignored, true is 1. Only decimal notation is read, though.
    """
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return number_from_text(value.strip()) if value.strip() else 0
    return value


def _flag(value: Raw) -> Raw:
    return flag_from_text(value) if isinstance(value, str) else value


def _seed_that_vendors_take(seed: int) -> int:
    if not 1 <= seed <= _LARGEST_SEED:
        raise broken(f"{{path}} must be between 1 and {_LARGEST_SEED}")
    return seed


def _read_picture(value: Raw) -> Source:
    if isinstance(value, Picture | GcsUri):
        return value
    if isinstance(value, str) and value.startswith("gs://"):
        return GcsUri(value)
    try:
        if not isinstance(value, Blob):
            raise NotAPicture("not base64")
        return normalise(picture(value))
    except NotAPicture as exc:
        raise broken("{path} must be a PNG, JPEG, WebP or GIF image") from exc
    except PictureTooLarge as exc:
        raise broken("{path} must not be larger than 20 MB or 50 megapixels") from exc


# ── marks ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PictureText:
    """Marks a field whose raw value is a Blob or a text and whose built value is a Source."""


@dataclass(frozen=True, slots=True)
class ServedFor:
    """Marks the id of a model that serves the operation. The sentence names only the `documented` ones."""

    operation: Operation
    documented: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnlyWhen:
    """Marks a field that is required if its neighbour `field` has this value, and ignored otherwise."""

    field: str
    value: str

    def describe(self, name: str, schema: JsonSchemaValue) -> None:
        """Move the marked field's schema under "if" and "then" of the object's schema."""
        properties = schema["properties"]
        value = next(part for part in properties[name]["anyOf"] if part != {"type": "null"})
        about = properties[name]["description"]
        when = f"Required with {self.field} {self.value}, and ignored otherwise."
        properties[name] = {"description": f"{about} {when}"}
        condition = {"properties": {self.field: {"const": self.value}}, "required": [self.field]}
        wanted = {"properties": {name: {**value, "description": about}}, "required": [name]}
        schema.setdefault("allOf", []).append({"if": condition, "then": wanted})


@dataclass(frozen=True, slots=True)
class Unless:
    """Marks a required field that is ignored if `condition` is true for the raw fields of the same object."""

    condition: Callable[[Mapping[str, Raw]], bool]


@dataclass(frozen=True, slots=True)
class AtMost:
    """Marks a list with a limit that Nest did not check. It is checked before the pictures are decoded.

    `MaxLen` would add its sentence to class-validator's, and so change recorded answers.
    """

    number: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, of: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {**handler(of), "maxItems": self.number}

    def _check(self, pictures: Raw) -> Raw:
        if isinstance(pictures, list) and len(pictures) > self.number:
            raise broken(f"{{path}} must contain no more than {self.number} elements")
        return pictures


# ── types ────────────────────────────────────────────────────────────────────────────────────────────────

MAX_TEXT_CHARACTERS = 32_000
"""Of a prompt and of any other text: more than any model reads."""

Text = Annotated[str, Strict(), MaxLen(MAX_TEXT_CHARACTERS)]
NonEmptyText = Annotated[str, Strict(), MinLen(1), MaxLen(MAX_TEXT_CHARACTERS)]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_whole)]

# Nest converted the texts of some fields, in JSON as well as in forms.
FlagOrText = Annotated[bool, Strict(), BeforeValidator(_flag)]
WholeOrText = Annotated[int, Strict(), BeforeValidator(_whole), BeforeValidator(javascript_number)]

_SEED_SCHEMA = WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _LARGEST_SEED})
Seed = Annotated[Whole, AfterValidator(_seed_that_vendors_take), _SEED_SCHEMA]
SeedOrText = Annotated[WholeOrText, AfterValidator(_seed_that_vendors_take), _SEED_SCHEMA]

StorageUri = Annotated[Text, WithJsonSchema({"type": "string", "format": "gs-uri"})]

PictureField = Annotated[
    Source,
    PictureText(),
    BeforeValidator(_read_picture),
    WithJsonSchema(
        {
            "type": "string",
            "format": "picture",
            "description": "A PNG, JPEG, WebP or GIF image in base64, as a data: URI, or a gs:// URI.",
        }
    ),
]

ResponseFormat = Annotated[
    Literal["url", "b64_json"],
    Field(validation_alias=AliasChoices("responseFormat", "response_format")),  # the spelling of /gen
]
