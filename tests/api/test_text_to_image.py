"""Text-to-image from the socket to the bucket."""

import re
from io import BytesIO

import httpx
import pybase64
import pytest
from PIL import Image

from app.emulator.server import Emulator
from tests.api.conftest import Client, Start, client_of

URL = re.compile(
    r"http://127\.0\.0\.1:\d+/image-gateway/images/generated/text-to-image/"
    r"\d{8}_\d{6}_(?P<short>[a-z0-9]+)_text-to-image_[0-9a-f]{32}-[0-9]\.(?P<ext>png|jpg)"
)


def fetched(url: str) -> tuple[httpx.Response, Image.Image]:
    answer = httpx.get(url).raise_for_status()
    return answer, Image.open(BytesIO(answer.content))


def test_a_prompt_becomes_a_public_picture(client: Client) -> None:
    answer = client.text_to_image("A lighthouse at dusk")
    body = answer.json()
    (image,) = body["images"]
    match = URL.fullmatch(image["url"])
    assert match
    assert body == {
        "success": True,
        "model": "imagen-3.0-generate-001",
        "images": [
            {
                "url": image["url"],
                "filename": image["url"].rpartition("/")[2],
                "mimeType": "image/png",
                "generatedAt": image["generatedAt"],
            }
        ],
    }
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", image["generatedAt"])
    stored, picture = fetched(image["url"])
    assert (picture.format, picture.size) == ("PNG", (1024, 1024))
    assert stored.headers["content-type"] == "image/png"
    assert stored.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("fields", "format", "size", "short"),
    [
        pytest.param({"aspectRatio": "16:9"}, "PNG", (1408, 768), "img3", id="wide imagen"),
        pytest.param(
            {"model": "imagen-4.0-generate-001", "sampleImageSize": "2K"},
            "PNG",
            (2048, 2048),
            "img4",
            id="2K",
        ),
        pytest.param(
            {"outputOptions": {"mimeType": "image/jpeg", "compressionQuality": 30}},
            "JPEG",
            (1024, 1024),
            "img3",
            id="jpeg",
        ),
        pytest.param({"model": "gemini-2.5-flash-image"}, "PNG", (1024, 1024), "gem25", id="gemini"),
        pytest.param(
            {"model": "gemini-2.5-flash-image", "outputOptions": {"mimeType": "image/jpeg"}},
            "JPEG",
            (1024, 1024),
            "gem25",
            id="gemini jpeg",
        ),
    ],
)
def test_the_picture_is_as_it_was_asked_for(
    client: Client, fields: dict[str, object], format: str, size: tuple[int, int], short: str
) -> None:
    (image,) = client.text_to_image("A lighthouse", **fields).json()["images"]
    _, picture = fetched(image["url"])
    assert (picture.format, picture.size) == (format, size)
    assert URL.fullmatch(image["url"])["short"] == short  # type: ignore[index]


@pytest.mark.parametrize("model", ["imagen-4.0-generate-001", "gemini-2.5-flash-image"])
def test_four_samples_are_four_different_pictures(client: Client, emulator: Emulator, model: str) -> None:
    images = client.text_to_image("Four lighthouses", model=model, sampleCount=4).json()["images"]
    assert len({fetched(image["url"])[0].content for image in images}) == 4
    assert emulator.calls.paid == 4


def test_base64_on_request(client: Client) -> None:
    body = client.text_to_image("A lighthouse", responseFormat="b64_json").json()
    (prediction,) = body["predictions"]
    assert body == {"predictions": [prediction], "model": "imagen-3.0-generate-001"}
    picture = Image.open(BytesIO(pybase64.b64decode(prediction["bytesBase64Encoded"], validate=True)))
    assert (prediction["mimeType"], picture.size) == ("image/png", (1024, 1024))


def test_the_same_seed_paints_the_same(client: Client) -> None:
    pictures = [
        client.text_to_image("A lighthouse", seed=7, responseFormat="b64_json").json()["predictions"]
        for _ in range(2)
    ]
    assert pictures[0] == pictures[1]


def test_storage_uri_chooses_the_folder(client: Client) -> None:
    (image,) = client.text_to_image("A crane", storageUri="gs://image-gateway/out/crane/").json()["images"]
    assert "/image-gateway/out/crane/20" in image["url"]
    fetched(image["url"])


@pytest.mark.parametrize(
    "uri", ["gs://elsewhere/x", "https://image-gateway/x", "gs://image-gateway-2/x", "x", ""]
)
def test_storage_uri_elsewhere_is_refused_before_paying(client: Client, emulator: Emulator, uri: str) -> None:
    answer = client.text_to_image("A crane", storageUri=uri)
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        ["storageUri must be a gs:// URI under one of the allowed prefixes"],
    )
    assert emulator.calls.list() == ()


def test_a_retired_model_is_followed_and_remembered(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("retired", model="imagen-4.0-ultra-generate-001")
    with start() as url:
        client = client_of(url)
        for _ in range(2):
            answer = client.text_to_image("A lighthouse", model="imagen-4.0-ultra-generate-001")
            body = answer.json()
            assert (answer.status_code, body["model"], body["requestedModel"]) == (
                200,
                "gemini-3-pro-image",
                "imagen-4.0-ultra-generate-001",
            )
            assert answer.headers["x-model-requested"] == "imagen-4.0-ultra-generate-001"
        client.http.close()
    asked = [call.model for call in emulator.calls.list() if call.vendor == "vertex"]
    assert asked == ["imagen-4.0-ultra-generate-001", "gemini-3-pro-image", "gemini-3-pro-image"]


def test_retired_models_can_be_refused_instead(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("retired", model="imagen-3.0-generate-001")
    with start(retired_models="refuse") as url:
        client = client_of(url)
        answer = client.text_to_image("A lighthouse")
        client.http.close()
    assert answer.json() == {
        "statusCode": 400,
        "message": "imagen-3.0-generate-001 is retired, use gemini-nano-banana-2.1",
        "error": "Bad Request",
    }


def test_what_a_successor_cannot_do_is_told(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("retired", model="imagen-3.0-generate-001")
    with start() as url:
        client = client_of(url)
        answer = client.text_to_image("A lighthouse", addWatermark=False)
        client.http.close()
    assert answer.json() == {
        "statusCode": 400,
        "message": "addWatermark false is not available with gemini-nano-banana-2.1",
        "error": "Bad Request",
    }
    assert emulator.calls.paid == 0
