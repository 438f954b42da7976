"""Over REST, requests and answers are valid as Google's own messages."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.cloud.aiplatform_v1.types import (
    Candidate,
    GenerateContentRequest,
    GenerateContentResponse,
    PredictRequest,
    PredictResponse,
)
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from app.emulator.server import Emulator
from tests.support.vertex_client import ASK, PARENT, Json, Reply, ask_grpc, ask_rest, picture

WIRE = Path(__file__).parents[1] / "recordings/vertex"
IMAGEN = "imagen-4.0-generate-001:predict"
GEMINI = "gemini-3-pro-image:generateContent"
V1 = "google.cloud.aiplatform.v1"
DATA = base64.b64encode(picture()).decode()

RECORDED = [
    pytest.param(case, id=case["name"])
    for file in sorted(WIRE.glob("*.json"))
    for case in json.loads(file.read_text("utf-8"))["cases"]
    if "request_json" in case
]


def said(*parts: Any, **more: Any) -> Json:
    return {"contents": [{"role": "user", "parts": [{"text": "a pear"}, *parts]}], **more}


def inline(data: Any, mime_type: str = "image/png") -> Json:
    return {"inlineData": {"mimeType": mime_type, "data": data}}


def unknown(name: str, at: str = "", why: str = "Cannot find field.") -> tuple[str, str]:
    where = f" at '{at}'" if at else ""
    return at, f'Invalid JSON payload received. Unknown name "{name}"{where}: {why}'


def invalid(at: str, kind: str, value: str) -> tuple[str, str]:
    return at, f"Invalid value at '{at}' ({kind}), {value}"


NO_LIST = "Proto field is not repeating, cannot start list."
SEED = "generation_config.seed", "TYPE_INT32"
MODALITY = f"type.googleapis.com/{V1}.GenerationConfig.Modality"
PART = "contents[0].parts[1]"
REFUSED: list[tuple[Any, ...]] = [
    (GEMINI, said(x=1), unknown("x")),
    (GEMINI, said(x=1, y={}), unknown("x"), unknown("y")),
    (GEMINI, said({"fileUri": "gs://a/b"}), unknown("fileUri", PART)),
    (GEMINI, said(generationConfig={"imageConfig": {"size": "1K"}}),
     unknown("size", "generation_config.image_config")),
    (GEMINI, said(generation_config={"image_config": {"prominentPersons": "x"}}),
     unknown("prominentPersons", "generation_config.image_config")),
    (GEMINI, said(generationConfig={"outputConfig": {}}), unknown("outputConfig", "generation_config")),
    (GEMINI, said(generationConfig=[]), unknown("generationConfig", "", NO_LIST)),
    (GEMINI, {"contents": "a pear"}, invalid("contents", f"type.googleapis.com/{V1}.Content", '"a pear"')),
    (GEMINI, {"contents": [None]}, invalid("contents[0]", f"type.googleapis.com/{V1}.Content", "null")),
    (GEMINI, said({"text": 5}), invalid(f"{PART}.text", "TYPE_STRING", "5")),
    (GEMINI, said({"text": ["a"]}), invalid(f"{PART}.text", "TYPE_STRING", '["a"]')),
    (GEMINI, said({"text": "a", "thought": "true"}), invalid(f"{PART}.thought", "TYPE_BOOL", '"true"')),
    (GEMINI, said(generationConfig={"seed": 1.5}), invalid(*SEED, "1.5")),
    (GEMINI, said(generationConfig={"seed": "seven"}), invalid(*SEED, '"seven"')),
    (GEMINI, said(generationConfig={"seed": True}), invalid(*SEED, "true")),
    (GEMINI, said(generationConfig={"seed": 2**31}), invalid(*SEED, "2147483648")),
    (GEMINI, said(generationConfig={"topP": "much"}),
     invalid("generation_config.top_p", "TYPE_FLOAT", '"much"')),
    (GEMINI, said(generationConfig={"responseModalities": ["TEXT", "SMELL"]}),
     invalid("generation_config.response_modalities[1]", MODALITY, '"SMELL"')),
    (GEMINI, said(safetySettings=[{"category": "HARM_CATEGORY_RAIN", "threshold": "OFF"}]),
     invalid("safety_settings[0].category", f"type.googleapis.com/{V1}.HarmCategory",
             '"HARM_CATEGORY_RAIN"')),
    (GEMINI, said(labels={"team": 1}),
     invalid("labels", f"type.googleapis.com/{V1}.GenerateContentRequest.LabelsEntry", '{"team":1}')),
    (GEMINI, said(inline("data:image/png;base64,AAAA")), invalid(
        f"{PART}.inline_data.data", "TYPE_BYTES",
        'Base64 decoding failed for "data:image/png;base64,AAAA"')),
    (GEMINI, said(inline("é" * 200)), invalid(
        f"{PART}.inline_data.data", "TYPE_BYTES", f'Base64 decoding failed for "{"é" * 99}…')),
    (GEMINI, said(inline(5)),
     invalid(f"{PART}.inline_data.data", "TYPE_BYTES", "Base64 decoding failed for 5")),
    (IMAGEN, {"instances": [{"prompt": "a pear"}], "parameter": {}}, unknown("parameter")),
    (IMAGEN, {"instances": {"prompt": "a pear"}},
     invalid("instances", "type.googleapis.com/google.protobuf.Value", '{"prompt":"a pear"}')),
    (IMAGEN, {"contents": []}, unknown("contents")),
    ("no-such-model:predict", {"x": 1}, unknown("x")),
]  # fmt: skip
PYTHON_IS_LAX = {
    unknown("generationConfig", "", NO_LIST),
    *(wanted for _, _, wanted, *_ in REFUSED if "(TYPE_BYTES)" in wanted[1]),
}
"""json_format accepts these: an empty list as a message, and base64 with invalid characters."""


@pytest.mark.parametrize(
    ("model", "body", "wanted"),
    [pytest.param(model, body, wanted, id=wanted[0][1][:90]) for model, body, *wanted in REFUSED],
)
def test_a_body_that_is_not_googles_message_is_refused_with_googles_texts(
    model: str, body: Json, wanted: list[tuple[str, str]], emulator: Emulator
) -> None:
    kind = PredictRequest if model.endswith("predict") else GenerateContentRequest
    if wanted[0] not in PYTHON_IS_LAX:
        with pytest.raises(ParseError):
            ParseDict(body, kind.pb()())
    violations = [{"field": field, "description": text} for field, text in wanted]
    error = {
        "code": 400,
        "message": "\n".join(text for _, text in wanted),
        "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}],
    }
    assert ask_rest(emulator, model, body) == Reply(400, {"error": error})
    assert [(call.status, call.paid, call.finished) for call in emulator.calls.list()] == [(400, 0, True)]


def test_two_of_a_oneof_are_refused(emulator: Emulator) -> None:
    reply = ask_rest(emulator, GEMINI, said(inline(DATA) | {"text": "a"}))
    assert (reply.status, reply.body["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert 'multiple "data" oneof fields' in reply.body["error"]["message"]


def test_body_that_is_nested_too_deep_is_refused(emulator: Emulator) -> None:
    deep: Json = {}
    for _ in range(150):
        deep = {"a": deep}
    reply = ask_rest(emulator, IMAGEN, {"instances": [deep]})
    assert (reply.status, reply.body["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"seed": 7}, {"seed": "7"}, id="int as text"),
        pytest.param({"seed": 7}, {"seed": 7.0}, id="int as double"),
        pytest.param({"responseModalities": ["IMAGE"]}, {"response_modalities": [2]}, id="enum as number"),
        pytest.param(
            {"imageConfig": {"aspectRatio": "4:3"}}, {"image_config": {"aspect_ratio": "4:3"}}, id="case"
        ),
        pytest.param({"seed": None}, {}, id="null is not set"),
    ],
)
def test_proto_json_has_several_spellings(first: Json, second: Json, emulator: Emulator) -> None:
    for config in (first, second):
        assert ask_rest(emulator, GEMINI, said(generationConfig=config)).status == 200
    assert emulator.calls.list()[0].body == emulator.calls.list()[1].body


@pytest.mark.parametrize("spelled", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["=", ""])
def test_base64_has_several_spellings(
    spelled: Callable[[bytes], bytes], padding: str, emulator: Emulator
) -> None:
    data = spelled(picture((61, 47), "#fbefbe", "JPEG")).decode().rstrip("=")
    data += padding * (-len(data) % 4)
    assert ask_rest(emulator, GEMINI, said(inline(data, "image/jpeg"))).status == 200


@pytest.mark.parametrize("body", [said(generationConfig={"seed": 7}), said(inline(DATA))])
def test_both_fronts_hand_on_the_same_body(body: Json, emulator: Emulator) -> None:
    for ask in (ask_rest, ask_grpc):
        ask(emulator, GEMINI, body)
    over_rest, over_grpc = emulator.calls.list()
    assert over_rest.body == over_grpc.body


def test_newer_fields_reach_the_service_in_either_spelling(emulator: Emulator) -> None:
    prefix = {"outputUriPrefix": "gs://my-bucket/out"}
    camel = said(outputConfig=prefix, generationConfig={"imageConfig": {"prominentPeople": "BLOCK"}})
    snake = said(output_config=prefix, generation_config={"image_config": {"prominent_people": "BLOCK"}})
    for body in (camel, snake):
        reply = ask_rest(emulator, GEMINI, body)
        [*_, shown] = reply.body["candidates"][0]["content"]["parts"]
        assert shown["fileData"]["fileUri"].startswith(prefix["outputUriPrefix"])
    first, second = emulator.calls.list()
    assert first.body == second.body
    assert first.body["generationConfig"] == {"imageConfig": {"prominentPeople": "BLOCK"}}


def canonical(model: str, answer: Json) -> Json:
    """Returns the answer, parsed strictly into Google's message and printed again."""
    kind = PredictResponse if model.endswith("predict") else GenerateContentResponse
    return MessageToDict(ParseDict(answer, kind.pb()()))


