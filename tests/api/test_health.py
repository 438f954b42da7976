"""Up, and ready; and what is not ready is named."""

import httpx
import pytest

from app.emulator.server import Emulator
from tests.api.conftest import Start

PARTS = dict.fromkeys(("auth", "limits", "storage", "spool", "vertex", "bedrock", "claude"), "ok")


@pytest.mark.parametrize(
    ("down", "status", "parts"),
    [
        pytest.param(False, 200, PARTS, id="ready"),
        pytest.param(True, 503, {**PARTS, "storage": "failed"}, id="storage is down"),
    ],
)
def test_ready_names_what_does_not_answer(
    start: Start, emulator: Emulator, down: bool, status: int, parts: dict[str, str]
) -> None:
    with start() as url:
        if down:
            emulator.troubles.set("storage-down")
        answer = httpx.get(f"{url}/health/ready", timeout=10)
        up = httpx.get(f"{url}/health")
    assert (answer.status_code, answer.json()["parts"]) == (status, parts)
    assert (up.status_code, up.json()) == (200, {"status": "ok"})


def test_an_answer_holds_for_a_moment(start: Start, emulator: Emulator) -> None:
    """Asking often does not reach the vendors often."""
    with start() as url, httpx.Client(base_url=url) as http:
        for _ in range(20):
            http.get("/health/ready").raise_for_status()
    asked = [call for call in emulator.calls.list() if call.method == "buckets.testIamPermissions"]
    assert len(asked) <= 2


@pytest.mark.parametrize(
    ("method", "accept", "status", "leads_to"),
    [
        pytest.param("GET", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", 307, "/docs", id="a browser"),
        pytest.param("GET", "*/*", 307, "/docs", id="curl"),
        pytest.param("HEAD", "*/*", 307, "/docs", id="curl -I"),
        pytest.param("GET", "application/json", 404, None, id="a program"),
        pytest.param("POST", "*/*", 404, None, id="another method"),
    ],
)
def test_the_root_leads_people_to_the_docs(
    gateway_url: str, method: str, accept: str, status: int, leads_to: str | None
) -> None:
    answer = httpx.request(method, gateway_url, headers={"Accept": accept})
    assert (answer.status_code, answer.headers.get("location")) == (status, leads_to)
    if status == 404:
        assert answer.json() == {"message": f"Cannot {method} /", "error": "Not Found", "statusCode": 404}
