"""Up, and ready; and what is not ready is named."""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.emulator.server import Emulator
from tests.api.conftest import Start

Parts = dict[str, tuple[str, bool]]
NOWHERE = "http://127.0.0.1:9"
READY: Parts = {
    "database": ("ok", True),
    "storage": ("ok", True),
    "spool": ("ok", True),
    "vertex": ("ok", False),
    "bedrock": ("ok", False),
    "limits": ("ok", False),
    "claude": ("ok", False),
}
NO_VERTEX = {"vertex_endpoint": NOWHERE}
NO_BEDROCK = {"aws_endpoint_url_bedrock_runtime": NOWHERE}
FAILED, NEEDED = ("failed", True), ("ok", True)


@pytest.mark.parametrize(
    ("settings", "code", "status", "changed"),
    [
        pytest.param({}, 200, "ok", {}, id="ready"),
        pytest.param(
            NO_VERTEX, 200, "degraded", {"vertex": ("failed", False), "bedrock": NEEDED}, id="vertex"
        ),
        pytest.param(
            NO_BEDROCK, 200, "degraded", {"bedrock": ("failed", False), "vertex": NEEDED}, id="bedrock"
        ),
        pytest.param(
            {**NO_VERTEX, **NO_BEDROCK},
            503,
            "failed",
            {"vertex": FAILED, "bedrock": FAILED},
            id="both vendors",
        ),
        pytest.param({"storage_emulator_host": NOWHERE}, 503, "failed", {"storage": FAILED}, id="storage"),
        pytest.param({"spool_min_free_bytes": 2**62}, 503, "failed", {"spool": FAILED}, id="spool"),
        pytest.param(
            {"anthropic_base_url": NOWHERE}, 200, "degraded", {"claude": ("failed", False)}, id="claude"
        ),
        pytest.param(
            {"redis_url": "redis://127.0.0.1:9"}, 200, "degraded", {"limits": ("degraded", False)}, id="redis"
        ),
        pytest.param(
            {"jwks_url": NOWHERE}, 200, "degraded", {"jwks": ("failed", False)}, id="identity provider"
        ),
    ],
)
def test_ready_names_what_does_not_work(
    start: Start, emulator: Emulator, settings: dict[str, Any], code: int, status: str, changed: Parts
) -> None:
    with start(**settings) as url:
        answer = httpx.get(f"{url}/health/ready", timeout=10)
        up = httpx.get(f"{url}/health")
    told = {name: (part["status"], part["required"]) for name, part in answer.json()["parts"].items()}
    assert (answer.status_code, answer.json()["status"], told) == (code, status, READY | changed)
    assert (up.status_code, up.json()) == (200, {"status": "ok"})


def test_a_store_that_says_no_is_not_ready(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("storage-down")
    with start() as url:
        answer = httpx.get(f"{url}/health/ready", timeout=10)
    assert answer.status_code == 503
    assert answer.json()["parts"]["storage"] == {"status": "failed", "required": True}


def test_a_vendor_that_hangs_is_given_up_and_asked_once(start: Start, emulator: Emulator) -> None:
    """It accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with start(storage_emulator_host=host) as url:
            first = httpx.get(f"{url}/health/ready", timeout=9)
            with ThreadPoolExecutor() as pool:
                more = list(pool.map(lambda _: httpx.get(f"{url}/health/ready", timeout=9), range(20)))
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert {answer.status_code for answer in (first, *more)} == {503}
    assert first.json()["parts"]["storage"] == {"status": "failed", "required": True}
    assert first.json()["parts"]["vertex"] == {"status": "ok", "required": False}


def test_an_answer_holds_for_a_moment(start: Start, emulator: Emulator) -> None:
    """Asking often does not reach the vendors often."""
    with start() as url, httpx.Client(base_url=url) as http:
        for _ in range(20):
            http.get("/health/ready").raise_for_status()
    asked = [call for call in emulator.calls.list() if call.method == "buckets.testIamPermissions"]
    assert len(asked) in (1, 2)  # a result holds for two seconds


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
