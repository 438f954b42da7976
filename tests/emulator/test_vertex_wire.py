"""Every request recorded from Google's own client is answered with pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from tests.support.vertex_client import (
    ASK,
    PARENT,
    Json,
    Reply,
    ask_grpc,
    ask_rest,
    fetched,
    opened,
)

WIRE = Path(__file__).parents[1] / "recordings/vertex"
DEFAULT_SAMPLES = {"text-to-image": 4, "image-edit": 4, "image-customize": 4}
V1_CANNOT_SAY_OUTPUT_CONFIG = "gemini3pro-output-to-gcs"


RECORDED = [
    pytest.param(case, id=case["name"])
    for file in sorted(WIRE.glob("*.json"))
    for case in json.loads(file.read_text("utf-8"))["cases"]
    if "request_json" in case
]


@pytest.mark.usefixtures("recorded_inputs")
@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("case", RECORDED)
def test_recorded_request_is_answered_with_pictures(
    case: Json, ask: Callable[..., Reply], emulator: Emulator
) -> None:
    model, request = case["path"].rpartition("/")[2], case["request_json"]
    reply = ask(emulator, model, request)
    assert reply.status == 200, reply.body
    if model.endswith(":predict"):
        parameters = request.get("parameters", {})
        shown = [each for each in reply.body["predictions"] if "contentType" not in each]
        samples = parameters.get("sampleCount", DEFAULT_SAMPLES.get(case["endpoint"], 1))
        mime_type = parameters.get("outputOptions", {}).get("mimeType", "image/png")
        where = parameters.get("storageUri")
    else:
        parts = reply.body["candidates"][0]["content"]["parts"]
        pictures = [part for part in parts if "text" not in part and not part.get("thought")]
        shown = [part.get("inlineData") or part["fileData"] for part in pictures]
        samples, mime_type = 1, "image/png"
        where = request.get("outputConfig", {}).get("output_uri_prefix")
        if ask.__name__ == "ask_grpc" and case["name"] == V1_CANNOT_SAY_OUTPUT_CONFIG:
            where = None
    assert [each["mimeType"] for each in shown] == [mime_type] * samples
    for each in shown:
        uri = each.get("gcsUri") or each.get("fileUri")
        assert (uri is None) == (where is None)
        if uri is not None:
            assert uri.startswith(where)
            each = {"data": fetched(emulator, uri)}
        assert opened(each.get("bytesBase64Encoded") or each["data"]).get_format_mimetype() == mime_type
    assert emulator.calls.paid == samples


def test_both_versions_of_the_path_lead_to_the_same(emulator: Emulator) -> None:
    body = {"instances": [{"prompt": "a pear"}], "parameters": {"seed": 7, "addWatermark": False}}
    model = "imagen-4.0-generate-001:predict"
    first, second = (ask_rest(emulator, model, body, version=version) for version in ("v1", "v1beta1"))
    assert first == second


ANSWERS = {case["name"]: case for case in json.loads((WIRE / "responses.json").read_text("utf-8"))["cases"]}
NOT_ON_GRPC = {"ok-200-not-json"}  # there is nothing but messages
ONLY_NUMBERS_ON_GRPC = {
    "gemini-image-prohibited": ("finishReason", 12),
    "gemini-image-other": ("finishReason", 14),
    "gemini-unknown-finish-reason": ("finishReason", 999),
    "gemini-prompt-blocked-image-safety": ("blockReason", 7),
}


def methods(case: Json) -> str:
    gemini = case["sdk_call"].endswith("generate_content")
    return "gemini-2.5-flash-image:generateContent" if gemini else "imagen-4.0-generate-001:predict"


@pytest.mark.parametrize("name", ANSWERS)
def test_recorded_answer_is_given_as_it_is_over_rest(name: str, emulator: Emulator) -> None:
    status, body = ANSWERS[name]["http_status"], ANSWERS[name]["response_body"]
    emulator.troubles.set("answer", arg={"status": status, "body": body})
    url = f"{emulator.http_url}/v1/{PARENT}/{methods(ANSWERS[name])}"
    response = httpx.post(url, json={})
    assert response.status_code == status
    assert (response.text if isinstance(body, str) else response.json()) == body


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - NOT_ON_GRPC))
def test_recorded_answer_is_given_in_messages_over_grpc(name: str, emulator: Emulator) -> None:
    status, body = ANSWERS[name]["http_status"], ANSWERS[name]["response_body"]
    emulator.troubles.set("answer", arg={"status": status, "body": body})
    reply = ask_grpc(emulator, methods(ANSWERS[name]), {})
    wanted = body[0] if isinstance(body, list) else without_empty_lists(body)
    if name in ONLY_NUMBERS_ON_GRPC:
        key, number = ONLY_NUMBERS_ON_GRPC[name]
        part = wanted["candidates"][0] if key == "finishReason" else wanted["promptFeedback"]
        part[key] = number
    assert reply == Reply(status, wanted)


def without_empty_lists(value: Any) -> Any:
    """Protobuf does not distinguish an empty list from a missing one."""
    if isinstance(value, dict):
        return {key: without_empty_lists(item) for key, item in value.items() if item != []}
    return [without_empty_lists(item) for item in value] if isinstance(value, list) else value
