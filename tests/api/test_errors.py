"""Every error has a code for programs. The log gives the reason without values. Browsers may read the
headers."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of
from tests.support.log_lines import written_lines

TEXT_TO_IMAGE = "/api/v1/image/text-to-image"
UPSCALE = "/api/v1/image/image-upscale"
ORIGIN = "https://app.example.com"


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        pytest.param("POST", TEXT_TO_IMAGE, {"json": {}}, 400, "validation", id="validation"),
        pytest.param("POST", "/gen", {"json": {}}, 400, "validation", id="validation of /gen"),
        pytest.param(
            "POST", TEXT_TO_IMAGE, {"headers": {"Authorization": ""}}, 401, "unauthorized", id="token"
        ),
        pytest.param("GET", "/nowhere", {}, 404, "not_found", id="no route"),
        pytest.param("GET", "/gen", {}, 404, "not_found", id="another method"),
        pytest.param("GET", "/docs/assets/nothing.js", {}, 404, "not_found", id="no asset"),
        pytest.param("HEAD", "/nowhere", {}, 404, "not_found", id="without a body"),
        pytest.param(
            "POST",
            TEXT_TO_IMAGE,
            {"content": b" " * (33 * 1024 * 1024), "headers": {"Content-Type": "application/json"}},
            413,
            "payload_too_large",
            id="body too large",
        ),
        pytest.param(
            "POST",
            UPSCALE,
            {"files": {"image": b"a" * (20 * 1024 * 1024 + 1)}},
            413,
            "payload_too_large",
            id="file",
        ),
        pytest.param(
            "POST",
            TEXT_TO_IMAGE,
            {"headers": {"Content-Encoding": "br"}},
            415,
            "unsupported_media",
            id="encoding",
        ),
    ],
)
def test_every_error_carries_a_code(
    client: Client, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answer = client.http.request(method, path, **options)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, code)


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        ("blocked-prompt", 400, "blocked"),
        ("blocked-output", 400, "blocked"),
        ("empty", 400, "blocked"),
        ("429=9", 429, "vendor_quota"),
        ("500", 500, "vendor_failed"),
        ("503=9", 503, "vendor_unavailable"),
        ("hang", 504, "timeout"),
        ("drop", 500, "vendor_failed"),
        ("retired", 500, "vendor_failed"),
    ],
)
def test_trouble_of_a_vendor_carries_a_code(hasty: Client, trouble: str, status: int, code: str) -> None:
    answer = hasty.text_to_image(f"a lighthouse #trouble:{trouble}", responseFormat="b64_json")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, code)


def test_too_many_requests_of_one_user_carry_a_code(start: Start) -> None:
    with start(rate_limit="1/hour") as url:
        client = client_of(url)
        answers = [client.post(TEXT_TO_IMAGE, {}) for _ in range(2)]
        client.http.close()
    assert [answer.headers["X-Error-Code"] for answer in answers] == ["validation", "too_many_requests"]


@pytest.fixture
def hasty(start: Start, emulator: Emulator) -> Iterator[Client]:
    with start(request_timeout_seconds=2, retry_pause_seconds=0.05) as url:
        client = client_of(url)
        yield client
        client.http.close()


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unexpected_file_names_the_right_field(client: Client) -> None:
    answer = client.http.post(UPSCALE, files={"images": b"x"})
    assert answer.json() == {
        "message": "Unexpected field - images",
        "error": "Bad Request",
        "statusCode": 400,
    }
    assert answer.headers["X-Error-Hint"] == "Files are accepted in: image"


def test_an_unexpected_file_of_gen_names_the_right_field(client: Client) -> None:
    answer = client.http.post("/gen", files={"image": b"x"})
    assert answer.json() == {
        "status": "error",
        "error": "Unexpected field - image",
        "details": "Files are accepted in: init_image",
    }


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (TEXT_TO_IMAGE, "The body has no Content-Type: send application/json"),
        (UPSCALE, "The body has no Content-Type: send application/json or multipart/form-data"),
    ],
)
def test_a_body_without_content_type_says_so(client: Client, path: str, sentence: str) -> None:
    answer = client.http.post(path, content=b'{"prompt": "a lighthouse"}')
    assert answer.json() == {"message": sentence, "error": "Bad Request", "statusCode": 400}


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_browsers_may_read_what_the_answer_says(start: Start) -> None:
    with start(cors_origins=ORIGIN) as url:
        answer = httpx.post(url + TEXT_TO_IMAGE, headers={"Origin": ORIGIN})
    exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)
    assert exposed >= {
        *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Error-Code", "X-Error-Hint"),
        *("X-Receipt-Id", "X-Cost-USD", "Idempotency-Replayed", "Location", "Retry-After", "X-Request-Id"),
    }


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def lines(client: Client) -> Iterator[list[str]]:
    """The lines that the gateway logs."""
    with written_lines() as lines:
        yield lines


def of_event(lines: list[str], event: str) -> list[dict[str, Any]]:
    """Returns the log lines of this event, without the fields that every line has."""
    common = {"event", "request_id", "level", "logger", "timestamp"}
    return [
        {name: value for name, value in line.items() if name not in common}
        for line in map(json.loads, lines)
        if line["event"] == event
    ]


def test_a_refused_request_says_which_rule_it_broke(client: Client, lines: list[str]) -> None:
    client.text_to_image("a private wish", sampleCount=9)
    client.http.get("/health")  # after it the first request's line is written
    line = of_event(lines, "request")[0]
    reason = {"status": 400, "code": "validation", "rules": ["sampleCount must not be greater than 4"]}
    assert line | reason == line
    assert of_event(lines, "request failed") == []
    assert "private wish" not in "".join(lines)


def test_a_failure_says_the_vendor_s_code_and_not_its_text(
    client: Client, emulator: Emulator, lines: list[str]
) -> None:
    secret = "projects/acme-1234 lacks a permission"
    body = {"error": {"code": 403, "message": secret, "status": "PERMISSION_DENIED"}}
    emulator.troubles.set("answer", vendor="vertex", arg={"status": 403, "body": body})
    assert client.text_to_image("a lighthouse").status_code == 500
    assert of_event(lines, "request failed") == [
        {"status": 500, "code": "vendor_failed", "vendor_code": "PERMISSION_DENIED"}
    ]
    assert secret not in "".join(lines)


def test_retries_and_storage_trouble_are_warnings_with_their_cause(
    client: Client, emulator: Emulator, lines: list[str]
) -> None:
    emulator.troubles.set("503", vendor="vertex", times=1)
    emulator.troubles.set("503", vendor="gcs", times=1)
    assert client.text_to_image("a lighthouse").status_code == 200
    warnings = [line for line in map(json.loads, lines) if line["level"] == "warning"]
    assert [(line["event"], line["vendor_code"]) for line in warnings] == [
        ("retrying a vendor call", "UNAVAILABLE"),
        ("retrying an upload", "503"),
    ]
