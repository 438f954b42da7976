"""Whatever a caller sends ends in a body of the contract, soon, unpaid; and the process goes on."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from tests.api.conftest import SECRET, Client, Start, token
from tests.support.log_lines import written_lines
from tools.rig.bodies import as_json, body, path, replaced

PATH = "/api/v1/image/text-to-image"
JSON = {"Content-Type": "application/json"}
MALFORMED = "Malformed JSON: "


@pytest.fixture(autouse=True)
def nothing_is_paid_and_all_goes_on(client: Client, emulator: Emulator) -> Iterator[None]:
    yield
    assert emulator.calls.list() == ()
    assert client.http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="deep lists"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(b'{"prompt": NaN}', id="NaN"),
        pytest.param(b'{"prompt": "a", "seed": Infinity}', id="Infinity"),
        pytest.param(b'{"seed": 1' + b"0" * 5000 + b"}", id="endless integer"),
        pytest.param(b'{"prompt": "\\ud83d"}', id="lone surrogate"),
        pytest.param(b'{"prompt": "a"', id="cut"),
        pytest.param(b'"text"', id="no object"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\x00\x01\x02", id="bytes"),
    ],
)
def test_malformed_json_is_a_400(client: Client, body: bytes) -> None:
    answer = client.http.post(PATH, content=body, headers=JSON)
    told = answer.json()
    assert (answer.status_code, set(told), told["error"]) == (
        400,
        {"statusCode", "message", "error"},
        "Bad Request",
    )
    assert told["message"].startswith(MALFORMED)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        pytest.param({"seed": 10**30}, "seed must be between 1 and 2147483647", id="huge integer"),
        pytest.param({"seed": -1}, "seed must be between 1 and 2147483647", id="negative seed"),
        pytest.param({"prompt": ["x"]}, "prompt must be a string", id="list"),
        pytest.param({"sampleCount": 1.5}, "sampleCount must be an integer number", id="fraction"),
        pytest.param(
            {"model": "../../etc/passwd"}, "model must be one of the following values: ", id="unknown model"
        ),
        pytest.param(
            {"model": "imagen-4.0-upscale-preview"}, "model must be one of", id="model of another operation"
        ),
    ],
)
def test_wrong_values_are_told_by_field(client: Client, fields: dict[str, Any], sentence: str) -> None:
    body = client.text_to_image(**{"prompt": "x", **fields}).json()
    assert body["statusCode"] == 400
    assert body["message"][0].startswith(sentence)


LONGEST = 32_000


@pytest.mark.parametrize(
    ("operation", "field"),
    [
        ("text-to-image", "prompt"),
        ("text-to-image", "negativePrompt"),
        ("image-upscale", "prompt"),
        ("image-edit", "prompt"),
        ("image-customize", "prompt"),
        ("image-customize", "negativePrompt"),
        ("image-customize", "referenceImages.0.subjectImageConfig.subjectDescription"),
        ("product-recontext", "prompt"),
    ],
)
def test_endless_texts_are_told_by_field(client: Client, operation: str, field: str) -> None:
    wish = {"prompt": "a"} if operation == "text-to-image" else as_json(body(operation))
    answer = client.post(path(operation), replaced(wish, field, "a" * (LONGEST + 1)))
    assert answer.json() == {
        "statusCode": 400,
        "message": [f"{field} must be shorter than or equal to {LONGEST} characters"],
        "error": "Bad Request",
    }


INTEGER = "must be an integer number"
FLOAT = "must be a number conforming to the specified constraints"
MASK = ("referenceImages", 1, "maskImageConfig")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400], ids=["inf", "-inf", "10**400"])
@pytest.mark.parametrize(
    ("operation", "place", "value", "sentence"),
    [
        ("text-to-image", ("seed",), 123456, f"seed {INTEGER}"),
        ("virtual-try-on", ("baseSteps",), 123456, f"baseSteps {INTEGER}"),
        (
            "image-customize",
            ("referenceImages", 0, "referenceId"),
            123456,
            f"referenceImages.0.referenceId {INTEGER}",
        ),
        (
            "image-edit",
            (*MASK, "maskClasses"),
            [123456],
            f"referenceImages.1.maskImageConfig.each value in maskClasses {INTEGER}",
        ),
        ("image-edit", (*MASK, "dilation"), 123456, f"referenceImages.1.maskImageConfig.dilation {FLOAT}"),
    ],
)
def test_numbers_beyond_a_double_are_told_by_their_field(
    client: Client, operation: str, place: tuple[str | int, ...], value: Any, sentence: str, number: str
) -> None:
    wish = {"prompt": "a"} if operation == "text-to-image" else as_json(body(operation))
    at: Any = wish
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    content = json.dumps(wish).replace("123456", number)
    answer = client.http.post(path(operation), content=content, headers=JSON)
    assert (answer.status_code, answer.json()["message"]) == (400, [sentence])


@pytest.mark.parametrize(
    ("operation", "field"), [("text-to-image", "outputOptions"), ("image-edit", "referenceImages")]
)
def test_endless_nesting_is_a_400(client: Client, operation: str, field: str) -> None:
    content = f'{{"prompt": "x", "{field}": {"[" * 1020 + "]" * 1020}}}'
    assert client.http.post(path(operation), content=content, headers=JSON).status_code == 400


@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "chunked"])
def test_a_body_of_200_megabytes_is_refused_at_the_limit(client: Client, declared: bool) -> None:
    block = b" " * 1024 * 1024

    def blocks() -> Iterator[bytes]:
        for _ in range(200):
            yield block

    headers = {**JSON, **({"Content-Length": str(200 * len(block))} if declared else {})}
    answer = client.http.post(PATH, content=blocks(), headers=headers)
    assert (answer.status_code, answer.json()) == (
        413,
        {"statusCode": 413, "message": "request entity too large"},
    )


def test_a_body_that_stops_is_given_up(start: Start) -> None:
    with start(body_idle_seconds=0.3) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as peer:
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n"
            peer.sendall((head + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{").encode())
            answer = peer.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'{"statusCode":408,"message":"Request Timeout"}' in answer


def test_the_token_is_looked_at_before_the_body(gateway_url: str) -> None:
    answer = httpx.post(gateway_url + PATH, content=b"{" * 1000, headers=JSON)
    assert (answer.status_code, answer.json()) == (401, {"statusCode": 401, "message": "Unauthorized"})
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "compress", "gzip, gzip"])
def test_compressed_bodies_are_refused(client: Client, encoding: str) -> None:
    answer = client.http.post(PATH, content=b"\x1f\x8b", headers={**JSON, "Content-Encoding": encoding})
    assert (answer.status_code, answer.json()) == (
        415,
        {"statusCode": 415, "message": f'unsupported content encoding "{encoding}"'},
    )


def test_requests_above_the_rate_are_nest_s_429(start: Start) -> None:
    with start(rate_limit="2/minute") as url, httpx.Client(base_url=url) as http:
        headers = {"Authorization": f"Bearer {token(sub='busy')}"}
        answers = [http.post(PATH, json={}, headers=headers) for _ in range(3)]
        other = http.post(PATH, json={}, headers={"Authorization": f"Bearer {token(sub='calm')}"})
    assert [answer.status_code for answer in answers] == [400, 400, 429]
    assert answers[2].json() == {"statusCode": 429, "message": "ThrottlerException: Too Many Requests"}
    assert int(answers[2].headers["retry-after"]) in range(1, 61)
    assert (answers[0].headers["x-ratelimit-limit"], answers[0].headers["x-ratelimit-remaining"]) == (
        "2",
        "1",
    )
    assert other.status_code == 400


def test_logs_hold_no_token_and_no_prompt(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with written_lines() as lines:
        client.text_to_image("", negativePrompt="a very private wish")
        client.http.get("/health")  # on the same connection: after the first request's log line
    logged = "".join(lines) + caplog.text  # the gateway's, and those of libraries
    assert '"path":"/api/v1/image/text-to-image","status":400' in logged
    assert "private wish" not in logged
    assert token().split(".")[0] not in logged
    assert SECRET not in logged


def test_preflight_is_answered_for_known_origins_only(start: Start) -> None:
    with start(cors_origins="https://app.example.com") as url:
        answers = [
            httpx.options(url + PATH, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
            for origin in ("https://app.example.com", "https://evil.example.com")
        ]
    assert answers[0].headers["access-control-allow-origin"] == "https://app.example.com"
    assert "access-control-allow-origin" not in answers[1].headers


def test_an_id_goes_through_or_is_made(client: Client) -> None:
    given = client.http.get("/health", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"]
    made = client.http.get("/health", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
    assert (given, len(made)) == ("abc-1", 32)


def test_the_texts_of_a_form_are_bounded_together(client: Client, emulator: Emulator) -> None:
    """One long text is shortened, and refused by its field. Many would be kept in memory."""
    long = "a b" * 150_000
    one = client.http.post(path("product-recontext"), files={"prompt": (None, long)})
    assert one.status_code == 400
    assert "prompt must be shorter than or equal to 32000 characters" in one.json()["message"]

    many = client.http.post(path("product-recontext"), files=[(f"a{n}", (None, long)) for n in range(12)])
    assert (many.status_code, many.headers["X-Error-Code"]) == (413, "payload_too_large")
    assert many.json() == {"statusCode": 413, "message": "File too large", "error": "Payload Too Large"}
    assert not emulator.calls.list()