@pytest.mark.usefixtures("recorded_inputs")
@pytest.mark.parametrize("case", RECORDED)
def test_answer_is_googles_message_as_json(case: Json, emulator: Emulator) -> None:
    model = case["path"].rpartition("/")[2]
    answer = ask_rest(emulator, model, case["request_json"]).body
    assert canonical(model, answer) == answer


@pytest.mark.parametrize("kind", ["blocked-prompt", "blocked-output", "text-only", "empty"])
@pytest.mark.parametrize("model", [IMAGEN, GEMINI])
def test_answer_without_pictures_is_google_s_message_as_json(
    kind: str, model: str, emulator: Emulator
) -> None:
    body = {"instances": [{"prompt": "a pear"}]} if model == IMAGEN else said()
    reply = ask_rest(emulator, model, body, trouble=kind)
    if (model, kind) == (IMAGEN, "blocked-prompt"):
        assert reply.status == 400
        return
    answer = json.loads(json.dumps(reply.body))
    if kind == "blocked-output" and model == GEMINI:  # newer than v1's message, and text nevertheless
        newer = answer["candidates"][0].pop("finishReason")
        assert newer == "IMAGE_SAFETY"
        assert newer not in Candidate.FinishReason.__members__
    assert canonical(model, answer) == answer


def test_unknown_method_is_not_found(emulator: Emulator) -> None:
    url = f"{emulator.http_url}/v1/{PARENT}/imagen-4.0-generate-001:explain"
    assert httpx.post(url, json={}).status_code == 404


@pytest.mark.parametrize("ask", ASK)
def test_the_two_fronts_agree(ask: Callable[..., Reply], emulator: Emulator) -> None:
    reply = ask(emulator, GEMINI, said(generationConfig={"seed": 7, "temperature": 0.7}))
    assert reply == ask_rest(emulator, GEMINI, said(generationConfig={"seed": 7, "temperature": 0.7}))
