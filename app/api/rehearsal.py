"""Rehearsed failures, on the emulator only. Callers ask for them in the header X-Trouble, or with
`#trouble:…` in any text of the request. `docs/rehearsing.md` lists the words.
"""

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel

from app.api.exchange import parts
from app.api.openapi.headers import IDEMPOTENCY_KEY
from app.contract.errors import InvalidRequest

WORDS = (
    *("blocked-prompt", "blocked-output", "half-blocked", "text-only", "empty", "429", "500", "503"),
    *("slow", "hang", "retired", "drop", "storage-down"),
)
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_TROUBLE = re.compile(f"(?:{'|'.join(WORDS)})(?:={_NUMBER})?")
_SAID = re.compile(rf"#trouble:([\w-]*(?:={_NUMBER})?)")
_PARAMETER = {
    "name": "X-Trouble",
    "in": "header",
    "required": False,
    "description": "Makes the request fail, on the emulator only: " + ", ".join(WORDS) + ". "
    "429, 503, slow and storage-down take seconds, for example `429=7`.",
    "schema": {"type": "string", "pattern": f"^{_TROUBLE.pattern}$"},
}


def rehearsed(request: Request, body: object) -> str | None:
    """Returns the failure that the request asks for ("429=7"), or None. Always None in live.

    The header takes precedence over the texts of the body. Raises InvalidRequest for an unknown word.
    """
    if parts(request.scope).settings.cloud != "emulator":
        return None
    header = request.headers.get("x-trouble")
    said = [match[1] for text in _texts(body) for match in _SAID.finditer(text)]
    if header is not None and not _TROUBLE.fullmatch(header):
        raise InvalidRequest(f"Invalid X-Trouble: The header must be {_KNOWN}")
    if not all(map(_TROUBLE.fullmatch, said)):
        raise InvalidRequest(f"Invalid #trouble: The word in the text must be {_KNOWN}")
    return header or next(iter(said), None)


_KNOWN = f"one of {', '.join(WORDS)}, with or without a number: 429=7"


def _texts(value: object) -> Iterator[str]:
    """Yields all texts in the request's fields."""
    match value:
        case str():
            yield value
        case tuple():
            for one in value:
                yield from _texts(one)
        case BaseModel():
            for _, one in value:
                yield from _texts(one)


def describe(app: FastAPI) -> None:
    """Add the header to every paid route of the API documentation."""
    document = app.openapi

    def openapi() -> dict[str, Any]:
        made_now = app.openapi_schema is None
        described = document()
        if made_now:
            for operation in (one for path in described["paths"].values() for one in path.values()):
                if IDEMPOTENCY_KEY in operation.get("parameters", ()):
                    operation["parameters"].append(_PARAMETER)
        return described

    app.openapi = openapi  # type: ignore[method-assign]
