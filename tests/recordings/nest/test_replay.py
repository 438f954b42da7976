"""The recorded answers of the NestJS gateway that came before, replayed (nestjs-contract.md)."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Start
from tests.recordings.nest.replay_nest import compare, send

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "nest-golden.json").read_text("utf-8"))
DEVIATIONS = tomllib.loads((HERE / "deviations.toml").read_text("utf-8"))["deviation"]
VECTORS = [v for v in GOLDEN["vectors"] if "scenario" not in v and not v.get("permissive_upstream")]


@pytest.fixture(scope="module")
def nest_url(start: Start) -> Iterator[str]:
    """A gateway with the secret and the limits of the recording."""
    with start(
        jwt_secret=GOLDEN["secret"],
        max_body_bytes=20 * 1024 * 1024,
        gcs_allowed_prefixes="gs://bucket/path/to/output",
    ) as url:
        yield url


def deviation(name: str) -> dict[str, Any] | None:
    return next((one for one in DEVIATIONS if re.search(one["vectors"], name)), None)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_recorded_answer(nest_url: str, vector: dict[str, Any]) -> None:
    status, headers, body = send(nest_url, vector["request"], GOLDEN["secret"])  # type: ignore[no-untyped-call]
    loose = vector.get("engine_text", False)
    problem = compare(  # type: ignore[no-untyped-call]
        vector["response"], status, headers, body, content_type=True, loose=loose
    )
    if different := deviation(vector["name"]):
        assert problem, "matches after all: take the deviation out"
        assert status == different["status"]
    else:
        assert problem is None


def test_every_deviation_is_of_a_vector() -> None:
    names = [vector["name"] for vector in VECTORS]
    assert [d["vectors"] for d in DEVIATIONS if not any(re.search(d["vectors"], n) for n in names)] == []
