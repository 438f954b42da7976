"""The emulated Claude accepts what Anthropic's own package sends, on all three platforms."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from app.emulator.vietnamese import translate

WIRE = Path(__file__).parents[1] / "recordings/bedrock"
RECORDED = [json.loads(path.read_text()) for path in sorted(WIRE.glob("req-anthropic-*.json"))]
MODEL = "claude-sonnet-4-6"

Json = dict[str, Any]


@pytest.fixture
def claude(emulator: Emulator) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer key", "anthropic-version": "2026-10-21"}
    with httpx.Client(base_url=emulator.http_url, headers=headers) as client:
        yield client


def ask(prompt: str = "a cat", **fields: Any) -> Json:
    messages = [{"role": "user", "content": prompt}]
    return {"model": MODEL, "max_tokens": 512, "messages": messages} | fields


@pytest.mark.parametrize("recording", RECORDED, ids=lambda recording: recording["name"])
def test_a_recorded_request_is_accepted_and_translated(claude: httpx.Client, recording: Json) -> None:
    authorization = recording["headers"]["authorization"]

    answer = claude.post(
        recording["path"],
        json=recording["request_json"],
        headers={"authorization": authorization.encode("ascii", "ignore").decode()},
    )

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["content"][0]["text"].startswith(
        "a young woman in an ao dai walking on the Japanese Bridge, beautiful sunset, "
    )
    assert (body["model"], body["stop_reason"]) == (MODEL, "end_turn")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"x-api-key": "key", "anthropic-version": "2023-06-01"}, id="old wire"),
        pytest.param({"authorization": "Bearer key", "anthropic-version": "2026-10-21"}, id="new wire"),
    ],
)
def test_both_wire_versions_are_taken(emulator: Emulator, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{emulator.http_url}/v1/messages", json=ask(), headers=headers)

    assert answer.status_code == 200


OLD = {"anthropic-version": "2023-06-01"}

REFUSED = [
    pytest.param({"authorization": ""}, ask(), 401, "authentication_error", id="no key"),
    pytest.param({"anthropic-version": "2020"}, ask(), 400, "invalid_request_error", id="version"),
    pytest.param({}, ask(model="claude-2"), 404, "not_found_error", id="unknown model"),
    pytest.param({}, ask(temperature=0.5), 400, "invalid_request_error", id="temperature"),
    pytest.param(OLD, ask(temperature=2), 400, "invalid_request_error", id="temperature of the old wire"),
    pytest.param({}, ask(max_tokens=0), 400, "invalid_request_error", id="no tokens"),
    pytest.param({}, ask(""), 400, "invalid_request_error", id="empty prompt"),
    pytest.param({}, ask(messages=[]), 400, "invalid_request_error", id="no messages"),
    pytest.param({}, ask("a #trouble:429=7"), 429, "rate_limit_error", id="429"),
    pytest.param({}, ask("a #trouble:500"), 500, "api_error", id="500"),
    pytest.param({}, ask("a #trouble:503"), 529, "overloaded_error", id="503"),
    pytest.param({}, ask("a #trouble:retired"), 404, "not_found_error", id="retired"),
    pytest.param({"x-trouble": "500"}, ask("a #trouble:429"), 500, "api_error", id="header"),
]


@pytest.mark.parametrize(("headers", "body", "status", "kind"), REFUSED)
def test_a_refusal_has_anthropics_shape(
    claude: httpx.Client, headers: dict[str, str], body: Json, status: int, kind: str
) -> None:
    answer = claude.post("/v1/messages", json=body, headers=headers)

    assert answer.status_code == status
    told = answer.json()
    assert (told["type"], told["error"]["type"]) == ("error", kind)


def test_the_old_wire_takes_a_temperature(claude: httpx.Client) -> None:
    assert claude.post("/v1/messages", json=ask(temperature=0.5), headers=OLD).status_code == 200


@pytest.mark.parametrize(
    ("kind", "stop_reason"), [("blocked-prompt", "refusal"), ("text-only", "refusal"), ("empty", "end_turn")]
)
def test_an_answer_without_text_has_status_200(claude: httpx.Client, kind: str, stop_reason: str) -> None:
    body = claude.post("/v1/messages", json=ask(f"a cat #trouble:{kind}")).json()

    assert (body["content"], body["stop_reason"]) == ([], stop_reason)


def test_max_tokens_cut_the_answer(claude: httpx.Client) -> None:
    body = claude.post("/v1/messages", json=ask("a cat " * 100, max_tokens=10)).json()

    assert (body["content"][0]["text"], body["stop_reason"]) == (("a cat " * 100)[:40], "max_tokens")


@pytest.mark.parametrize(
    ("vietnamese", "english"),
    [
        ("Một con mèo trên bàn gỗ", "a cat on wooden table"),
        ("BÌNH MINH trên vịnh Hạ Long", "dawn on Ha Long Bay"),
        ("hai con chim đang bay dưới mưa", "two bird flying under rain"),
        ("a catalogue, not a cat", "a catalogue, not a cat"),
    ],
)
def test_known_phrases_are_translated(vietnamese: str, english: str) -> None:
    assert translate(vietnamese) == english
