"""What the fields of a type are declared to be, taken apart once for each type."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from app.contract.fields import OnlyWhen, PictureText, Raw, Unless

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class DeclaredField:
    """One field. `spellings` are the names that callers can use for it, the usual one first.

    `type` is without `Annotated` and None. `marks` are the constraints and validators that stood beside it.
    `element` declares the elements of a list.
    """

    name: str
    type: Any
    required: bool = True
    marks: tuple[object, ...] = ()
    element: "DeclaredField | None" = None
    spellings: tuple[str, ...] = ()

    @property
    def is_object(self) -> bool:
        return isinstance(self.type, type) and issubclass(self.type, BaseModel)

    def mark(self, kind: type[M]) -> M | None:
        """Returns the first mark of this class, or None."""
        return next((mark for mark in self.marks if isinstance(mark, kind)), None)

    def applies(self, fields: Mapping[str, Raw]) -> bool:
        """Whether the field counts beside these neighbours. It is ignored otherwise."""
        if unless := self.mark(Unless):
            return not unless.condition(fields)
        only = self.mark(OnlyWhen)
        return only is None or fields.get(only.field) == only.value

    def as_spelt(self, fields: Mapping[str, Raw]) -> "DeclaredField":
        """Returns the field under the name that the caller used."""
        if len(self.spellings) < 2:
            return self
        used = next((name for name in self.spellings if fields.get(name) is not None), self.name)
        return self if used == self.name else replace(self, name=used)

    def is_ambiguous(self, fields: Mapping[str, Raw]) -> bool:
        """Whether two spellings of the field have different values."""
        if len(self.spellings) < 2:
            return False
        values = [fields[name] for name in self.spellings if fields.get(name) is not None]
        return any(value != values[0] for value in values)

    def convert(self, value: Raw) -> Raw:
        """Returns the value after the field's before-validators. As in pydantic, the last one runs first.

        A picture is returned unchanged: its validator would decode it.
        """
        if self.mark(PictureText):
            return value
        for mark in reversed(self.marks):
            if isinstance(mark, BeforeValidator):
                value = mark.func(value)  # type: ignore[call-arg]
        return value


@cache
def declared_fields(of: type[BaseModel]) -> tuple[DeclaredField, ...]:
    """Returns the fields of a type in the order of their declaration."""
    return tuple(_declared(field) for field in of.model_fields.values())


def _declared(field: FieldInfo) -> DeclaredField:
    kind, marks = _take_apart(field.annotation, tuple(field.metadata))
    required = field.is_required() or any(isinstance(mark, OnlyWhen | Unless) for mark in marks)
    name, aliases = field.alias or "", field.validation_alias
    spellings = tuple(map(str, aliases.choices)) if isinstance(aliases, AliasChoices) else (name,)
    return DeclaredField(name, kind, required, marks, _element(kind), spellings)


def _element(kind: Any) -> DeclaredField | None:
    if get_origin(kind) is not tuple:
        return None
    inner, marks = _take_apart(get_args(kind)[0], ())
    return DeclaredField("", inner, marks=marks)


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
