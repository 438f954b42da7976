"""Parses bracket names of forms: `outputOptions[mimeType]` is a field of the object `outputOptions`."""

import re
from collections.abc import Iterable
from typing import Any

from app.pictures.blob import Blob

Raw = Any
Pair = tuple[str, str | Blob]

_BRACKETED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,5})")
_INDEX = re.compile(r"\d{1,6}", re.ASCII)


def values_of(pairs: Iterable[Pair]) -> dict[str, Raw]:
    """Returns the nested values of a form's pairs.

    `a[b]=1` makes `a` an object. `a[]=1`, `a[0]=1` and a repeated `a=1` make it a list. Gaps between indices
    are closed. Dots have no meaning.
    """
    root: dict[str, Raw] = {}
    for name, value in pairs:
        match = _BRACKETED.fullmatch(name)
        *steps, last = [match[1], *match[2][1:-1].split("][")] if match else [name]
        at = root
        for step in steps:
            at = _inside(at, step or str(len(at)))
        last = last or str(len(at))
        if last in at:
            at, last = _inside(at, last), str(len(_inside(at, last)))
        at[last] = value
    return {name: _lists(value) for name, value in root.items()}


def _inside(at: dict[str, Raw], step: str) -> dict[str, Raw]:
    """Returns the branch at `step`, made if necessary. A value there becomes the branch's first element."""
    branch = at.get(step)
    if not isinstance(branch, dict):
        branch = at[step] = {} if branch is None else {"0": branch}
    return branch


def _lists(value: Raw) -> Raw:
    """Returns the value with lists in place of branches whose keys are all indices."""
    if not isinstance(value, dict):
        return value
    if all(_INDEX.fullmatch(key) for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(inner) for key, inner in value.items()}
