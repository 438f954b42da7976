"""What the OpenAPI document says about a route: its body, its answer, and its errors as they are."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from app.api import errors as bodies
from app.api.error_codes import ERROR_CODES
from app.contract import errors
from app.contract.answer import Answer, Filtered, StoredImage
from app.contract.reading import Contract
from app.contract.safety import block
from app.contract.words import Described, words

Json = dict[str, Any]

_PENDING = StoredImage(
    url="https://storage.googleapis.com/my-bucket/images/generated/text-to-image/"
    "20261121_062329_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
    filename="20261121_062329_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
    mime_type="image/png",
    generated_at="2026-11-21T06:23:29.000Z",
)

_ERRORS: dict[int, tuple[str, dict[str, errors.GatewayError]]] = {
    400: (
        "The request breaks a rule, or the vendor's safety filters said no",
        {
            "validation": errors.InvalidRequest(["prompt should not be empty"]),
            "malformed": errors.InvalidRequest("Malformed JSON: unexpected end of data, at position 1"),
            "safety filter, known code": errors.SafetyBlocked(block("Support codes: 56562880")),
            "safety filter": errors.SafetyBlocked(block("")),
        },
    ),
    401: ("No valid token or API key", {"unauthorized": errors.Unauthorized()}),
    402: (
        "A budget has no room for what this may cost",
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
        "A request with the same Idempotency-Key is still under way, and your time is up",
        {"running": errors.KeyInFlight(5)},
    ),
    413: (
        "The body, or one picture in it, is too large",
        {"body": errors.PayloadTooLarge(), "file": errors.PayloadTooLarge(file=True)},
    ),
    415: (
        "A charset or content encoding that is not read",
        {"encoding": errors.UnsupportedMedia('unsupported content encoding "gzip"')},
    ),
    422: ("The Idempotency-Key was used with a different request", {"reused": errors.KeyReused()}),
    429: (
        "Too many requests: yours here, or ours at the vendor. `Retry-After` says when to come back",
        {"yours": errors.RateLimited(60), "ours": errors.RateLimited(60, by_vendor=True)},
    ),
    500: ("The gateway or the vendor failed", {"internal": errors.UpstreamFailed()}),
    503: (
        "The gateway is overloaded, or the vendor or the storage is down for now",
        {"unavailable": errors.UpstreamUnavailable(), "storage": errors.StorageDown((_PENDING,))},
    ),
    504: ("Not ready within the deadline", {"timeout": errors.UpstreamTimeout()}),
}


_MISSING: Json = {
    "filtered": [{"raiFilteredReason": "The model returned no picture"}],
    "failed": [{"message": "the vendor's quota is used up"}],
}
"""What an answer says about the samples that are not in it."""

HEADERS: Json = {
    "X-Request-Id": {
        "description": "The request's id in the gateway's log. The request may set it in the same header.",
        "schema": {"type": "string"},
    },
    "X-Model-Requested": {
        "description": "The model of the request, if another one made the pictures.",
        "schema": {"type": "string"},
    },
    "X-Error-Hint": {
        "description": "How to correct the request, if the message does not say it.",
        "schema": {"type": "string"},
    },
    "X-Error-Code": {
        "description": "The kind of the error, for programs.",
        "schema": {"type": "string", "enum": list(ERROR_CODES)},
    },
    "X-Receipt-Id": {
        "description": "The receipt of what the request has cost: `GET /api/v1/receipts/{id}`.",
        "schema": {"type": "string"},
    },
    "X-Cost-USD": {
        "description": "What this request has cost, in US dollars with six decimals. A replay costs nothing.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "`true` if this is the answer to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "How many seconds to wait before you repeat the request.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Limit": {
        "description": "How many requests you may send in a period, if there is a limit.",
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
"""The headers of answers, each described once: `components.headers` in the document."""

_RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def headers(*names: str) -> Json:
    """Returns the `headers` of a response: references to HEADERS."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


MADE_HEADERS = headers(
    "X-Request-Id",
    "X-Model-Requested",
    "X-Receipt-Id",
    "X-Cost-USD",
    "Idempotency-Replayed",
    *_RATE_LIMIT,
)
"""The headers of an answer with pictures."""

KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text that is new for this request, for example a UUID. Who repeats the request with "
    "it, after a timeout for example, gets the same answer, and pays once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
"""The parameter of every route that costs money."""


def _error_headers(status: int) -> Json:
    retry = ("Retry-After",)
    more = {400: ("X-Error-Hint",), 409: retry, 429: (*retry, *_RATE_LIMIT), 503: retry}
    return headers("X-Request-Id", "X-Error-Code", *more.get(status, ()))


class NestError(Answer):
    status_code: int
    message: str | tuple[str, ...]
    error: str | None = None
    pending: tuple[StoredImage, ...] | None = None
    receipt_id: str | None = None


class SafetyError(Filtered):
    success: Literal[False] | None = None
    status_code: Literal[400]
    message: str


class GenError(Described):
    status: Literal["error"]
    error: str
    details: str
    pending: tuple[StoredImage, ...] | None = None
    receiptId: str | None = None


def described(
    contract: type[Contract],
    answers: type[BaseModel] | tuple[type[BaseModel], ...],
    *,
    request_example: Json,
    answer_example: Json,
    body: Callable[[errors.GatewayError], Json] = bodies.nest,
) -> dict[str, Any]:
    """Arguments for a route's decorator. The route reads its body itself, so FastAPI cannot tell."""
    answers = answers if isinstance(answers, tuple) else (answers,)
    schemas = [schema(answer, "serialization") for answer in answers]
    answer_schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    shown = {"all pictures": {"value": answer_example}}
    if "sample_count" in contract.model_fields:
        shown["a part of them"] = {"value": answer_example | _MISSING}
    made = {"application/json": {"schema": answer_schema, "examples": shown}}
    content = {"application/json": {"schema": schema(contract, "validation"), "example": request_example}}
    if contract.uploads:
        content["multipart/form-data"] = {"schema": form_schema(contract, request_example)}
    return {
        "response_class": Response,
        "response_model": None,
        "responses": {
            200: {"description": "The pictures", "content": made, "headers": MADE_HEADERS},
            **failures(*_ERRORS, body=body),
        },
        "openapi_extra": {"parameters": [KEY], "requestBody": {"required": True, "content": content}},
    }


def failures(
    *statuses: int, body: Callable[[errors.GatewayError], Json] = bodies.nest
) -> dict[int | str, Json]:
    """The documented errors of these statuses, with the bodies that are really sent."""
    return {status: failure(status, *_ERRORS[status], body=body) for status in statuses}


def failure(
    status: int,
    description: str,
    examples: Mapping[str, errors.GatewayError],
    *,
    body: Callable[[errors.GatewayError], Json] = bodies.nest,
) -> Json:
    """A documented error, with the bodies that are really sent."""
    shown = {name: {"value": body(error)} for name, error in examples.items()}
    content = {"application/json": {"schema": _error_schema(status, body), "examples": shown}}
    return {"description": description, "content": content, "headers": _error_headers(status)}


def _error_schema(status: int, body: Callable[[errors.GatewayError], Json]) -> Json:
    if body is bodies.gen:
        return schema(GenError, "serialization")
    nest = schema(NestError, "serialization")
    return {"anyOf": [nest, schema(SafetyError, "serialization")]} if status == 400 else nest


def schema(model: type[BaseModel], mode: JsonSchemaMode) -> Json:
    """A model's JSON schema with its references put in place: inside a route they would lead nowhere."""
    whole = model.model_json_schema(by_alias=True, mode=mode)
    definitions = whole.pop("$defs", {})

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            rest = {name: value for name, value in node.items() if name != "$ref"}
            return plain(definitions[node["$ref"].rpartition("/")[2]] | rest)
        node = {_KEYWORDS.get(name, name): plain(value) for name, value in node.items() if name != "title"}
        return _nullable(node) if "properties" in node and mode == "validation" else node

    described: Json = plain(whole)
    return described


