"""What the OpenAPI document says about a route of the Nest dialect: its body, its response, its errors."""

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from app.api.openapi.errors import ERRORS, failures
from app.api.openapi.forms import form_schema
from app.api.openapi.headers import IDEMPOTENCY_KEY, MADE_HEADERS
from app.api.openapi.schemas import Json, schema
from app.contract.reading import Contract

_MISSING: Json = {
    "filtered": [{"raiFilteredReason": "The model returned no picture"}],
    "failed": [{"message": "the vendor's quota is used up"}],
}
"""What a response says about missing samples."""


def described(
    contract: type[Contract],
    answers: type[BaseModel] | tuple[type[BaseModel], ...],
    *,
    request_example: Json,
    answer_example: Json,
) -> dict[str, Any]:
    """Returns arguments for a route's decorator: FastAPI cannot describe a body that the route reads."""
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
            **failures(*ERRORS),
        },
        "openapi_extra": {
            "parameters": [IDEMPOTENCY_KEY],
            "requestBody": {"required": True, "content": content},
        },
    }
