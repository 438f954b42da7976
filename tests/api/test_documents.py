"""Every example of the API document runs as written; only its placeholders become real."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of, token
from tools.rig.bodies import MODELS, as_json, mask, opened, picture

DOCUMENT = (Path(__file__).parents[1] / "documents/vertex-image-api.md").read_text("utf-8")
ADDRESS = "http://localhost:3001"
FENCED = re.compile(r"^```(json|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENDPOINT = re.compile(r"^### \d\. POST (\S+)$", re.MULTILINE)
HEADING = re.compile(r"^(?:#{2,4} .*|\*\*.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A fenced block: its language, its text, the endpoint it stands under and the headings above it."""

    language: str
    text: str
    endpoint: str
    headings: tuple[str, ...]

    @property
    def is_request(self) -> bool:
        return next(one for one in reversed(self.headings) if one[0] == "#") == "#### Request Body"

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def _examples() -> Iterator[Example]:
    for match in FENCED.finditer(DOCUMENT):
        before = DOCUMENT[: match.start()]
        endpoint = (ENDPOINT.findall(before) or [""])[-1]
        yield Example(match[1], match[2], endpoint, tuple(HEADING.findall(before)))


EXAMPLES = tuple(_examples())
REQUESTS = [one for one in EXAMPLES if one.language == "json" and one.is_request]
CURLS = [one for one in EXAMPLES if one.language == "bash"]
ANSWERS = {
    one.endpoint: one.json
    for one in reversed(EXAMPLES)
    if one.language == "json" and one.headings[-1].startswith(("**Success", "**Multiple"))
}
ERRORS = [one for one in EXAMPLES if one.language == "json" and "statusCode" in one.text]


def test_no_example_is_overlooked() -> None:
    assert DOCUMENT.count("```json\n") + DOCUMENT.count("```bash\n") == len(EXAMPLES)
    assert DOCUMENT.count("curl -X") == len(CURLS) == 8
    assert len(REQUESTS) == 7
    assert ANSWERS.keys() == {f"/api/v1/image/{operation}" for operation in MODELS}
    read = {id(one) for one in [*REQUESTS, *CURLS, *ERRORS]}
    others = [one.headings[-1] for one in EXAMPLES if id(one) not in read]
    assert (
        others
        == ["**Success (200 OK)**:", "**Multiple Images (sampleCount > 1)**:"] + ["**Success (200 OK)**:"] * 5
    )


@pytest.fixture(scope="module")
def documented(start: Start) -> Iterator[str]:
    """A gateway that may write to the document's bucket."""
    with start(gcs_allowed_prefixes="gs://bucket/path,gs://image-gateway") as url:
        yield url


@pytest.fixture
def caller(documented: str, emulator: Emulator) -> Iterator[Client]:
    client = client_of(documented)
    yield client
    client.http.close()


PERSON, PRODUCT = picture((256, 384), "tan"), picture((128, 128), "navy")


def real(value: Any) -> Any:
    """A JSON body with pictures for its placeholders."""
    match value:
        case dict():
            return {name: real(one) for name, one in value.items()}
        case list():
            return [real(one) for one in value]
        case str() if value.startswith("BASE64_"):
            return as_json(picture_for(value))
        case _:
            return value


def picture_for(placeholder: str) -> bytes:
    word = placeholder.lower()
    if "mask" in word:
        return mask((256, 384))
    return PRODUCT if "product" in word else PERSON


