"""The query parameters of paged lists: `limit` and `cursor`."""

import re
from typing import Any

from fastapi import Request

from app.contract.errors import InvalidRequest
from app.services.receipts import CURSOR, Cursor

_MOST, _USUAL = 100, 20
_LIMIT = f"limit must be an integer number from 1 to {_MOST}"
_CURSOR = "cursor must be the nextCursor of a page"

PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "limit",
        "in": "query",
        "description": "The most entries of a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": _USUAL},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "Where the page begins: the `nextCursor` of the previous page. Without it the page "
        "has the newest entries.",
        "schema": {"type": "string", "pattern": CURSOR},
    },
]

WRONG = {"validation": InvalidRequest([_LIMIT, _CURSOR])}


def paging(request: Request) -> tuple[int, Cursor | None]:
    """Returns `limit` (20 by default) and `cursor` from the query. Raises InvalidRequest."""
    limit, cursor, wrong = _USUAL, None, []
    if given := request.query_params.getlist("limit"):
        if len(given) == 1 and re.fullmatch("[0-9]{1,9}", given[0]) and 1 <= int(given[0]) <= _MOST:
            limit = int(given[0])
        else:
            wrong.append(_LIMIT)
    if given := request.query_params.getlist("cursor"):
        cursor = Cursor.read(given[0]) if len(given) == 1 else None
        if cursor is None:
            wrong.append(_CURSOR)
    if wrong:
        raise InvalidRequest(wrong)
    return limit, cursor
