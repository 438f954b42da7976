"""Builds JSON for Vertex, and reads its answers: each value is checked for its type before it is used."""

import re
from collections.abc import Iterator
from typing import TypeVar

from app.contract.errors import UpstreamFailed

Json = dict[str, object]
T = TypeVar("T")

_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def given(**fields: object) -> Json:
    """Returns the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def an_object(value: object) -> Json:
    """Returns the value. Raises UpstreamFailed if it is not an object."""
    return _expected(value, dict)


def member(parent: Json, name: str) -> Json:
    """Returns the object under this name, {} if it is absent. Raises UpstreamFailed for any other value."""
    return _expected(_or(parent.get(name), {}), dict)


def elements(parent: Json, name: str) -> list[object]:
    """Returns the list under this name, [] if it is absent. Raises UpstreamFailed for any other value."""
    return _expected(_or(parent.get(name), []), list)


def objects(parent: Json, name: str) -> list[Json]:
    """Returns the objects under this name, [] if it is absent. Raises UpstreamFailed for any other value."""
    return [an_object(one) for one in elements(parent, name)]


def text(parent: Json, name: str) -> str:
    """Returns the text under this name, "" if it is absent. Raises UpstreamFailed for any other value."""
    return _expected(_or(parent.get(name), ""), str)


def constant(value: object) -> str | None:
    """Returns the value if it looks like the name of an enum's value, which is safe to log, else None."""
    return value if isinstance(value, str) and _CONSTANT.fullmatch(value) else None


def texts(value: object) -> Iterator[str]:
    """Yields every text in the value, at any depth."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)


def _or(value: object, otherwise: object) -> object:
    return otherwise if value is None else value


def _expected(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise UpstreamFailed("the answer has an unexpected shape")
    return value