_KEYWORDS = {"ge": "minimum", "le": "maximum"}
"""Where a field converts its value first, pydantic leaves the names of its own constraints in the schema."""


def _nullable(node: Json) -> Json:
    """Null is as good as absent for every field that is not required."""
    required = node.get("required", ())
    fields = {
        name: field if name in required or "type" not in field else _or_null(field)
        for name, field in node["properties"].items()
    }
    return {**node, "properties": fields}


def _or_null(field: Json) -> Json:
    """Returns the schema of the field or null. Description and default stay outside `anyOf`, where
    documentation tools look for them."""
    outside = {name: value for name, value in field.items() if name in ("description", "default")}
    inside = {name: value for name, value in field.items() if name not in outside}
    return {"anyOf": [inside, {"type": "null"}], **outside}


def form_schema(contract: type[Contract], example: Json) -> Json:
    """Returns the schema of the same fields in a form: bracket names, and files where JSON has base64.

    The values of the JSON `example` become the fields' examples, with which Swagger UI fills the form.
    """
    described = schema(contract, "validation")
    fields: Json = {}
    required: list[str] = []
    _flatten("", described, fields, required)
    for name, value in _leaves("", example):
        if name in fields:
            fields[name] = {**fields[name], "examples": [value]}
    for upload, most in contract.uploads.items():
        name = upload.rpartition("[")[2].rstrip("]")
        about = f"{words(contract.__name__, name)} A PNG, JPEG, WebP or GIF file."
        if upload.endswith("]"):
            fields |= {
                place: _FILE | {"description": about} for place in fields if place.endswith(f"[{name}]")
            }
        else:
            several = {"type": "array", "items": _FILE} | _pictures(described["properties"], upload)
            fields = {upload: (_FILE if most == 1 else several) | {"description": about}, **fields}
            required.append(upload)
    return {"type": "object", "properties": fields, "required": required}


_FILE = {"type": "string", "format": "binary"}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the form names and values of a JSON value: `{"a": {"b": [1]}}` yields `a[b][0]` and 1."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for inner, one in value.items():
            yield from _leaves(f"{name}[{inner}]" if name else str(inner), one)
    else:
        yield name, value


def _pictures(fields: Json, upload: str) -> Json:
    """How many files an upload takes: as many as its field, or as all together when it has none."""
    wanted = [fields[upload]] if upload in fields else fields.values()
    lists = [field for field in wanted if field.get("items", {}).get("format") == "picture"]
    single = sum(field.get("format") == "picture" for field in wanted)
    return {name: single + sum(field[name] for field in lists) for name in ("minItems", "maxItems")}


def _flatten(name: str, field: Json, into: Json, required: list[str] | None) -> None:
    """`{"a": {"b": …}}` becomes `a[b]`; of a list the first two places show; pictures come as files.

    Names of required fields are added to `required`, which is None below an optional field. A field that JSON
    requires under a condition (`then`) is optional in the form; one under `else` is required.
    """
    if "anyOf" in field:
        value = next(part for part in field["anyOf"] if part.get("type") != "null")
        field = {**value, **{key: inner for key, inner in field.items() if key != "anyOf"}}
    if "properties" in field:
        wanted = {*field.get("required", ()), *field.get("else", {}).get("required", ())}
        for inner, inner_field in field["properties"].items():
            place = f"{name}[{inner}]" if name else inner
            _flatten(place, inner_field, into, required if inner in wanted else None)
        for rule in field.get("allOf", ()):
            _flatten(name, rule["then"], into, None)
    elif field.get("type") == "array":
        element = {"description": field["description"], **field["items"]}
        for index in range(2):
            within = required if index < field.get("minItems", 0) else None
            _flatten(f"{name}[{index}]", element, into, within)
    elif field.get("format") == "picture":
        if name.endswith("[bytesBase64Encoded]"):
            _put(name.replace("[bytesBase64Encoded]", "[image]"), _FILE, into, required)
    elif "type" in field:
        _put(name, field, into, required)


def _put(name: str, field: Json, into: Json, required: list[str] | None) -> None:
    into[name] = field
    if required is not None:
        required.append(name)
