"""JSON schemas of the contract's types."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

Json = dict[str, Any]


def schema(model: type[BaseModel], mode: JsonSchemaMode) -> Json:
    """Returns a model's JSON schema with its `$ref`s resolved: inside a route they would point nowhere."""
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
"""Names that pydantic leaves in the schema of fields with a converter, and their JSON Schema names."""


def _nullable(node: Json) -> Json:
    """Returns the schema with null allowed for all optional fields."""
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
