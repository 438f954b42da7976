"""Fields' declared rules, read twice: by pydantic to build a value, here to say what breaks them.

Clients parse class-validator's sentences, so every broken rule of every field speaks, in class-validator's
order (nestjs-contract.md §3). Nothing is written per endpoint: `str` gives "must be a string", `Ge(1)` gives
"must not be less than 1", `Literal` gives "must be one of the following values", a nested model its own
sentences under a dotted path. Rules that class-validator does not know raise `broken(…)` in a validator.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.contract.errors import InvalidRequest
from app.contract.fields import (
    OnlyWhen,
    PictureText,
    Raw,
    ServedFor,
    Unless,
    flag_from_text,
    number_from_text,
)
from app.contract.models import Catalogue
from app.contract.words import Described
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import NotAPicture, blob_of_base64

_MAX_SENTENCES = 100
"""A list of a million elements is refused, as no list may be so long, without a look at each of them."""

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
        """Give uploaded files the places they have in JSON."""
        return raw

    @classmethod
    def __get_pydantic_json_schema__(cls, of: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What is required only when a neighbour has a value stands under if and then."""
        described = super().__get_pydantic_json_schema__(of, handler)
        node = handler.resolve_ref_schema(described)
        for rule in _rules(cls):
            if condition := rule.mark(OnlyWhen):
                wanted = {condition.field: {"const": condition.value}}
                told = node["properties"][rule.name]["description"]
                when = f"Required with {condition.field} {condition.value}, and ignored otherwise."
                field = next(
                    part for part in node["properties"][rule.name]["anyOf"] if part != {"type": "null"}
                )
                node["properties"][rule.name] = {"description": f"{told} {when}"}
                node.setdefault("allOf", []).append(
                    {
                        "if": {"properties": wanted, "required": [condition.field]},
                        "then": {
                            "properties": {rule.name: {**field, "description": told}},
                            "required": [rule.name],
                        },
                    }
                )
        return described

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, raw: Raw) -> Raw:
        """Drop nulls and fields that do not apply; a list in an object's place means its first element."""
        while isinstance(raw, list):
            raw = raw[0] if raw else {}
        if not isinstance(raw, Mapping):
            return raw
        kept = {name: value for name, value in raw.items() if value is not None}
        for rule in _rules(cls):
            if not rule.applies(kept):
                kept.pop(rule.name, None)
        return kept


T = TypeVar("T", bound=Contract)


def read(contract: type[T], raw: Raw, catalogue: Catalogue, blobs: Blobs, *, text: bool = False) -> T:
    """Build a contract type from parsed JSON or a parsed form (`text`: numbers and flags come as text).

    Raises InvalidRequest, a sentence per broken rule. Pictures are looked at when every other rule holds,
    which takes its time: call it off the event loop for a contract that has any.
    """
    fields = raw if isinstance(raw, dict) else {}
    if text:
        fields = _read_text(contract, fields)
    if sentences := list(islice(_explain(contract, fields, catalogue, hide=True), _MAX_SENTENCES)):
        raise InvalidRequest(sentences)
    _decode_texts(contract, fields, blobs)
    try:
        return contract.model_validate(fields)
    except ValidationError as exc:
        raise InvalidRequest(_own_sentences(exc)) from None


def _read_text(contract: type[BaseModel], fields: Mapping[str, Raw]) -> dict[str, Raw]:
    """Turn a form's text into the numbers and flags that the fields are declared to be."""
    return {
        name: _from_text(rule, fields[name])
        for rule in _rules(contract)
        for name in rule.spellings
        if name in fields
    }


def _from_text(rule: "_Rule", value: Raw) -> Raw:
    if isinstance(value, list) and rule.element:
        return [_from_text(rule.element, one) for one in value]
    if isinstance(value, Mapping) and rule.nests:
        return _read_text(rule.type, value)
    if rule.type is bool:
        return flag_from_text(value)
    return number_from_text(value) if rule.type in (int, float) else value


def _decode_texts(contract: type[BaseModel], fields: dict[str, Raw], blobs: Blobs) -> None:
    """Decode pictures whose base64 was too short to become a Blob when it arrived."""
    for rule in _rules(contract):
        if rule.name in fields:
            fields[rule.name] = _decoded(rule, fields[rule.name], blobs)


