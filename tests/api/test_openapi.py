"""The OpenAPI document is true: schemathesis tries what it promises, and the opposite."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Start, token


@pytest.fixture(scope="module")
def api(start: Start) -> Iterator[str]:
    with start(login_rate_limit="", login_account_rate_limit="", login_address_rate_limit="") as url:
        yield f"{url}/openapi.json"


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_schemathesis_finds_nothing(api: str, tmp_path: Path, mode: str) -> None:
    """With all checks. What the contract settles otherwise stands in schemathesis_hooks.py, each by name."""
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", api, "--no-color", "--max-examples=8"),
        *("--header", f"Authorization: Bearer {token()}", "--mode", mode, "--seed=1"),
        *("--checks=all", "--phases=examples,coverage,fuzzing"),
    ]
    root = Path(__file__).parents[2]
    environment = {"SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks", "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_no_422_and_every_error_with_its_body(api: str) -> None:
    document = httpx.get(api).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            ours = {"name": "Idempotency-Key", "in": "header"}
            keyed = any(ours.items() <= one.items() for one in operation.get("parameters", ()))
            assert ("422" in operation["responses"]) == keyed, path  # FastAPI would add its own
            for status, response in operation["responses"].items():
                for example in (
                    response.get("content", {}).get("application/json", {}).get("examples", {}).values()
                ):
                    assert example["value"].get("statusCode", int(status)) == int(status)
