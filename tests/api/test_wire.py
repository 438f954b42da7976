"""A caller's body reaches the vendor as recorded, and each recorded answer reaches the caller."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of
from tests.support import vertex_recordings as wire
from tools.rig.bodies import MODELS, as_json, body, path, without_receipt

INTERNAL = {"statusCode": 500, "message": "Terjadi kesalahan internal"}
SHORT = {
    "statusCode": 400,
    "message": "Request blocked by safety filters",
    "raiFilteredReason": "The model returned no picture",
}
STORED_BY_THE_GATEWAY = {"imagen4-storage-uri", "upscale-gcs-in-gcs-out", "vto-storage-uri"}
"""Recorded with a storageUri, which the gateway does not forward: it stores the pictures itself."""

CASES = [pytest.param(case, id=case["name"]) for case in wire.cases() if "contract_body" in case]


@pytest.fixture(scope="module")
def recording(start: Start, recorded_inputs: None) -> Iterator[str]:
    """A gateway that may read from and write to the recordings' bucket, where their pictures lie."""
    with start(gcs_allowed_prefixes="gs://my-bucket,gs://image-gateway", retry_pause_seconds=0.02) as url:
        yield url


@pytest.fixture
def caller(recording: str, emulator: Emulator) -> Iterator[Client]:
    client = client_of(recording)
    yield client
    client.http.close()


@pytest.mark.parametrize("case", CASES)
def test_a_body_reaches_the_vendor_as_recorded(caller: Client, emulator: Emulator, case: wire.Json) -> None:
    recorded = deepcopy(case["request_json"])
    if case["name"] in STORED_BY_THE_GATEWAY:
        del recorded["parameters"]["storageUri"]
    answer = caller.post(case["contract_endpoint"], case["contract_body"])
    assert answer.status_code == 200, answer.text
    (sent,) = (call for call in emulator.calls.list() if call.vendor == "vertex")
    assert f"{sent.model}:{sent.method}" == case["path"].rpartition("/")[2]
    assert wire.differences(recorded, sent.body) == []
    assert "storageUri" not in sent.body.get("parameters", {})


ANSWERS = {
    case["name"]: case for case in json.loads((wire.FOLDER / "responses.json").read_text("utf-8"))["cases"]
}
ENDPOINTS = {"upscale_image": "image-upscale", "edit_image": "image-edit"}


def pictures(name: str) -> list[str]:
    """The base64 of the pictures in a recorded answer."""
    return re.findall(r'"(?:bytesBase64Encoded|data)": "([^"]+)"', json.dumps(ANSWERS[name]["response_body"]))


def made(name: str, count: int, operation: str = "text-to-image", **more: Any) -> tuple[int, Any]:
    predictions = [{"bytesBase64Encoded": one, "mimeType": "image/png"} for one in pictures(name)[:count]]
    return 200, {"predictions": predictions, "model": MODELS[operation], **more}


def blocked(code: int, category: str, side: str, reason: str, hint: str) -> tuple[int, Any]:
    return 400, {
        "success": False,
        "statusCode": 400,
        "message": f"Request blocked by safety filters: {category} in {side}",
        "raiFilteredReason": reason,
        "errorCode": code,
        "category": category,
        "filteredOn": side,
        "hint": hint,
    }


def refused(message: str | list[str]) -> tuple[int, Any]:
    return 400, {"statusCode": 400, "message": message, "error": "Bad Request"}


VIOLENCE = {
    "raiFilteredReason": "Support codes: 56562880, 63429089",
    "errorCode": 56562880,
    "category": "Violence",
    "filteredOn": "output",
    "hint": "Avoid violent or graphic content in prompts",
}
GEMINI = "gemini-2.5-flash-image"
EXPECTED: dict[str, tuple[int, Any]] = {
    "predict-two-images": made("predict-two-images", 2),
    "predict-gcs-uri": (400, SHORT),  # never asked for: without bytes there is no picture
    "predict-partial-filtered-text": made("predict-partial-filtered-text", 2, filtered=[VIOLENCE]),
    "predict-filtered-without-code": (400, SHORT),
    "predict-empty-list": (400, SHORT),
    "upscale-one": made("upscale-one", 1, "image-upscale"),
    "edit-filtered": blocked(
        29578790, "Other", "output", "Support codes: 29578790", "Rephrase the prompt and try again"
    ),
    "gemini-one-image": made("gemini-one-image", 1),
    "gemini-two-images-one-candidate": made("gemini-two-images-one-candidate", 1),
    "gemini-image-prohibited": (400, SHORT),
    "gemini-prompt-blocked-image-safety": (400, SHORT),
    "gemini-image-other": (400, SHORT),
    "gemini-max-tokens-empty": (400, SHORT),
    "gemini-unknown-finish-reason": (400, SHORT),
    "error-400-prompt-filtered-code-in-details": blocked(
        42876398, "Other", "prompt", "Support codes: 42876398", "Rephrase the prompt and try again"
    ),
    "error-400-bad-request-field-violation": refused(
        [f"aspectRatio has a value that {GEMINI} does not take"]
    ),
    "error-401": (500, INTERNAL),
    "error-429": (429, {"statusCode": 429, "message": "Too Many Requests"}),
    "error-500": (500, INTERNAL),
    "error-list-wrapped": refused("imagen-3.0-generate-001 does not take this request"),
    "ok-200-not-json": (500, INTERNAL),
}


def test_every_recorded_answer_is_expected() -> None:
    assert EXPECTED.keys() == ANSWERS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_answer_reaches_the_caller(caller: Client, emulator: Emulator, name: str) -> None:
    case, (status, expected) = ANSWERS[name], EXPECTED[name]
    answer = {"status": case["http_status"], "body": case["response_body"]}
    emulator.troubles.set("answer", vendor="vertex", arg=answer, times=3)
    method = case["sdk_call"].rpartition(".")[2]
    operation = ENDPOINTS.get(method, "text-to-image")
    wish = {"prompt": "a crane"} if operation == "text-to-image" else as_json(body(operation))
    if method == "generate_content":
        wish["model"] = GEMINI
        if "predictions" in expected:
            expected["model"] = GEMINI
    told = caller.post(path(operation), {**wish, "responseFormat": "b64_json"})
    unknown = name in ("error-500", "ok-200-not-json")
    assert (told.status_code, without_receipt(told) if unknown else told.json()) == (status, expected)
