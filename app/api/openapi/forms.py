"""Derives the schema of a multipart form from the schema of the JSON body."""

from collections.abc import Iterator
from typing import Any

from app.api.openapi.schemas import Json, schema
from app.contract.reading import Contract
from app.contract.words import words


def form_schema(contract: type[Contract], example: Json) -> Json:
    """Returns the schema of a form with the contract's fields: bracket names, and files instead of base64.

    The values of the JSON `example` become the fields' examples, with which Swagger UI fills the form.
    """
    described = schema(contract, "validation")
    fields: Json = {}
    required: list[str] = []
    _flatten("", described, fields, required)
    for name, value in _leaves("", example):
        if name in fields:
            fields[name] = {**fields[name], "examples": [value]}
    for upload, most in contract.uploads.items():
        name = upload.rpartition("[")[2].rstrip("]")
        about = f"{words(contract.__name__, name)} A PNG, JPEG, WebP or GIF file."
        if upload.endswith("]"):
            fields |= {
                place: _FILE | {"description": about} for place in fields if place.endswith(f"[{name}]")
            }
        else:
            several = {"type": "array", "items": _FILE} | _pictures(described["properties"], upload)
            fields = {upload: (_FILE if most == 1 else several) | {"description": about}, **fields}
            required.append(upload)
    return {"type": "object", "properties": fields, "required": required}


_FILE = {"type": "string", "format": "binary"}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the form names and values of a JSON value: `{"a": {"b": [1]}}` yields `a[b][0]` and 1."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for inner, one in value.items():
            yield from _leaves(f"{name}[{inner}]" if name else str(inner), one)
    else:
        yield name, value


def _pictures(fields: Json, upload: str) -> Json:
    """Returns minItems and maxItems of an upload: those of its field, or the sums over all picture fields."""
    wanted = [fields[upload]] if upload in fields else fields.values()
    lists = [field for field in wanted if field.get("items", {}).get("format") == "picture"]
    single = sum(field.get("format") == "picture" for field in wanted)
    return {name: single + sum(field[name] for field in lists) for name in ("minItems", "maxItems")}


def _flatten(name: str, field: Json, into: Json, required: list[str] | None) -> None:
    """Add a field to `into`: `{"a": {"b": …}}` as `a[b]`, the first two places of a list, pictures as files.

    Names of required fields are added to `required`, which is None below an optional field. A field that JSON
    requires under a condition (`then`) is optional in the form; one under `else` is required.
    """
    if "anyOf" in field:
        value = next(part for part in field["anyOf"] if part.get("type") != "null")
        field = {**value, **{key: inner for key, inner in field.items() if key != "anyOf"}}
    if "properties" in field:
        wanted = {*field.get("required", ()), *field.get("else", {}).get("required", ())}
        for inner, inner_field in field["properties"].items():
            place = f"{name}[{inner}]" if name else inner
            _flatten(place, inner_field, into, required if inner in wanted else None)
        for rule in field.get("allOf", ()):
            _flatten(name, rule["then"], into, None)
    elif field.get("type") == "array":
        element = {"description": field["description"], **field["items"]}
        for index in range(2):
            within = required if index < field.get("minItems", 0) else None
            _flatten(f"{name}[{index}]", element, into, within)
    elif field.get("format") == "picture":
        if name.endswith("[bytesBase64Encoded]"):
            _put(name.replace("[bytesBase64Encoded]", "[image]"), _FILE, into, required)
    elif "type" in field:
        _put(name, field, into, required)


def _put(name: str, field: Json, into: Json, required: list[str] | None) -> None:
    into[name] = field
    if required is not None:
        required.append(name)
