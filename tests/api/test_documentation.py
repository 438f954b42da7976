"""The texts of the OpenAPI document: descriptions of fields, headers and error codes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from app.api import error_codes
from app.api.examples import LOGIN
from app.contract.words import WORDS
from app.main import create_app
from app.settings import EXAMPLE_SECRET, Settings
from tests.api.conftest import Start

Json = dict[str, Any]
Field = tuple[str, str, Json]


@pytest.fixture(scope="module")
def document() -> Json:
    return create_app(Settings()).openapi()


def fields(node: Any, place: str = "") -> Iterator[Field]:
    """Yields place, name and schema of every property and every parameter in the document.

    If `then` or `else` only narrows a property of the same object, the description is at the property.
    """
    if isinstance(node, list):
        for index, one in enumerate(node):
            yield from fields(one, f"{place}/{index}")
    if not isinstance(node, dict):
        return
    known = node.get("properties", {})
    for name, schema in known.items():
        yield place, name, schema
    for parameter in node.get("parameters", []):
        yield place, parameter["name"], parameter
    for key, inner in node.items():
        if key in ("example", "examples", "if"):
            continue
        if key in ("then", "else"):
            inner = {
                "properties": {name: known.get(name, {}) | one for name, one in inner["properties"].items()}
            }
        yield from fields(inner, f"{place}/{key}")


@pytest.mark.parametrize("open_to_all", [True, False])
def test_the_example_of_a_login_works_where_anybody_may_log_in(start: Start, open_to_all: bool) -> None:
    """On the emulator under the example secret. Elsewhere no password is told."""
    with start(**{"jwt_secret": EXAMPLE_SECRET} if open_to_all else {}) as url:
        login = httpx.get(f"{url}/openapi.json").json()["paths"]["/api/v1/auth/login"]["post"]
        json = login["requestBody"]["content"]["application/json"]["example"]
        fields = login["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]["properties"]
        form = {name: field["examples"][0] for name, field in fields.items()}
        answers = [
            httpx.post(f"{url}/api/v1/auth/login", json=json),
            httpx.post(f"{url}/api/v1/auth/login", data=form),
        ]
    assert [answer.status_code for answer in answers] == [200 if open_to_all else 401] * 2
    assert (json == LOGIN) is not open_to_all


def test_every_field_has_a_description(document: Json) -> None:
    found = list(fields(document))
    assert len(found) > 300
    assert [f"{place}: {name}" for place, name, schema in found if not schema.get("description")] == []


def test_descriptions_are_sentences_said_once(document: Json) -> None:
    for place, name, schema in fields(document):
        sentences = schema["description"].split(". ")
        assert schema["description"].endswith("."), (place, name)
        assert len(set(sentences)) == len(sentences), (place, name, schema["description"])


def test_no_words_are_about_a_field_that_is_not_there(document: Json) -> None:
    told = [schema["description"] for _, _, schema in fields(document)]
    assert [name for name, words in WORDS.items() if not any(one.startswith(words) for one in told)] == []


def responses(document: Json) -> Iterator[tuple[str, int, Json]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                yield f"{method} {path}", int(status), response


def test_every_header_is_described_once(document: Json) -> None:
    described = document["components"]["headers"]
    assert all(header["description"].endswith(".") for header in described.values())
    used = set()
    for place, status, response in responses(document):
        for name, header in response.get("headers", {}).items():
            assert header == {"$ref": f"#/components/headers/{name}"}, (place, status)
            used.add(name)
    assert used == set(described)


def test_every_error_carries_a_code_of_the_closed_list(document: Json) -> None:
    """Except /health/ready, whose 503 is an ordinary answer."""
    codes = document["components"]["headers"]["X-Error-Code"]["schema"]["enum"]
    assert codes == list(error_codes.ERROR_CODES)
    assert set(codes) == set(get_args(error_codes.Code))
    statuses = {status for code in error_codes.ERROR_CODES.values() for status in code.statuses}
    for place, status, response in responses(document):
        if status >= 400 and place != "get /health/ready":
            assert "X-Error-Code" in response["headers"], (place, status)
            assert status in statuses


def test_the_page_about_errors_has_the_same_list() -> None:
    page = Path(__file__).parents[2] / "docs" / "errors.md"
    assert f"\n\n{error_codes.table()}\n\n" in page.read_text("utf-8")


def test_every_route_has_a_summary_and_a_text(document: Json) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    summaries = [operation["summary"] for operation in operations]
    assert len(set(summaries)) == len(summaries)
    assert all(operation["description"] for operation in operations)
    assert {tag for operation in operations for tag in operation["tags"]} == {
        tag["name"] for tag in document["tags"]
    }


def test_a_password_and_a_token_are_alternatives(document: Json) -> None:
    wanted: list[Json] = [{"login": []}, {"token": []}]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for_anybody = path in ("/api/v1/auth/login", "/health", "/health/ready")
            assert operation.get("security") == (None if for_anybody else wanted), path
    schemes = document["components"]["securitySchemes"]
    assert (schemes["login"]["type"], schemes["token"]["type"], schemes["token"]["scheme"]) == (
        "oauth2",
        "http",
        "bearer",
    )


def test_a_form_has_the_fields_of_the_json_example(document: Json) -> None:
    """Nested fields have bracket names, pictures are files, and the fields have the example's values."""
    edit = document["paths"]["/api/v1/image/image-edit"]["post"]["requestBody"]["content"]
    form = edit["multipart/form-data"]["schema"]
    told = {name: field["examples"][0] for name, field in form["properties"].items() if "examples" in field}
    assert told == {
        "prompt": "Add a red car in the parking lot",
        "referenceImages[0][referenceType]": "REFERENCE_TYPE_RAW",
        "referenceImages[0][referenceId]": 1,
        "referenceImages[1][referenceType]": "REFERENCE_TYPE_MASK",
        "referenceImages[1][referenceId]": 2,
        "referenceImages[1][maskImageConfig][maskMode]": "MASK_MODE_USER_PROVIDED",
        "referenceImages[1][maskImageConfig][dilation]": 0.01,
        "editMode": "EDIT_MODE_INPAINT_INSERTION",
        "baseSteps": 35,
        "sampleCount": 1,
    }
    files = [name for name, field in form["properties"].items() if field.get("format") == "binary"]
    assert files == ["referenceImages[0][image]", "referenceImages[1][image]"]
    assert set(form["required"]) == {
        *files,
        *(name for name in told if name.endswith(("[referenceType]", "[referenceId]"))),
        "editMode",
    }
