"""The failures of the emulated Vertex, on both transports."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import httpx
import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.cloud.aiplatform_v1 import PredictRequest, PredictResponse
from google.protobuf.json_format import ParseDict

from app.emulator.server import Emulator
from tests.support.vertex_client import ASK, PARENT, Json, Reply, ask_grpc, ask_rest

IMAGEN = "imagen-4.0-generate-001:predict"
GEMINI = "gemini-2.5-flash-image:generateContent"
MODELS = [pytest.param(IMAGEN, id="imagen"), pytest.param(GEMINI, id="gemini")]


def asking(model: str, prompt: str, **parameters: Any) -> Json:
    if model == IMAGEN:
        parameters = {"sampleCount": 1, "includeRaiReason": True, **parameters}
        return {"instances": [{"prompt": prompt}], "parameters": parameters}
    config = {"responseModalities": ["IMAGE"], **parameters}
    return {"contents": [{"role": "user", "parts": [{"text": prompt}]}], "generationConfig": config}


def failure(code: int, status: str, message: str, *details: Json) -> Reply:
    error = {"code": code, "message": message, "status": status}
    return Reply(code, {"error": {**error, "details": list(details)} if details else error})


def retry_info(delay: str) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


QUOTA = "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model."
OVERLOAD = "The service is currently unavailable."


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ("429", failure(429, "RESOURCE_EXHAUSTED", QUOTA, retry_info("1s"))),
        ("429=7", failure(429, "RESOURCE_EXHAUSTED", QUOTA, retry_info("7s"))),
        ("500", failure(500, "INTERNAL", "Internal error encountered.")),
        ("503", failure(503, "UNAVAILABLE", OVERLOAD)),
        ("503=3", failure(503, "UNAVAILABLE", OVERLOAD, retry_info("3s"))),
    ],
)
def test_failure_is_told_with_its_status(
    words: str, reply: Reply, model: str, ask: Callable[..., Reply], emulator: Emulator
) -> None:
    assert ask(emulator, model, asking(model, f"a pear #trouble:{words}")) == reply
    assert [(call.status, call.paid) for call in emulator.calls.list()] == [(reply.status, 0)]


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("model", MODELS)
def test_a_header_names_the_trouble_of_its_call(
    model: str, ask: Callable[..., Reply], emulator: Emulator
) -> None:
    """With the header, the words of the prompt are ignored."""
    told = ask(emulator, model, asking(model, "a pear #trouble:500"), trouble="503=3")
    assert told == failure(503, "UNAVAILABLE", OVERLOAD, retry_info("3s"))


def test_retry_after_is_a_header_too(emulator: Emulator) -> None:
    url = f"{emulator.http_url}/v1/{PARENT}/{IMAGEN}"
    response = httpx.post(url, json=asking(IMAGEN, "a pear #trouble:429=7"))
    assert response.headers["Retry-After"] == "7"


@pytest.mark.parametrize("ask", ASK)
def test_retired_model_is_not_found_and_the_others_are(ask: Callable[..., Reply], emulator: Emulator) -> None:
    emulator.troubles.set("retired", vendor="vertex", model="imagen-4.0-generate-001")
    gone = ask(emulator, IMAGEN, asking(IMAGEN, "a pear"))
    assert (gone.status, gone.body["error"]["status"]) == (404, "NOT_FOUND")
    assert f"`{PARENT}/imagen-4.0-generate-001` was not found" in gone.body["error"]["message"]
    assert ask(emulator, GEMINI, asking(GEMINI, "a pear")).status == 200


PROMPT_BLOCKED = "Image generation failed: the prompt could not be submitted."


def debug_info(code: int) -> Json:
    text = f"[ORIGINAL ERROR] generic::invalid_argument: {PROMPT_BLOCKED} Support codes: {code}"
    return {"@type": "type.googleapis.com/google.rpc.DebugInfo", "detail": text}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(("words", "code"), [("", 42876398), ("=58061214", 58061214)])
def test_imagen_refuses_a_blocked_prompt_with_the_code_in_the_details(
    words: str, code: int, ask: Callable[..., Reply], emulator: Emulator
) -> None:
    reply = ask(emulator, IMAGEN, asking(IMAGEN, f"#trouble:blocked-prompt{words}"))
    assert reply == failure(400, "INVALID_ARGUMENT", PROMPT_BLOCKED, debug_info(code))


@pytest.mark.parametrize("ask", ASK)
def test_gemini_answers_a_blocked_prompt_without_candidates(
    ask: Callable[..., Reply], emulator: Emulator
) -> None:
    reply = ask(emulator, GEMINI, asking(GEMINI, "#trouble:blocked-prompt"))
    feedback = {
        "blockReason": "PROHIBITED_CONTENT",
        "blockReasonMessage": "The prompt was blocked. Support codes: 42876398",
    }
    assert (reply.status, reply.body["promptFeedback"]) == (200, feedback)
    assert "candidates" not in reply.body


def filtered(code: int = 56562880) -> Json:
    text = f"The current safety threshold removed 1 generated image. Support codes: {code}"
    return {"raiFilteredReason": text}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("kind", "parameters", "shown", "paid"),
    [
        pytest.param("blocked-output", {"sampleCount": 2}, [filtered(), filtered()], 0, id="all"),
        pytest.param("blocked-output=63429089", {}, [filtered(63429089)], 0, id="with a code"),
        pytest.param("blocked-output", {"includeRaiReason": False}, [], 0, id="all, without reasons"),
        pytest.param("half-blocked", {"sampleCount": 3}, ["image", filtered(), "image"], 2, id="half"),
        pytest.param(
            "half-blocked",
            {"sampleCount": 4, "includeRaiReason": False},
            ["image", "image"],
            2,
            id="half, without reasons",
        ),
        pytest.param(
            "text-only",
            {},
            [{"raiFilteredReason": "The safety threshold removed 1 generated images. Try another prompt."}],
            0,
            id="without a code",
        ),
        pytest.param("empty", {}, None, 0, id="empty"),
    ],
)
def test_imagen_leaves_out_filtered_pictures(
    kind: str, parameters: Json, shown: Any, paid: int, ask: Callable[..., Reply], emulator: Emulator
) -> None:
    reply = ask(emulator, IMAGEN, asking(IMAGEN, f"#trouble:{kind}", **parameters))
    assert reply.status == 200
    predictions = [
        "image" if "bytesBase64Encoded" in each else each for each in reply.body.get("predictions", [])
    ]
    assert predictions == (shown or [])
    assert (shown is None) == (reply.body == {})
    assert emulator.calls.paid == paid


IMAGE_SAFETY = {"rest": "IMAGE_SAFETY", "grpc": 11}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("kind", "candidate"),
    [
        (
            "blocked-output",
            {
                "finishReason": IMAGE_SAFETY,
                "finishMessage": "The generated image was blocked. Support codes: 56562880",
            },
        ),
        (
            "text-only",
            {
                "finishReason": "STOP",
                "content": {
                    "role": "model",
                    "parts": [{"text": "I cannot draw that. Shall I describe it?"}],
                },
            },
        ),
        ("empty", {"finishReason": "STOP", "content": {"role": "model"}}),
    ],
)
def test_gemini_answers_without_a_picture(
    kind: str, candidate: Json, ask: Callable[..., Reply], emulator: Emulator
) -> None:
    reply = ask(emulator, GEMINI, asking(GEMINI, f"#trouble:{kind}"))
    if candidate["finishReason"] is IMAGE_SAFETY:  # v1's message has the number but not the name
        candidate = {**candidate, "finishReason": IMAGE_SAFETY["rest" if ask is ask_rest else "grpc"]}
    [answered] = reply.body["candidates"]
    assert (reply.status, answered) == (200, candidate)
    assert emulator.calls.paid == 0


@pytest.mark.parametrize("ask", ASK)
def test_half_blocked_is_every_second_call_of_gemini(ask: Callable[..., Reply], emulator: Emulator) -> None:
    body = asking(GEMINI, "#trouble:half-blocked")
    shown = ["content" in ask(emulator, GEMINI, body).body["candidates"][0] for _ in range(4)]
    assert shown == [True, False, True, False]


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("model", MODELS)
def test_answer_is_given_exactly_once(model: str, ask: Callable[..., Reply], emulator: Emulator) -> None:
    body = (
        {"predictions": [{"raiFilteredReason": "Support codes: 29578790"}]}
        if model == IMAGEN
        else {"candidates": [{"finishReason": "MAX_TOKENS", "content": {"role": "model"}}]}
    )
    emulator.troubles.set("answer", vendor="vertex", arg={"status": 200, "body": body})
    assert ask(emulator, model, asking(model, "a pear")) == Reply(200, body)
    assert ask(emulator, model, asking(model, "a pear")).body != body


@pytest.mark.parametrize("ask", ASK)
def test_answer_may_be_an_error(ask: Callable[..., Reply], emulator: Emulator) -> None:
    wanted = failure(403, "PERMISSION_DENIED", "Permission denied on resource project demo-project.")
    emulator.troubles.set("answer", vendor="vertex", arg={"status": 403, "body": wanted.body})
    assert ask(emulator, IMAGEN, asking(IMAGEN, "a pear")) == wanted


@pytest.mark.parametrize("ask", ASK)
def test_slow_is_the_ordinary_answer_later(ask: Callable[..., Reply], emulator: Emulator) -> None:
    begun = time.monotonic()
    assert ask(emulator, IMAGEN, asking(IMAGEN, "a pear #trouble:slow=0.2")).status == 200
    assert time.monotonic() - begun > 0.2
    assert emulator.calls.paid == 1


@pytest.mark.parametrize("kind", ["hang", "slow=600"])
def test_rest_call_is_cancelled_when_the_client_leaves(kind: str, emulator: Emulator) -> None:
    url = f"{emulator.http_url}/v1/{PARENT}/{IMAGEN}"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=asking(IMAGEN, f"#trouble:{kind}"), timeout=0.3)
    emulator.calls.wait_for(lambda calls: calls[0].cancelled)
    [call] = emulator.calls.list()
    assert (call.status, call.paid, call.finished) == (None, 0, True)


def started(channel: grpc.Channel, prompt: str) -> Any:
    """Begins a call that the test cancels."""
    predict = channel.unary_unary(
        "/google.cloud.aiplatform.v1.PredictionService/Predict",
        request_serializer=PredictRequest.serialize,
        response_deserializer=PredictResponse.deserialize,
    )
    request = PredictRequest.pb()(endpoint=f"{PARENT}/{IMAGEN.removesuffix(':predict')}")
    return predict.future(PredictRequest(ParseDict(asking(IMAGEN, prompt), request)))


@pytest.mark.parametrize("kind", ["hang", "slow=600"])
def test_grpc_call_is_cancelled_when_the_client_leaves(kind: str, emulator: Emulator) -> None:
    with grpc.insecure_channel(emulator.grpc_address) as channel:
        calling = started(channel, f"#trouble:{kind}")
        emulator.calls.wait_for(lambda calls: len(calls) == 1)
        calling.cancel()
        emulator.calls.wait_for(lambda calls: calls[0].cancelled)
    [call] = emulator.calls.list()
    assert (call.status, call.paid, call.finished) == (None, 0, True)


@pytest.mark.parametrize("model", MODELS)
def test_dropped_rest_call_is_paid_and_never_answered(model: str, emulator: Emulator) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        ask_rest(emulator, model, asking(model, "a pear #trouble:drop"))
    [call] = emulator.calls.list()
    assert (call.status, call.paid, call.finished, call.cancelled) == (None, 1, True, False)


def test_dropped_grpc_call_is_paid_and_never_answered(emulator: Emulator) -> None:
    with pytest.raises(ServiceUnavailable):
        ask_grpc(emulator, IMAGEN, asking(IMAGEN, "a pear #trouble:drop"))
    [call] = emulator.calls.list()
    assert (call.status, call.paid, call.finished, call.cancelled) == (None, 1, True, False)
    with suppress(ServiceUnavailable):  # gRPC shares connections, and may hand out the broken one once more
        ask_grpc(emulator, IMAGEN, asking(IMAGEN, "a pear"))
    assert ask_grpc(emulator, IMAGEN, asking(IMAGEN, "a pear")).status == 200


def test_three_hundred_calls_may_hang_at_once(emulator: Emulator) -> None:
    with grpc.insecure_channel(emulator.grpc_address) as channel:
        calling = [started(channel, "#trouble:hang") for _ in range(300)]
        emulator.calls.wait_for(lambda calls: len(calls) == 300, timeout=30)
        assert ask_grpc(emulator, IMAGEN, asking(IMAGEN, "a pear")).status == 200
        for call in calling:
            call.cancel()
        emulator.calls.wait_for(lambda calls: sum(call.cancelled for call in calls) == 300, timeout=30)
