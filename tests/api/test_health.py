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
