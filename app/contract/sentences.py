"""The sentences with which class-validator refused a request, in its order (docs/validation.md).

Clients parse them, so every broken rule of every field has its sentence, and no endpoint has sentences of its
own: they follow from the fields' declarations.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel

from app.contract.declared import DeclaredField, declared_fields
from app.contract.fields import OnlyWhen, PictureText, Raw, ServedFor
from app.contract.models import Catalogue
from app.pictures.blob import Blob

MAX_SENTENCES = 100
"""Also the most elements of a list that are looked at: no list of a contract can be so long."""


def sentences(contract: type[BaseModel], fields: Mapping[str, Raw], catalogue: Catalogue) -> list[str]:
    """Returns a sentence for each broken rule, at most 100; none if these rules hold.

    `fields` are parsed JSON, or a parsed form with numbers and flags in place of their texts. The `catalogue`
    has the models that a request can name.
    """
    return list(islice(_of_object(contract, fields, catalogue, is_top=True), MAX_SENTENCES))


# ── objects and lists: which field comes when ────────────────────────────────────────────────────────────


def _of_object(
    contract: type[BaseModel], fields: Mapping[str, Raw], catalogue: Catalogue, *, is_top: bool = False
) -> Iterator[str]:
    for field in declared_fields(contract):
        if field.is_ambiguous(fields):
            name, other = field.spellings
            yield f"{other} must not differ from {name}: they are the same field"
        elif field.applies(fields):
            yield from _of_field(field.as_spelt(fields), fields, catalogue, is_top)


def _of_field(
    field: DeclaredField, fields: Mapping[str, Raw], catalogue: Catalogue, is_top: bool
) -> Iterator[str]:
    """Yields the sentences from inside the field, and then those about the field itself.

    At the top, sentences from inside replace those about the field.
    """
    value = fields.get(field.name)
    if value is None and not field.required:
        return
    inner = list(islice(_inside(field, value, catalogue), MAX_SENTENCES))
    yield from inner
    if not (is_top and inner):
        yield from _about(field, value, catalogue, is_given=field.name in fields)


def _inside(field: DeclaredField, value: Raw, catalogue: Catalogue) -> Iterator[str]:
    """Yields the sentences from inside an object or a list of objects, after the field's name and a dot."""
    of = field.element or field
    inner: Iterable[str] = ()
    if of.is_object and isinstance(value, Mapping):
        inner = _of_object(of.type, value, catalogue)
    elif of.is_object and isinstance(value, list):
        inner = _of_elements(field, of, value, catalogue)
    for sentence in inner:
        yield f"{field.name}.{sentence}"


def _of_elements(
    field: DeclaredField, of: DeclaredField, elements: list[Raw], catalogue: Catalogue
) -> Iterator[str]:
    for index, element in enumerate(elements[:MAX_SENTENCES]):
        if isinstance(element, Mapping | list):
            yield from _inside(DeclaredField(str(index), of.type), element, catalogue)
        else:
            yield _not_nested(field)


def _not_nested(field: DeclaredField) -> str:
    each = "each value in " if field.element else ""
    return f"{each}nested property {field.name} must be either object or array"


# ── the field itself ─────────────────────────────────────────────────────────────────────────────────────


def _about(field: DeclaredField, value: Raw, catalogue: Catalogue, *, is_given: bool) -> Iterator[str]:
    """`is_given` tells null from a missing field."""
    if field.element:
        yield from _about_list(field, field.element, value, catalogue)
        if field.element.is_object and is_given and not isinstance(value, list | Mapping):
            yield _not_nested(field)
    elif field.mark(OnlyWhen) and value is None:
        yield f"{field.name} should not be null or undefined"
        if is_given:
            yield _not_nested(field)
    elif field.is_object:
        if not isinstance(value, Mapping | list):
            yield _not_nested(field)
    else:
        for sentence in _about_value(field, value, catalogue):
            yield f"{field.name} {sentence}"


def _about_list(
    field: DeclaredField, element: DeclaredField, value: Raw, catalogue: Catalogue
) -> Iterator[str]:
    """A value in a list's place is checked as if it were the only element."""
    elements = value[:MAX_SENTENCES] if isinstance(value, list) else [value]
    if not element.is_object:
        said = [sentence for one in elements for sentence in _about_value(element, one, catalogue)]
        for sentence in dict.fromkeys(said):
            yield f"each value in {field.name} {sentence}"
    length = len(value) if isinstance(value, list) else None
    if (most := field.mark(MaxLen)) and (length is None or length > most.max_length):
        yield f"{field.name} must contain no more than {most.max_length} elements"
    if (least := field.mark(MinLen)) and (length is None or length < least.min_length):
        yield f"{field.name} must contain at least {least.min_length} elements"
    if length is None:
        yield f"{field.name} must be an array"


# ── one value, after its conversion: sentences without the field's name ──────────────────────────────────


def _about_value(field: DeclaredField, value: Raw, catalogue: Catalogue) -> Iterator[str]:
    """Nest's decorators ran from the bottom up: Max, Min, IsInt, and IsNotEmpty before IsString."""
    value = field.convert(value)
    if served := field.mark(ServedFor):
        yield from _choice(value, catalogue.serving(served.operation), named=served.documented)
    elif get_origin(field.type) is Literal:
        yield from _choice(value, get_args(field.type), named=get_args(field.type))
    elif field.type is bool:
        if not isinstance(value, bool):
            yield "must be a boolean value"
    elif field.type in (int, float):
        yield from _numeric(field, value)
    else:
        yield from _text(field, value)


def _choice(value: Raw, choices: tuple[str, ...], *, named: tuple[str, ...]) -> Iterator[str]:
    if value not in choices:
        yield "must be one of the following values: " + ", ".join(named)


def _numeric(field: DeclaredField, value: Raw) -> Iterator[str]:
    """A value that is not a number breaks every rule, as NaN does."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if (most := field.mark(Le)) and not number <= most.le:
        yield f"must not be greater than {most.le}"
    if (least := field.mark(Ge)) and not number >= least.ge:
        yield f"must not be less than {least.ge}"
    is_finite = abs(number) <= sys.float_info.max  # isfinite() raises for an int beyond a double
    if field.type is int and not (is_finite and float(number).is_integer()):
        yield "must be an integer number"
    if field.type is float and not is_finite:
        yield "must be a number conforming to the specified constraints"


def _text(field: DeclaredField, value: Raw) -> Iterator[str]:
    """A blob is a picture. In place of a text it is a long text that is also valid base64."""
    length = value.length if isinstance(value, Blob) else len(value) if isinstance(value, str) else None
    must_not_be_empty = field.mark(MinLen) or field.mark(PictureText)
    if must_not_be_empty and (value is None or length == 0):
        yield "should not be empty"
    if length is None:
        yield "must be a string"
    elif (most := field.mark(MaxLen)) and (isinstance(value, Blob) or length > most.max_length):
        yield f"must be shorter than or equal to {most.max_length} characters"
