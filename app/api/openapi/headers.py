"""The headers of requests and responses, each described once."""

from app.api.error_codes import ERROR_CODES
from app.api.openapi.schemas import Json

HEADERS: Json = {
    "X-Request-Id": {
        "description": "The request's id in the gateway's log. A request can set it in the same header.",
        "schema": {"type": "string"},
    },
    "X-Model-Requested": {
        "description": "The model of the request, if another model made the pictures.",
        "schema": {"type": "string"},
    },
    "X-Error-Hint": {
        "description": "How to correct the request, if the message does not say so.",
        "schema": {"type": "string"},
    },
    "X-Error-Code": {
        "description": "The kind of the error, for programs.",
        "schema": {"type": "string", "enum": list(ERROR_CODES)},
    },
    "X-Receipt-Id": {
        "description": "The id of the request's receipt: `GET /api/v1/receipts/{id}`.",
        "schema": {"type": "string"},
    },
    "X-Cost-USD": {
        "description": "What this request cost, in US dollars with six decimals. A replay costs nothing.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "`true` if this is the response to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "How many seconds to wait before you repeat the request.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Limit": {
        "description": "How many requests you can send in a period, if there is a limit.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {
        "description": "How many requests are left in this period.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Reset": {
        "description": "How many seconds until more requests are allowed.",
        "schema": {"type": "integer"},
    },
}
"""The headers of responses, each described once: `components.headers` in the document."""

RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def headers(*names: str) -> Json:
    """Returns the `headers` of a response: references to HEADERS."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


MADE_HEADERS = headers(
    "X-Request-Id",
    "X-Model-Requested",
    "X-Receipt-Id",
    "X-Cost-USD",
    "Idempotency-Replayed",
    *RATE_LIMIT,
)
"""The headers of a response with pictures."""

IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A new string for each request, for example a UUID. If you repeat the request with the "
    "same key, for example after a timeout, you get the same response and pay once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
"""The parameter of every route that costs money."""
