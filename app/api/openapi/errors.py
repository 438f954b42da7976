"""The documented errors of a route. Their examples are the bodies that the gateway sends."""

from collections.abc import Mapping

from app.api.dialect import NEST, Dialect
from app.api.openapi.headers import RATE_LIMIT, headers
from app.api.openapi.schemas import Json, schema
from app.contract import errors
from app.contract.answer import StoredImage
from app.contract.safety import block

_PENDING = StoredImage(
    url="https://storage.googleapis.com/my-bucket/images/generated/text-to-image/"
    "20261121_062329_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
    filename="20261121_062329_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
    mime_type="image/png",
    generated_at="2026-11-21T06:23:29.000Z",
)

ERRORS: dict[int, tuple[str, dict[str, errors.GatewayError]]] = {
    400: (
        "The request breaks a rule, or the vendor's safety filter refused it",
        {
            "validation": errors.InvalidRequest(["prompt should not be empty"]),
            "malformed": errors.InvalidRequest("Malformed JSON: unexpected end of data, at position 1"),
            "safety filter, known code": errors.SafetyBlocked(block("Support codes: 56562880")),
            "safety filter": errors.SafetyBlocked(block("")),
        },
    ),
    401: ("No valid token or API key", {"unauthorized": errors.Unauthorized()}),
    402: (
        "This request may cost more than a budget has left",
        {
            "budget": errors.BudgetExhausted(
                "Budget exhausted: 5.00 USD per day, 4.98 spent, resets at 2026-11-22T00:00:00Z"
            )
        },
    ),
    403: (
        "The API key does not allow this",
        {
            "operation": errors.Forbidden("This key may not use image-upscale"),
            "model": errors.Forbidden("This key may not use model imagen-4.0-ultra-generate-001"),
        },
    ),
    408: ("The body did not arrive in time", {"timeout": errors.RequestTimedOut()}),
    409: (
        "A request with the same Idempotency-Key is still under way at your deadline",
        {"running": errors.KeyInFlight()},
    ),
    413: (
        "The body, or one picture in it, is too large",
        {"body": errors.PayloadTooLarge(), "file": errors.PayloadTooLarge(file=True)},
    ),
    415: (
        "The charset or the content encoding is not supported",
        {"encoding": errors.UnsupportedMedia('unsupported content encoding "gzip"')},
    ),
    422: ("The Idempotency-Key was used with a different request", {"reused": errors.KeyReused()}),
    429: (
        "Too many requests: yours, or the gateway's to the vendor. `Retry-After` says how long to wait",
        {"yours": errors.RateLimited(60), "ours": errors.RateLimited(60, by_vendor=True)},
    ),
    500: ("The gateway or the vendor failed", {"internal": errors.UpstreamFailed()}),
    503: (
        "The gateway is overloaded, or the vendor or the storage is down for now",
        {"unavailable": errors.UpstreamUnavailable(), "storage": errors.StorageDown((_PENDING,))},
    ),
    504: ("Not ready within the deadline", {"timeout": errors.UpstreamTimeout()}),
}


def failures(*statuses: int, dialect: Dialect = NEST) -> dict[int | str, Json]:
    """Returns the documented errors of these statuses, for the `responses` of a route."""
    return {status: failure(status, *ERRORS[status], dialect=dialect) for status in statuses}


def failure(
    status: int,
    description: str,
    examples: Mapping[str, errors.GatewayError],
    *,
    dialect: Dialect = NEST,
) -> Json:
    """Returns one documented error. `examples` are errors by name; their bodies are shown."""
    shown = {name: {"value": dialect.body(error)} for name, error in examples.items()}
    content = {"application/json": {"schema": _schema(status, dialect), "examples": shown}}
    return {"description": description, "content": content, "headers": _headers(status)}


def _schema(status: int, dialect: Dialect) -> Json:
    schemas = [schema(model, "serialization") for model in dialect.models(status)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _headers(status: int) -> Json:
    retry = ("Retry-After",)
    more = {400: ("X-Error-Hint",), 409: retry, 429: (*retry, *RATE_LIMIT), 503: retry}
    return headers("X-Request-Id", "X-Error-Code", *more.get(status, ()))