def _decoded(rule: "_Rule", value: Raw, blobs: Blobs) -> Raw:
    """A text that is not base64 stays: a `gs://` URI, or something that the field then refuses."""
    if isinstance(value, str) and rule.mark(PictureText):
        with suppress(NotAPicture):
            return blob_of_base64(value, blobs)
    elif isinstance(value, list) and rule.element:
        for index, one in enumerate(value[:_MAX_SENTENCES]):
            value[index] = _decoded(rule.element, one, blobs)
    elif isinstance(value, dict) and rule.nests:
        _decode_texts(rule.type, value, blobs)
    return value


def _own_sentences(exc: ValidationError) -> list[str]:
    """What `broken` rules say. Without one `_explain` and pydantic disagree: then the fields are named."""
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    said = [error for error in errors if error["type"] == "sentence"]
    return [
        (error["msg"] if said else "{path} is not valid").replace("{path}", ".".join(map(str, error["loc"])))
        for error in said or errors
    ]


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Rule:
    """One field's declaration, taken apart once per type. `spellings`: the names that callers may use."""

    name: str
    type: Any
    required: bool
    marks: tuple[Any, ...]
    element: "_Rule | None"
    spellings: tuple[str, ...] = ()

    @property
    def nests(self) -> bool:
        return isinstance(self.type, type) and issubclass(self.type, BaseModel)

    def mark(self, kind: type[Any]) -> Any:
        for mark in self.marks:
            if isinstance(mark, kind):
                return mark
        return None

    def applies(self, fields: Mapping[str, Raw]) -> bool:
        if unless := self.mark(Unless):
            return not unless.condition(fields)
        condition = self.mark(OnlyWhen)
        return condition is None or fields.get(condition.field) == condition.value

    def as_spelt(self, fields: Mapping[str, Raw]) -> "_Rule":
        """Returns the rule under the name that the caller used."""
        if len(self.spellings) < 2:
            return self
        used = next((name for name in self.spellings if fields.get(name) is not None), self.name)
        return self if used == self.name else replace(self, name=used)

    def spelt_twice(self, fields: Mapping[str, Raw]) -> bool:
        """Whether two spellings of the field have different values."""
        if len(self.spellings) < 2:
            return False
        values = [fields[name] for name in self.spellings if fields.get(name) is not None]
        return any(value != values[0] for value in values)

    def convert(self, value: Raw) -> Raw:
        """What the field's before-validators make of it: the last declared runs first, as in pydantic."""
        if self.mark(PictureText):
            return value
        for mark in reversed(self.marks):
            if isinstance(mark, BeforeValidator):
                value = mark.func(value)  # type: ignore[call-arg]
        return value


_CACHE: dict[type[BaseModel], tuple[_Rule, ...]] = {}


def _rules(contract: type[BaseModel]) -> tuple[_Rule, ...]:
    if contract not in _CACHE:
        _CACHE[contract] = tuple(_rule(field) for field in contract.model_fields.values())
    return _CACHE[contract]


def _rule(field: FieldInfo) -> _Rule:
    kind, marks = _take_apart(field.annotation, tuple(field.metadata))
    required = field.is_required() or any(isinstance(mark, OnlyWhen | Unless) for mark in marks)
    name, aliases = field.alias or "", field.validation_alias
    spellings = tuple(map(str, aliases.choices)) if isinstance(aliases, AliasChoices) else (name,)
    return _Rule(name, kind, required, marks, _element(kind), spellings)


def _element(kind: Any) -> _Rule | None:
    if get_origin(kind) is not tuple:
        return None
    inner, marks = _take_apart(get_args(kind)[0], ())
    return _Rule("", inner, True, marks, None)


