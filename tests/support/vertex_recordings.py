"""Compares a request with one recorded from Google's own client, by the recordings' `compare_rules`."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

Json = dict[str, Any]
FOLDER = Path(__file__).parents[1] / "recordings/vertex"

_ANY_CASE = ("safetySetting", "personGeneration")
_OTHER_NAMES = {"computeControl": "enableControlImageComputation"}
_PICTURES = ("bytesBase64Encoded", "data")


def cases() -> list[Json]:
    """Returns the recorded requests of all endpoints."""
    files = (json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json")))
    return [case for file in files for case in file["cases"] if "request_json" in case]


def differences(recorded: Json, sent: Json) -> list[str]:
    """Returns a line for each value of the recorded request that is missing or different in `sent`.

    `sent` can have more fields, because the gateway adds defaults. Its pictures are base64, or the emulator's
    records of them.
    """
    return list(_differences(_canonical(recorded), _canonical(sent), "request"))


def _differences(recorded: Any, sent: Any, path: str) -> list[str]:
    if isinstance(recorded, dict) and isinstance(sent, dict):
        return [
            line
            for name, value in recorded.items()
            for line in _differences(value, sent.get(name), f"{path}.{name}")
        ]
    if isinstance(recorded, list) and isinstance(sent, list) and len(recorded) == len(sent):
        pairs = enumerate(zip(recorded, sent, strict=True))
        return [line for index, pair in pairs for line in _differences(*pair, f"{path}[{index}]")]
    return [] if recorded == sent else [f"{path}: {recorded!r} was recorded, {sent!r} was sent"]


def _canonical(value: Any) -> Any:
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    if not isinstance(value, dict):
        return value
    fields = {}
    for key, member in value.items():
        name = _OTHER_NAMES.get(to_camel(key), to_camel(key))
        fields[name] = member if name == "labels" else _member(name, member)
    if "bytesBase64Encoded" in fields:
        fields.pop("mimeType", None)
    if fields.get("mode") == "upscale":
        del fields["mode"], fields["sampleCount"]
    fields.update(fields.pop("editConfig", {}))
    return fields


def _member(name: str, value: Any) -> Any:
    if name in _ANY_CASE:
        return value.lower()
    if name in _PICTURES and isinstance(value, str):
        data = base64.b64decode(value.translate(str.maketrans("-_", "+/")))
        return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return _canonical(value)
