"""The requests and responses that were recorded from the NestJS gateway before this one, replayed."""

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
Json = dict[str, Any]
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


def deviation(vector: Json) -> Json | None:
    """Returns the body that the gateway gives instead of the recorded one, or None if it gives that."""
    found = (one for one in DEVIATIONS if re.search(one["vectors"], vector["name"]))
    if (different := next(found, None)) is None:
        return None
    body: Json = dict(different["body"])
    if isinstance(body["message"], str):
        body["message"] = body["message"].format_map(vector["request"])
    return body


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_recorded_answer(nest_url: str, vector: Json) -> None:
    status, headers, body = send(nest_url, vector["request"], GOLDEN["secret"])  # type: ignore[no-untyped-call]
    loose = vector.get("engine_text", False)
    problem = compare(  # type: ignore[no-untyped-call]
        vector["response"], status, headers, body, content_type=True, loose=loose
    )
    if different := deviation(vector):
        assert problem, "matches after all: take the deviation out"
        assert (status, json.loads(body)) == (different["statusCode"], different)
        assert headers["content-type"].partition(";")[0] == "application/json"
    else:
        assert problem is None


def test_every_deviation_is_of_a_vector() -> None:
    names = [vector["name"] for vector in VECTORS]
    assert [d["vectors"] for d in DEVIATIONS if not any(re.search(d["vectors"], n) for n in names)] == []
