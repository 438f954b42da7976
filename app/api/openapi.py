"""What the OpenAPI document says about a route: its body, its answer, and its errors as they are."""

from collections.abc import Callable
from typing import Any

from fastapi import Response
from pydantic import BaseModel

from app.api import errors as bodies
from app.contract import errors
from app.contract.rules import Contract
from app.contract.safety import block

Json = dict[str, Any]

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
    401: ("No valid token", {"unauthorized": errors.Unauthorized()}),
    408: ("The body did not arrive in time", {"timeout": errors.RequestTimedOut()}),
    413: (
        "The body, or one picture in it, is too large",
        {"body": errors.PayloadTooLarge(), "file": errors.PayloadTooLarge(file=True)},
    ),
    415: (
        "A charset or content encoding that is not read",
        {"encoding": errors.UnsupportedMedia('unsupported content encoding "gzip"')},
    ),
    429: (
        "Too many requests: yours here, or ours at the vendor. `Retry-After` says when to come back",
        {"yours": errors.RateLimited(60), "ours": errors.RateLimited(60, by_vendor=True)},
    ),
    500: ("The gateway or the vendor broke", {"internal": errors.UpstreamFailed()}),
    503: ("Busy, or the vendor is down for now", {"unavailable": errors.UpstreamUnavailable()}),
    504: ("Not ready within the deadline", {"timeout": errors.UpstreamTimeout()}),
}


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
    responses: dict[int | str, Json] = {
        200: {
            "description": "The pictures",
            "content": {"application/json": {"schema": answer_schema, "example": answer_example}},
        }
    }
    for status, (description, examples) in _ERRORS.items():
        shown = {name: {"value": body(error)} for name, error in examples.items()}
        content = {"application/json": {"schema": {"type": "object"}, "examples": shown}}
        responses[status] = {"description": description, "content": content}
    content = {"application/json": {"schema": schema(contract, "validation"), "example": request_example}}
    return {
        "response_class": Response,
        "response_model": None,
        "responses": responses,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def schema(model: type[BaseModel], mode: Any) -> Json:
    """A model's JSON schema with its references put in place: inside a route they would lead nowhere."""
    whole = model.model_json_schema(by_alias=True, mode=mode)
    definitions = whole.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            rest = {name: value for name, value in node.items() if name != "$ref"}
            return {**inline(definitions[node["$ref"].rpartition("/")[2]]), **rest}
        return {name: inline(value) for name, value in node.items()}

    return inline(whole)  # type: ignore[no-any-return]
