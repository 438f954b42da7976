"""Google's own google-genai client works against the REST front."""

from collections.abc import Iterator

import pytest
from google.genai import Client, types
from google.genai.errors import ClientError
from google.oauth2.credentials import Credentials

from app.emulator.server import Emulator
from tests.support.vertex_client import opened, picture

PROJECT = "demo-project"


@pytest.fixture
def genai(emulator: Emulator) -> Iterator[Client]:
    with Client(
        vertexai=True,
        project=PROJECT,
        location="us-central1",
        credentials=Credentials("no-secret"),  # type: ignore[no-untyped-call]
        http_options=types.HttpOptions(base_url=emulator.http_url),
    ) as client:
        yield client


def size(image: types.Image | None) -> tuple[int, int]:
    assert image is not None
    assert image.image_bytes is not None
    return opened(image.image_bytes).size


@pytest.mark.filterwarnings("ignore:The .* method is deprecated")  # not before 2027
def test_generate_images(genai: Client) -> None:
    config = types.GenerateImagesConfig(number_of_images=2, aspect_ratio="16:9", include_rai_reason=True)
    answer = genai.models.generate_images(model="imagen-4.0-generate-001", prompt="a pear", config=config)
    assert [size(each.image) for each in answer.generated_images or []] == [(1408, 768)] * 2


@pytest.mark.filterwarnings("ignore:The .* method is deprecated")
def test_edit_image(genai: Client) -> None:
    raw = types.RawReferenceImage(
        reference_id=1, reference_image=types.Image(image_bytes=picture(), mime_type="image/png")
    )
    mask = types.MaskReferenceImage(
        reference_id=2,
        config=types.MaskReferenceConfig(mask_mode=types.MaskReferenceMode.MASK_MODE_BACKGROUND),
    )
    config = types.EditImageConfig(
        edit_mode=types.EditMode.EDIT_MODE_BGSWAP, number_of_images=1, base_steps=9
    )
    answer = genai.models.edit_image(
        model="imagen-3.0-capability-001", prompt="at sea", reference_images=[raw, mask], config=config
    )
    assert [size(each.image) for each in answer.generated_images or []] == [(64, 48)]


def test_upscale_image(genai: Client) -> None:
    source = types.Image(image_bytes=picture(), mime_type="image/png")
    answer = genai.models.upscale_image(model="imagen-4.0-upscale-preview", image=source, upscale_factor="x4")
    assert [size(each.image) for each in answer.generated_images or []] == [(256, 192)]


def test_recontext_image(genai: Client) -> None:
    person = types.Image(image_bytes=picture((30, 60)), mime_type="image/png")
    shirt = types.Image(image_bytes=picture((20, 20), "red"), mime_type="image/png")
    source = types.RecontextImageSource(
        person_image=person, product_images=[types.ProductImage(product_image=shirt)]
    )
    answer = genai.models.recontext_image(model="virtual-try-on-001", source=source)
    assert [size(each.image) for each in answer.generated_images or []] == [(30, 60)]


def test_generate_content(genai: Client) -> None:
    config = types.GenerateContentConfig(
        response_modalities=["TEXT", "IMAGE"],
        seed=3,
        image_config=types.ImageConfig(aspect_ratio="9:16", output_mime_type="image/jpeg"),
    )
    answer = genai.models.generate_content(model="gemini-2.5-flash-image", contents="a pear", config=config)
    text, drawn = answer.parts or []
    assert text.text == "Here is the picture."
    assert drawn.inline_data is not None
    assert drawn.inline_data.mime_type == "image/jpeg"
    assert opened(drawn.inline_data.data or b"").size == (768, 1344)


def test_refusal_reaches_the_caller(genai: Client) -> None:
    with pytest.raises(ClientError) as refused:
        genai.models.generate_content(model="gemini-2.0-flash", contents="a pear")
    assert (refused.value.code, refused.value.status) == (404, "NOT_FOUND")
    assert f"projects/{PROJECT}/" in str(refused.value.message)
