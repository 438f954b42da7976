"""Rehearsed failures on every paid route, by the header X-Trouble and by words in a prompt."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from app.api.rehearsal import WORDS
from app.db import migrate
from app.emulator.server import Emulator
from app.emulator.trouble import Kind
from app.main import create_app
from app.settings import Settings
from tests.api.conftest import Client, Start, client_of
from tools.rig.bodies import MODELS, OPERATIONS, as_json, path
from tools.rig.bodies import body as body_of

Json = dict[str, Any]

DEADLINE = 4.0
PAGE = Path(__file__).parents[2] / "docs" / "rehearsing.md"
GEN = {"mode": "text2img", "prompt": "a harbour"}
ROUTES: dict[str, Json] = {
    path("text-to-image"): {"prompt": "a lighthouse"},
    **{path(operation): as_json(body_of(operation)) for operation in OPERATIONS},
    "/gen": GEN,
    "/pro/gen": GEN,
}
IMAGE_ROUTES = tuple(route for route in ROUTES if "gen" not in route)


@pytest.fixture(scope="module")
def hasty(start: Start) -> Iterator[str]:
    """A gateway with a short deadline."""
    with start(request_timeout_seconds=DEADLINE, retry_pause_seconds=0.05) as url:
        yield url


@pytest.fixture
def rehearsing(hasty: str, emulator: Emulator) -> Iterator[Client]:
    client = client_of(hasty)
    yield client
    client.http.close()


def by_header(client: Client, route: str, body: Json, word: str) -> httpx.Response:
    return client.post(route, body, **{"X-Trouble": word})


def by_prompt(client: Client, route: str, body: Json, word: str) -> httpx.Response:
    return client.post(route, {**body, "prompt": f"{body['prompt']} #trouble:{word}"})


BOTH = pytest.mark.parametrize("ask", [by_header, by_prompt])
Ask = Callable[[Client, str, Json, str], httpx.Response]


def models_called(emulator: Emulator) -> list[str]:
    return [call.model for call in emulator.calls.list() if call.vendor != "gcs"]


# ── Words and what they lead to ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("route", ROUTES)
def test_every_paid_route_rehearses(rehearsing: Client, emulator: Emulator, route: str) -> None:
    told = by_header(rehearsing, route, ROUTES[route], "blocked-output").json()
    message = told["error"] if route.endswith("gen") else told["message"]
    assert message.startswith("Request blocked by safety filters")
    assert (len(models_called(emulator)), emulator.calls.paid) == (1, 0)


STATUSES = [
    pytest.param("blocked-prompt", 400, 400, 0),
    pytest.param("blocked-output", 400, 400, 0),
    pytest.param("blocked-output=63429089", 400, 400, 0),
    pytest.param("text-only", 400, 400, 0),
    pytest.param("empty", 400, 400, 0),
    pytest.param("429=60", 429, 429, 0),
    pytest.param("500", 500, 500, 0),
    pytest.param("503", 503, 500, 0),
    pytest.param("slow=0.1", 200, 200, 1),
    pytest.param("hang", 504, 504, 0),
    pytest.param("retired", 500, 500, 0),
    pytest.param("drop", 500, 500, 1),
]


@pytest.mark.parametrize(("word", "image", "gen", "paid"), STATUSES)
@pytest.mark.parametrize("route", [path("image-upscale"), path("virtual-try-on"), "/gen"])
def test_each_word_has_its_status(
    rehearsing: Client, emulator: Emulator, route: str, word: str, image: int, gen: int, paid: int
) -> None:
    body = ROUTES[route] | ({} if route != path("virtual-try-on") else {"sampleCount": 1})
    answer = by_header(rehearsing, route, body, word)
    assert answer.status_code == (gen if route == "/gen" else image), answer.text
    assert emulator.calls.paid == paid
    if answer.status_code == 429:
        assert answer.headers["retry-after"] == "60"


def test_every_word_is_rehearsed_above_or_below() -> None:
    above = {str(case.values[0]).partition("=")[0] for case in STATUSES}
    assert above | {"half-blocked", "storage-down"} == set(WORDS)


@pytest.mark.parametrize("model", ["imagen-4.0-generate-001", "gemini-3-pro-image"])
def test_half_of_a_batch_is_blocked(rehearsing: Client, model: str) -> None:
    body = {"prompt": "a lighthouse", "model": model, "sampleCount": 4}
    told = by_header(rehearsing, path("text-to-image"), body, "half-blocked").json()
    assert (len(told["images"]), len(told["filtered"])) == (2, 2)


def test_the_header_comes_before_the_words(rehearsing: Client) -> None:
    body = {"prompt": "a lighthouse #trouble:500"}
    assert by_header(rehearsing, path("text-to-image"), body, "429=60").status_code == 429


@BOTH
def test_a_rewrite_meets_the_trouble_too(client: Client, emulator: Emulator, ask: Ask) -> None:
    """The rewrite of an English prompt fails; then the picture is made from the caller's prompt and fails
    too. (With a short deadline, the first rewrite has no time to import its package.)"""
    assert ask(client, "/gen", GEN | {"regen_prompt": True}, "500").status_code == 500
    assert [call.vendor for call in emulator.calls.list()] == ["claude", "bedrock"]


# ── Unknown words ────────────────────────────────────────────────────────────────────────────────────

KNOWN = (
    "one of blocked-prompt, blocked-output, half-blocked, text-only, empty, 429, 500, 503, slow, hang, "
    "retired, drop, storage-down, with or without a number: 429=7"
)
WRONG = ["nonsense", "answer", "Hang", "500s", "429=", "429=x", "slow=-1", "", "hang, drop"]


def refused(route: str, error: str, details: str) -> Json:
    if route == "/gen":
        return {"status": "error", "error": error, "details": details}
    return {"statusCode": 400, "message": f"{error}: {details}", "error": "Bad Request"}


@pytest.mark.parametrize("word", WRONG)
@pytest.mark.parametrize("route", [path("virtual-try-on"), "/gen"])
def test_an_unknown_word_is_refused_before_anything_is_called(
    rehearsing: Client, emulator: Emulator, route: str, word: str
) -> None:
    answer = by_header(rehearsing, route, ROUTES[route], word)
    expected = refused(route, "Invalid X-Trouble", f"The header must be {KNOWN}")
    assert (answer.status_code, answer.json()) == (400, expected)
    assert emulator.calls.list() == ()


@pytest.mark.parametrize("word", ["nonsense", "answer", "Hang", "500s", "", "hang #trouble:nonsense"])
@pytest.mark.parametrize("route", [path("text-to-image"), "/gen"])
def test_an_unknown_word_in_a_prompt_is_refused_too(
    rehearsing: Client, emulator: Emulator, route: str, word: str
) -> None:
    answer = by_prompt(rehearsing, route, ROUTES[route], word)
    expected = refused(route, "Invalid #trouble", f"The word in the text must be {KNOWN}")
    assert (answer.status_code, answer.json()) == (400, expected)
    assert emulator.calls.list() == ()


@pytest.mark.parametrize("field", ["negativePrompt", "subjectDescription"])
def test_every_text_of_a_request_is_read(rehearsing: Client, emulator: Emulator, field: str) -> None:
    body = as_json(body_of("image-customize"))
    at = body if field == "negativePrompt" else body["referenceImages"][0]["subjectImageConfig"]
    at[field] = "fog #trouble:500"
    assert rehearsing.post(path("image-customize"), body).status_code == 500
    at[field] = "fog #trouble:nonsense"
    assert rehearsing.post(path("image-customize"), body).status_code == 400


def test_who_is_not_known_is_told_so_first(hasty: str) -> None:
    answer = httpx.post(f"{hasty}/gen", json=GEN, headers={"X-Trouble": "nonsense"})
    assert answer.status_code == 401


def test_the_words_are_the_emulator_s() -> None:
    assert set(WORDS) == set(get_args(Kind)) - {"answer"}


# ── What a rehearsal leaves behind: nothing ──────────────────────────────────────────────────────────


@BOTH
@pytest.mark.parametrize("route", [path("text-to-image"), "/gen"])
def test_a_rehearsed_retirement_is_not_remembered(
    start: Start, emulator: Emulator, ask: Ask, route: str
) -> None:
    with start() as url:
        client = client_of(url)
        assert ask(client, route, ROUTES[route], "retired").status_code == 500
        answer = client.post(route, ROUTES[route])
        client.http.close()
    assert answer.status_code == 200
    assert "x-model-requested" not in answer.headers
    calls = models_called(emulator)
    assert calls[-1] == calls[0]


@BOTH
def test_a_rewriter_s_rehearsed_retirement_is_not_remembered(
    start: Start, emulator: Emulator, ask: Ask
) -> None:
    body = GEN | {"regen_prompt": True}
    with start() as url:
        client = client_of(url)
        ask(client, "/gen", body, "retired")
        assert client.post("/gen", body).status_code == 200
        client.http.close()
    rewriters = [call.model for call in emulator.calls.list() if call.vendor == "claude"]
    assert rewriters == ["claude-sonnet-4-20250514", "claude-sonnet-4-6", "claude-haiku-4-5", rewriters[0]]


def test_a_real_retirement_is_remembered_in_a_rehearsal_of_something_else(
    start: Start, emulator: Emulator
) -> None:
    route, named = path("text-to-image"), MODELS["text-to-image"]
    emulator.troubles.set("retired", model=named)
    with start() as url:
        client = client_of(url)
        by_header(client, route, ROUTES[route], "slow=0")
        assert client.post(route, ROUTES[route]).status_code == 200
        client.http.close()
    assert models_called(emulator).count(named) == 1


def kept_or_gone(calls: Any) -> list[int]:
    return [call.status for call in calls if call.method == "objects.insert"]


@BOTH
@pytest.mark.parametrize(
    "route", [path("text-to-image"), path("image-edit"), "/gen"], ids=["text-to-image", "image-edit", "gen"]
)
def test_storage_is_down_for_this_request_alone(
    start: Start, emulator: Emulator, ask: Ask, route: str
) -> None:
    """The request gets 503, and the spool uploads its picture later. Other requests are served meanwhile."""
    url_wanted = {"response_format": "url"} if route == "/gen" else {"responseFormat": "url"}
    body = ROUTES[route] | url_wanted | ({} if route == "/gen" else {"sampleCount": 1})
    with start(upload_seconds=0.5, spool_seconds=3) as url:
        client = client_of(url)
        assert ask(client, route, body, "storage-down").status_code == 503
        tried = set(kept_or_gone(emulator.calls.list()))
        assert 503 in tried
        assert 200 not in tried
        assert client.post(route, body).status_code == 200
        emulator.calls.wait_for(lambda calls: kept_or_gone(calls).count(200) == 2, timeout=15)
        client.http.close()
    assert emulator.calls.paid == 2


@BOTH
def test_storage_comes_back_after_the_time_given(rehearsing: Client, emulator: Emulator, ask: Ask) -> None:
    route = path("text-to-image")
    answer = ask(rehearsing, route, ROUTES[route] | {"sampleCount": 1}, "storage-down=0.3")
    assert answer.status_code == 200
    assert kept_or_gone(emulator.calls.list())[-2:] == [503, 200]


# ── Where it is not ──────────────────────────────────────────────────────────────────────────────────

LIVE = {
    "cloud": "live",
    "google_cloud_project": "a-project",
    "gcs_bucket": "a-bucket",
    "anthropic_api_key": "sk-ant-none",
}
NO_CREDENTIALS = {"vertex_endpoint": "127.0.0.1:1", "storage_emulator_host": "http://127.0.0.1:1"}
"""With these addresses Google is not called, and its credentials are not looked for."""


@pytest.mark.parametrize("word", ["500", "nonsense", "storage-down"])
def test_live_does_not_know_the_header(
    start: Start,
    emulator: Emulator,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    word: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    migrate(database_url)
    with start(**LIVE, database_url=database_url) as url:
        client = client_of(url)
        assert by_header(client, path("text-to-image"), {"prompt": "a pear"}, word).status_code == 200
        assert by_header(client, "/gen", GEN | {"response_format": "url"}, word).status_code == 200
        assert by_prompt(client, path("text-to-image"), {"prompt": "a pear"}, "nonsense").status_code == 200
        client.http.close()


def test_the_documentation_shows_the_header_on_the_emulator_only() -> None:
    shown = [
        {
            f"{method} {path}"
            for path, operations in create_app(settings).openapi()["paths"].items()
            for method, operation in operations.items()
            for parameter in operation.get("parameters", ())
            if parameter["name"] == "X-Trouble"
        }
        for settings in (
            Settings(),
            Settings.model_validate(
                LIVE | NO_CREDENTIALS | {"jwt_secret": "a secret of thirty-two characters"}
            ),
        )
    ]
    assert shown == [{f"post {route}" for route in ROUTES}, set()]


def test_a_page_may_send_the_header_from_elsewhere(start: Start) -> None:
    asked = {
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-trouble",
    }
    with start(cors_origins="https://app.example.com") as url:
        assert httpx.options(f"{url}/gen", headers=asked).status_code == 200


def test_the_page_lists_every_word() -> None:
    page = PAGE.read_text("utf-8")
    assert [word for word in WORDS if f"| `{word}" not in page] == []
