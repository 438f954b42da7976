"""The OpenAPI document is true: schemathesis tries what it promises, and the opposite."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.api.conftest import Start, token

Json = dict[str, Any]
PAID_OPERATIONS = 8
"""Six image operations, and /gen under two names."""


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


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        yield from ((f"{method} {path}", operation) for method, operation in methods.items())


def test_422_is_documented_for_reused_keys_only(api: str) -> None:
    """FastAPI would add a 422 of its own to every operation."""
    keyed, with_422 = set(), set()
    for name, operation in operations(httpx.get(api).json()):
        for parameter in operation.get("parameters", ()):
            if (parameter["name"], parameter["in"]) == ("Idempotency-Key", "header"):
                keyed.add(name)
        if "422" in operation["responses"]:
            with_422.add(name)
    assert with_422 == keyed
    assert len(keyed) == PAID_OPERATIONS


def test_every_error_has_examples_that_fit_its_schema(api: str) -> None:
    document = httpx.get(api).json()
    checked = 0
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            content = response["content"]["application/json"]
            examples = [one["value"] for one in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            assert examples, (name, status)
            schema = jsonschema_rs.validator_for({**content["schema"], "components": document["components"]})
            for example in examples:
                assert schema.is_valid(example), (name, status, example)
                if "statusCode" in schema_names(content["schema"]):
                    assert example["statusCode"] == int(status), (name, example)
                    checked += 1
    assert checked > 100


def schema_names(schema: Json) -> set[str]:
    """Returns the names of all properties of a schema and of its alternatives."""
    return set(schema.get("properties", ())).union(*map(schema_names, schema.get("anyOf", ())))
