"""JSON bodies as the fronts read them, before any vendor's rules apply."""

import json
from collections.abc import Iterator, Set
from typing import Any

from app.emulator.calls import Json


def parse_object(raw: bytes) -> Json:
    """Returns the JSON object. Anything else becomes an empty object, which every model refuses."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def texts(value: Any, keys: Set[str]) -> Iterator[str]:
    """Yields the texts that stand under one of `keys`, at any depth: the words that a person wrote."""
    if isinstance(value, list):
        for item in value:
            yield from texts(item, keys)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in keys and isinstance(item, str):
                yield item
            else:
                yield from texts(item, keys)