def _take_apart(kind: Any, marks: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """`Annotated[int, Ge(1)] | None` → int, (Ge(1),)"""
    while True:
        if get_origin(kind) is Annotated:
            kind, *inner = get_args(kind)
            marks = (*inner, *marks)
        elif get_origin(kind) in (Union, UnionType) and type(None) in get_args(kind):
            kind = next(part for part in get_args(kind) if part is not type(None))
        else:
            return kind, marks


def _explain(
    contract: type[BaseModel], fields: Mapping[str, Raw], catalogue: Catalogue, *, hide: bool = False
) -> Iterator[str]:
    """The sentences of one object, in declaration order. At the top (`hide`) children hide their parent's."""
    for declared in _rules(contract):
        if declared.spelt_twice(fields):
            name, other = declared.spellings
            yield f"{other} must not differ from {name}: they are the same field"
            continue
        rule = declared.as_spelt(fields)
        present = rule.name in fields
        value = fields.get(rule.name)
        if not rule.applies(fields) or (value is None and not rule.required):
            continue
        children = list(islice(_children(rule, value, catalogue), _MAX_SENTENCES))
        yield from children
        if not (hide and children):
            yield from _own(rule, value, catalogue, present)


def _children(rule: _Rule, value: Raw, catalogue: Catalogue) -> Iterator[str]:
    """Sentences from inside a nested object or list, each under its parent's path."""
    of = rule.element or rule
    if not of.nests:
        return
    if isinstance(value, Mapping):
        for sentence in _explain(of.type, value, catalogue):
            yield f"{rule.name}.{sentence}"
    elif isinstance(value, list):
        for index, element in enumerate(value[:_MAX_SENTENCES]):
            if isinstance(element, Mapping | list):
                inner = _Rule(str(index), of.type, True, (), None)
                for sentence in _children(inner, element, catalogue):
                    yield f"{rule.name}.{sentence}"
            else:
                yield f"{rule.name}.{_nested(rule)}"


def _own(rule: _Rule, value: Raw, catalogue: Catalogue, present: bool) -> Iterator[str]:
    """The sentences about the field itself."""
    name = rule.name
    if rule.element:
        yield from _list(rule, rule.element, value, catalogue, present)
    elif rule.mark(OnlyWhen) and value is None:
        yield f"{name} should not be null or undefined"
        if present:
            yield _nested(rule)
    elif rule.nests:
        if not isinstance(value, Mapping | list):
            yield _nested(rule)
    else:
        for sentence in _scalar(rule, rule.convert(value), catalogue):
            yield f"{name} {sentence}"


def _list(rule: _Rule, element: _Rule, value: Raw, catalogue: Catalogue, present: bool) -> Iterator[str]:
    elements = value[:_MAX_SENTENCES] if isinstance(value, list) else [value]
    if not element.nests:
        said = [list(_scalar(element, element.convert(one), catalogue)) for one in elements]
        for sentence in dict.fromkeys(sentence for sentences in said for sentence in sentences):
            yield f"each value in {rule.name} {sentence}"
    length = len(value) if isinstance(value, list) else None
    if (most := rule.mark(MaxLen)) and (length is None or length > most.max_length):
        yield f"{rule.name} must contain no more than {most.max_length} elements"
    if (least := rule.mark(MinLen)) and (length is None or length < least.min_length):
        yield f"{rule.name} must contain at least {least.min_length} elements"
    if length is None:
        yield f"{rule.name} must be an array"
    if element.nests and present and not isinstance(value, list | Mapping):
        yield _nested(rule)


def _nested(rule: _Rule) -> str:
    each = "each value in " if rule.element else ""
    return f"{each}nested property {rule.name} must be either object or array"


def _scalar(rule: _Rule, value: Raw, catalogue: Catalogue) -> Iterator[str]:
    """What one value breaks, without the field's name: class-validator's decorators from the bottom up."""
    if served := rule.mark(ServedFor):
        if value not in catalogue.serving(served.operation):
            yield "must be one of the following values: " + ", ".join(served.documented)
    elif get_origin(rule.type) is Literal:
        if not (isinstance(value, str) and value in get_args(rule.type)):
            yield "must be one of the following values: " + ", ".join(get_args(rule.type))
    elif rule.type is bool:
        if not isinstance(value, bool):
            yield "must be a boolean value"
    elif rule.type in (int, float):
        yield from _numeric(rule, value)
    else:
        least = rule.mark(MinLen) or rule.mark(PictureText)
        length = value.length if isinstance(value, Blob) else len(value) if isinstance(value, str) else None
        if least and (value is None or length == 0):
            yield "should not be empty"
        if length is None:
            yield "must be a string"
        elif (most := rule.mark(MaxLen)) and (isinstance(value, Blob) or length > most.max_length):
            # A Blob here is a text of so many letters that it could be base64.
            yield f"must be shorter than or equal to {most.max_length} characters"


def _numeric(rule: _Rule, value: Raw) -> Iterator[str]:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if (most := rule.mark(Le)) and not number <= most.le:
        yield f"must not be greater than {most.le}"
    if (least := rule.mark(Ge)) and not number >= least.ge:
        yield f"must not be less than {least.ge}"
    finite = abs(number) <= sys.float_info.max  # isfinite() raises for an endless int
    if rule.type is int and not (finite and float(number).is_integer()):
        yield "must be an integer number"
    if rule.type is float and not finite:
        yield "must be a number conforming to the specified constraints"
