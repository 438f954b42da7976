"""What a field may hold: texts, flags, numbers and pictures, as pydantic types with marks beside them.

The types build values; the marks say what class-validator said (see `contract/rules.py`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import MaxLen, MinLen
from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.contract.models import Operation
from app.pictures.blob import Blob
from app.pictures.picture import GcsUri, NotAPicture, Picture, PictureTooLarge, Source, picture
from app.pictures.pixels import normalise

Raw = Any
"""A value as it came in: parsed JSON or a parsed form, with a Blob for each picture."""

_LARGEST_SEED = 2**31 - 1


def broken(sentence: str) -> PydanticCustomError:
    """A rule of ours is broken. `{path}` in the sentence becomes the field's dotted path."""
    return PydanticCustomError("sentence", sentence)


def _whole(value: Raw) -> Raw:
    """JSON knows one kind of number: 2.0 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def number_from_text(value: Raw) -> Raw:
    """Forms have only text. Decimals are read; as in JavaScript, blank text is 0 and `true` is 1."""
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return 0
    return _whole(float(text)) if len(text) < 64 and _DECIMAL.fullmatch(text) else value


def flag_from_text(value: Raw) -> Raw:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


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
    """Marks a model id: one of the catalogue's for the operation. The sentence names `documented` only."""

    operation: Operation
    documented: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnlyWhen:
    """Marks a field that is required when its neighbour `field` has the value, else not looked at."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Unless:
    """Marks a required field that is ignored if `condition` is true for the raw fields of the same object."""

    condition: Callable[[Mapping[str, Raw]], bool]


@dataclass(frozen=True, slots=True)
class AtMost:
    """Marks a list that no model takes longer: refused before its pictures are decoded.

    Not `MaxLen`, which would speak among class-validator's sentences, where Nest was silent.
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
"""The limit for a prompt and for any other text. No model reads that much."""

Text = Annotated[str, Strict(), MaxLen(MAX_TEXT_CHARACTERS)]
NonEmptyText = Annotated[str, Strict(), MinLen(1), MaxLen(MAX_TEXT_CHARACTERS)]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_whole)]
FormFlag = Annotated[bool, Strict(), BeforeValidator(flag_from_text)]
FormWhole = Annotated[int, Strict(), BeforeValidator(_whole), BeforeValidator(number_from_text)]

_SEED_SCHEMA = WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _LARGEST_SEED})
Seed = Annotated[Whole, AfterValidator(_seed_that_vendors_take), _SEED_SCHEMA]
FormSeed = Annotated[FormWhole, AfterValidator(_seed_that_vendors_take), _SEED_SCHEMA]

StorageUri = Annotated[
    Text,
    WithJsonSchema(
        {
            "type": "string",
            "format": "gs-uri",
        }
    ),
]

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
