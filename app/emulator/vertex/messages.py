"""Requests as Google's published v1 messages: over both transports the service sees the same proto-JSON.

A REST body must parse into the message of its method. The only exceptions are fields that the real service
has and the published messages do not have yet (`_NEWER`): google-genai sends them over REST.
"""

from collections.abc import Iterator
from typing import Any, cast

import orjson
from google.cloud.aiplatform_v1.types import GenerateContentRequest, PredictRequest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pydantic.alias_generators import to_snake

from app.emulator.calls import Json
from app.emulator.vertex.wire import Refusal, decode_base64, detail

REQUESTS: dict[str, type[Message]] = {
    "predict": PredictRequest.pb(),
    "generateContent": GenerateContentRequest.pb(),
}
_RESOURCES = {"predict": "endpoint", "generateContent": "model"}
_NEWER = {
    "predict": (),
    "generateContent": (
        ("outputConfig",),  # {"outputUriPrefix": "gs://…"}
        ("generationConfig", "imageConfig", "prominentPeople"),
    ),
}
_SHOWN = 100  # characters of an invalid value in an error message


def as_proto_json(method: str, message: Message) -> tuple[str, Json]:
    """Returns the model's resource name, and the rest of the request as proto-JSON."""
    body = MessageToDict(message)
    resource: str = body.pop(_RESOURCES[method], "")
    return resource, body


def check_rest_body(method: str, body: Json) -> Json:
    """Returns a REST body as `as_proto_json` returns it. Raises Refusal (400) with Google's own messages.

    Removes the newer fields from `body`.
    """
    newer = [(path, value) for path in _NEWER[method] if (value := _take(body, path)) is not None]
    kind = REQUESTS[method]
    if violations := list(_violations(body, cast(Descriptor, kind.DESCRIPTOR), "")):
        raise _refused(violations)
    try:
        _, known = as_proto_json(method, ParseDict(body, kind()))
    except ParseError as exc:  # a fault of the body as a whole: two fields of a oneof, nested too deep
        text = f"Invalid JSON payload received. {str(exc).splitlines()[0]}"
        raise _refused([{"field": "", "description": text}]) from exc
    for path, value in newer:
        _put(known, path, value)
    return known


def _take(body: Json, path: tuple[str, ...]) -> Any:
    """Removes the field, in camel or snake case, and returns it. Returns None without the field."""
    key = next((name for name in (path[0], to_snake(path[0])) if name in body), None)
    if key is None or len(path) == 1:
        return None if key is None else body.pop(key)
    return _take(body[key], path[1:]) if isinstance(body[key], dict) else None


def _put(body: Json, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        body = body.setdefault(name, {})
    body[path[-1]] = value


def _refused(violations: list[dict[str, str]]) -> Refusal:
    text = "\n".join(violation["description"] for violation in violations)
    return Refusal(400, "INVALID_ARGUMENT", text, [detail("BadRequest", fieldViolations=violations)])


def _violations(body: Json, message: Descriptor, path: str) -> Iterator[dict[str, str]]:
    """Yields every unknown name and invalid value of `body`. `path` leads to `body`, in snake case."""
    for name, value in body.items():
        field = message.fields_by_camelcase_name.get(name) or message.fields_by_name.get(name)
        where = f"{path}.{to_snake(name)}".removeprefix(".")
        if field is None:
            yield _unknown(name, path, "Cannot find field.")
        elif value is None:
            continue
        elif _is_leaf(field):
            yield from _leaf_violations(value, field, where)
        elif isinstance(value, list) and not field.is_repeated:
            yield _unknown(name, path, "Proto field is not repeating, cannot start list.")
        elif isinstance(value, list):
            for at, item in enumerate(value):
                yield from _message_violations(item, field, f"{where}[{at}]")
        elif field.is_repeated:
            yield _invalid(value, field, where)
        else:
            yield from _message_violations(value, field, where)


def _is_leaf(field: FieldDescriptor) -> bool:
    """Whether json_format checks the field as a whole: a scalar, a map, or one of protobuf's own messages."""
    message = field.message_type
    return (
        message is None or message.GetOptions().map_entry or message.full_name.startswith("google.protobuf.")
    )


def _message_violations(value: Any, field: FieldDescriptor, where: str) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        yield from _violations(value, cast(Descriptor, field.message_type), where)
    else:
        yield _invalid(value, field, where)


def _leaf_violations(value: Any, field: FieldDescriptor, where: str) -> Iterator[dict[str, str]]:
    listed = isinstance(value, list) and field.is_repeated and field.message_type is None
    for at, item in enumerate(value if listed else [value]):
        try:
            if field.type == FieldDescriptor.TYPE_BYTES and isinstance(item, str):
                decode_base64(item, where)  # json_format skips characters that are not base64
            alone = GetMessageClass(cast(Descriptor, field.containing_type))()
            ParseDict({field.name: [item] if listed else item}, alone)
        except (ParseError, Refusal):
            yield _invalid(item, field, f"{where}[{at}]" if listed else where)


def _unknown(name: str, path: str, why: str) -> dict[str, str]:
    where = f" at '{path}'" if path else ""
    return {
        "field": path,
        "description": f'Invalid JSON payload received. Unknown name "{name}"{where}: {why}',
    }


def _invalid(value: Any, field: FieldDescriptor, where: str) -> dict[str, str]:
    named = field.message_type or field.enum_type
    if named is not None:
        kind = f"type.googleapis.com/{named.full_name}"
    else:
        kind = FieldDescriptorProto.Type.Name(cast(FieldDescriptorProto.Type.ValueType, field.type))
    shown = orjson.dumps(value).decode()
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    if field.type == FieldDescriptor.TYPE_BYTES:
        shown = f"Base64 decoding failed for {shown}"
    return {"field": where, "description": f"Invalid value at '{where}' ({kind}), {shown}"}