@dataclass
class Curl:
    """A curl command, taken apart."""

    method: str = "GET"
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    parts: list[tuple[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> "Curl":
        program, *words = shlex.split(text.replace("\\\n", " "))
        assert program == "curl"
        curl = cls()
        while words:
            match words.pop(0):
                case "-X":
                    curl.method = words.pop(0)
                case "-H":
                    name, _, value = words.pop(0).partition(": ")
                    curl.headers[name] = value.replace("YOUR_TOKEN", token())
                case "-d":
                    curl.body = real(json.loads(words.pop(0)))
                case "-F":
                    name, _, value = words.pop(0).partition("=")
                    file = Path(value[1:])
                    content = (file.name, picture_for(file.name)) if value[0] == "@" else (None, value)
                    curl.parts.append((name, content))
                case url:
                    assert url.startswith(f"{ADDRESS}/api/v1/image/")
                    curl.url = url.removeprefix(ADDRESS)
        return curl

    @property
    def wish(self) -> dict[str, Any]:
        """What is asked for, in either spelling."""
        texts = {name: int(value[1]) for name, value in self.parts if name == "sampleCount"}
        return self.body or texts


@pytest.mark.parametrize(
    "example", [pytest.param(one, id=f"{one.endpoint[14:]} {one.headings[-1]}") for one in REQUESTS]
)
def test_json_example_is_answered_as_documented(caller: Client, example: Example) -> None:
    wish = real(example.json)
    answer = caller.post(example.endpoint, wish)
    assert answer.status_code == 200, answer.text
    check(example.endpoint, wish, answer.json())


@pytest.mark.parametrize("example", [pytest.param(one, id=one.headings[-1]) for one in CURLS])
def test_curl_example_is_answered_as_documented(
    documented: str, emulator: Emulator, example: Example
) -> None:
    curl = Curl.of(example.text)
    answer = httpx.request(
        curl.method,
        documented + curl.url,
        headers=curl.headers,
        timeout=30,
        **({"json": curl.body} if curl.body else {"files": curl.parts}),
    )
    assert answer.status_code == 200, answer.text
    check(curl.url, curl.wish, answer.json())


def check(endpoint: str, wish: dict[str, Any], answer: dict[str, Any]) -> None:
    """Documented keys, and as many real pictures as asked, of the promised size and type."""
    documented = ANSWERS[endpoint]
    assert answer.keys() == documented.keys()
    assert answer["model"] == wish.get("model", documented["model"])
    if endpoint.endswith("text-to-image"):
        assert answer["success"] is True
        pictures = [stored(image) for image in answer["images"]]
        assert all(image.keys() == documented["images"][0].keys() for image in answer["images"])
    elif "storageUri" in wish:
        assert all(one.keys() == {"gcsUri", "url", "mimeType"} for one in answer["predictions"])
        assert all(one["gcsUri"].startswith(wish["storageUri"] + "/") for one in answer["predictions"])
        pictures = [stored(one) for one in answer["predictions"]]
    else:
        assert all(one.keys() == documented["predictions"][0].keys() for one in answer["predictions"])
        pictures = [opened(one["bytesBase64Encoded"]) for one in answer["predictions"]]
    several = {"image-edit": 4, "image-customize": 4}.get(endpoint.rpartition("/")[2], 1)
    assert len(pictures) == wish.get("sampleCount", several)
    assert {(one.format, one.size) for one in pictures} == {("PNG", size(endpoint, wish))}


def stored(image: dict[str, Any]) -> Image.Image:
    file = httpx.get(image["url"]).raise_for_status()
    assert file.headers["content-type"] == image["mimeType"]
    return opened(file.content)


def size(endpoint: str, wish: dict[str, Any]) -> tuple[int, int]:
    match endpoint.rpartition("/")[2]:
        case "image-upscale":
            return (512, 768)
        case "image-edit" | "virtual-try-on":
            return (256, 384)
        case _:
            return (1024, 1024)


PROVOKED = {
    "**Error - Safety Filter Blocked (400)**:": {"prompt": "#trouble:blocked-output"},
    "### 400 Bad Request": {"prompt": ""},
    "### 401 Unauthorized": {"prompt": "a"},
    "### 500 Internal Server Error": {"prompt": "#trouble:500"},
    "### Safety Filter Blocked": {"prompt": "#trouble:text-only"},
}


@pytest.mark.parametrize("example", [pytest.param(one, id=one.headings[-1]) for one in ERRORS])
def test_errors_are_as_documented(documented: str, emulator: Emulator, example: Example) -> None:
    headers = {} if "401" in example.headings[-1] else {"Authorization": f"Bearer {token()}"}
    answer = httpx.post(
        f"{documented}/api/v1/image/text-to-image", json=PROVOKED[example.headings[-1]], headers=headers
    )
    body, expected = answer.json(), example.json
    assert body.pop("receiptId", None) == (
        answer.headers["x-receipt-id"] if answer.status_code == 500 else None
    )
    assert answer.status_code == expected["statusCode"]
    if example.headings[-1] == "### Safety Filter Blocked":  # a reason without a code has no code
        expected["raiFilteredReason"] = body["raiFilteredReason"]
    assert body == expected
