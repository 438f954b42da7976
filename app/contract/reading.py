"""Reading a request: from parsed JSON or a parsed form to a contract type, or to sentences that refuse it.

A field's declaration is read twice: `sentences.py` says which rules are broken, and pydantic builds the value
when none is (docs/validation.md).
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.contract.declared import DeclaredField, declared_fields
from app.contract.errors import InvalidRequest
from app.contract.fields import OnlyWhen, PictureText, Raw, javascript_number
from app.contract.form_texts import flag_from_text
from app.contract.models import Catalogue
from app.contract.sentences import MAX_SENTENCES, sentences
from app.contract.words import Described
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import NotAPicture, blob_of_base64

Uploads = Mapping[str, int | None]
"""Form fields that take files, and how many each (None: any number). Empty: forms are not read."""


class Contract(Described):
    """Base of what callers send: camelCase outside, frozen, unknown fields ignored, null means absent."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, arbitrary_types_allowed=True
    )

    max_body_bytes: ClassVar[int] = 32 * 1024 * 1024
    uploads: ClassVar[Uploads] = {}

    @classmethod
    def from_form(cls, raw: dict[str, Raw]) -> dict[str, Raw]:
        """Returns a form's fields with uploaded files in the places where JSON has pictures."""
        return raw

    @classmethod
    def __get_pydantic_json_schema__(cls, of: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = super().__get_pydantic_json_schema__(of, handler)
        for field in declared_fields(cls):
            if only := field.mark(OnlyWhen):
                only.describe(field.name, handler.resolve_ref_schema(described))
        return described

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, raw: Raw) -> Raw:
        """Drop nulls and fields that do not apply. A list in an object's place means its first element."""
        while isinstance(raw, list):
            raw = raw[0] if raw else {}
        if not isinstance(raw, Mapping):
            return raw
        given = {name: value for name, value in raw.items() if value is not None}
        ignored = {field.name for field in declared_fields(cls) if not field.applies(given)}
        return {name: value for name, value in given.items() if name not in ignored}


def is_uploaded(value: Raw) -> bool:
    """Whether a form's field has a file, or a list that begins with one."""
    return isinstance(value[0] if isinstance(value, list) and value else value, Blob)


T = TypeVar("T", bound=Contract)


def read(contract: type[T], raw: Raw, catalogue: Catalogue, blobs: Blobs, *, text: bool = False) -> T:
    """Build a contract type from parsed JSON or a parsed form (`text`: numbers and flags come as text).

    Raises InvalidRequest with a sentence for each broken rule. Pictures are decoded only when every other
    rule holds; that is slow, so call it off the event loop for a contract that has any.
    """
    fields = raw if isinstance(raw, dict) else {}
    if text:
        fields = _read_texts(contract, fields)
    if broken := sentences(contract, fields, catalogue):
        raise InvalidRequest(broken)
    _decode_pictures(contract, fields, blobs)
    try:
        return contract.model_validate(fields)
    except ValidationError as exc:
        raise InvalidRequest(_validators_sentences(exc)) from None


def _validators_sentences(exc: ValidationError) -> list[str]:
    """Returns the sentences of the validators that raised `broken(…)`.

    Other errors mean that `sentences` has missed something that pydantic refuses: then the fields are named.
    """
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    said = [error for error in errors if error["type"] == "sentence"]
    return [
        (error["msg"] if said else "{path} is not valid").replace("{path}", ".".join(map(str, error["loc"])))
        for error in said or errors
    ]


# ── the texts of a form ──────────────────────────────────────────────────────────────────────────────────


def _read_texts(contract: type[BaseModel], fields: Mapping[str, Raw]) -> dict[str, Raw]:
    """Returns the declared fields with the numbers and flags that their texts stand for."""
    return {
        name: _from_text(field, fields[name])
        for field in declared_fields(contract)
        for name in field.spellings
        if name in fields
    }


def _from_text(field: DeclaredField, value: Raw) -> Raw:
    if isinstance(value, list) and field.element:
        return [_from_text(field.element, one) for one in value]
    if isinstance(value, Mapping) and field.is_object:
        return _read_texts(field.type, value)
    if field.type is bool and isinstance(value, str):
        return flag_from_text(value)
    return javascript_number(value) if field.type in (int, float) else value


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def _decode_pictures(contract: type[BaseModel], fields: dict[str, Raw], blobs: Blobs) -> None:
    """Put blobs in place of pictures whose base64 was too short to become a blob when it arrived."""
    for field in declared_fields(contract):
        if field.name in fields:
            fields[field.name] = _decoded(field, fields[field.name], blobs)


def _decoded(field: DeclaredField, value: Raw, blobs: Blobs) -> Raw:
    """A text that is not base64 stays: a `gs://` URI, or something that the field's validator refuses."""
    if isinstance(value, str) and field.mark(PictureText):
        with suppress(NotAPicture):
            return blob_of_base64(value, blobs)
    elif isinstance(value, list) and field.element:
        for index, one in enumerate(value[:MAX_SENTENCES]):
            value[index] = _decoded(field.element, one, blobs)
    elif isinstance(value, dict) and field.is_object:
        _decode_pictures(field.type, value, blobs)
    return value
