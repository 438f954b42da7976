"""The two readers of a field's rules agree: what no sentence objects to, pydantic builds."""

import base64
from copy import deepcopy
from io import BytesIO
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.contract.auth import LoginRequest
from app.contract.errors import InvalidRequest
from app.contract.image import ImageRequest, ImageUpscale, ProductRecontext, TextToImage, VirtualTryOn
from app.contract.models import load_catalogue
from app.contract.reading import Contract, read
from app.contract.references import (
    CustomizeReference,
    EditReference,
    ImageCustomize,
    ImageEdit,
    MaskImageConfig,
)
from app.pictures.blob import Blobs
from app.pictures.work_folder import WorkFolder

CATALOGUE = load_catalogue()


def png(size: tuple[int, int] = (8, 8)) -> str:
    out = BytesIO()
    Image.new("RGB", size, "teal").save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def edit(*, mask: dict[str, Any]) -> dict[str, Any]:
    """A masked edit; `mask` changes its second reference."""
    base = {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "bytesBase64Encoded": png()}
    config = {"maskMode": "MASK_MODE_USER_PROVIDED"}
    second = {**base, "referenceType": "REFERENCE_TYPE_MASK", "referenceId": 2, "maskImageConfig": config}
    return {"referenceImages": [base, {**second, **mask}], "editMode": "EDIT_MODE_OUTPAINT"}


REFERENCES: tuple[type[Contract], ...] = (EditReference, CustomizeReference, MaskImageConfig)
GOOD: dict[type[Contract], dict[str, Any]] = {
    TextToImage: {"prompt": "x"},
    ImageUpscale: {"image": png()},
    ImageEdit: edit(mask={}),
    ImageCustomize: {
        "prompt": "[1]",
        "referenceImages": [
            {"referenceType": "REFERENCE_TYPE_SUBJECT", "referenceId": 1, "bytesBase64Encoded": png()}
        ],
    },
    VirtualTryOn: {"personImage": png(), "productImages": [png()]},
    ProductRecontext: {"productImages": [png()]},
    LoginRequest: {"username": "ann", "password": "x"},
}
"""A body of each contract that is a request's, with what it must have."""


def test_every_request_takes_part() -> None:
    assert {*get_args(ImageRequest), LoginRequest} == set(GOOD)


@pytest.mark.parametrize("contract", GOOD)
def test_a_good_body_is_a_request(blobs: Blobs, contract: type[Contract]) -> None:
    assert type(read(contract, deepcopy(GOOD[contract]), CATALOGUE, blobs)) is contract


names = st.sampled_from(
    [
        "response_format",
        "",
        *(field.alias or "" for contract in (*GOOD, *REFERENCES) for field in contract.model_fields.values()),
    ]
)
words = st.sampled_from(["", "x", "2", "url", "true", "image/png", "x2", "REFERENCE_TYPE_MASK", "1:1", png()])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-10, 600)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=6,
)


@pytest.mark.parametrize("contract", GOOD)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_refusal_is_a_sentence_about_a_field(
    work: WorkFolder, contract: type[Contract], data: st.DataObject
) -> None:
    """Half of the bodies are good but for a field or two: often no sentence objects, and pydantic decides."""
    own = st.sampled_from([field.alias or "" for field in contract.model_fields.values()])
    if data.draw(st.booleans()):
        raw = deepcopy(GOOD[contract]) | data.draw(st.dictionaries(own, words | values, max_size=2))
    else:
        raw = data.draw(st.dictionaries(own | names, values, max_size=8))
    text = data.draw(st.booleans())
    sentences: tuple[str, ...] | None = ()
    try:
        with work.blobs() as blobs:
            read(contract, raw, CATALOGUE, blobs, text=text)
    except InvalidRequest as error:
        sentences = error.sentences
    assert sentences is not None
    assert not [sentence for sentence in sentences if "is not valid" in sentence]


def refused(contract: type[Contract], raw: dict[str, Any], blobs: Blobs, *, text: bool = False) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        read(contract, deepcopy(raw), CATALOGUE, blobs, text=text)
    return list(caught.value.sentences or ())


@pytest.mark.parametrize(
    ("contract", "raw", "sentences"),
    [
        pytest.param(
            TextToImage,
            {"prompt": "x", "seed": 1, "addWatermark": True},
            ["seed is not available when addWatermark is true"],
            id="seed with watermark",
        ),
        pytest.param(
            ImageUpscale,
            {"image": png((1400, 900)), "upscaleFactor": "x4"},
            ["image must not exceed 17 megapixels after upscaling"],
            id="17 megapixels",
        ),
        pytest.param(
            ImageUpscale,
            {"image": base64.b64encode(b"<svg/>").decode()},
            ["image must be a PNG, JPEG, WebP or GIF image"],
            id="not a picture",
        ),
        pytest.param(
            VirtualTryOn,
            {"personImage": png(), "productImages": [png(), "%%%"]},
            ["productImages.1 must be a PNG, JPEG, WebP or GIF image"],
            id="not base64",
        ),
        pytest.param(
            ImageCustomize,
            {
                "prompt": "[1] beside [7]",
                "referenceImages": [
                    {"referenceType": "REFERENCE_TYPE_SUBJECT", "referenceId": 1, "bytesBase64Encoded": png()}
                ],
            },
            ["prompt cites [7], but no reference image has referenceId 7"],
            id="cited reference",
        ),
        pytest.param(
            ImageEdit,
            edit(mask={"bytesBase64Encoded": png((9, 8))}),
            ["the mask must have the size of the image it masks"],
            id="mask of another size",
        ),
        pytest.param(
            ImageEdit,
            edit(mask={"referenceType": "REFERENCE_TYPE_RAW"}),
            ["referenceImages must contain exactly one REFERENCE_TYPE_RAW"],
            id="two originals",
        ),
        pytest.param(
            ImageEdit,
            edit(mask={"maskImageConfig": {"maskMode": "MASK_MODE_SEMANTIC"}}),
            ["referenceImages.1.maskImageConfig.maskClasses should not be empty with MASK_MODE_SEMANTIC"],
            id="semantic mask without classes",
        ),
        pytest.param(
            ImageEdit,
            edit(mask={"maskImageConfig": {"maskMode": "MASK_MODE_USER_PROVIDED", "dilation": 1.1}}),
            ["referenceImages.1.maskImageConfig.dilation must be between 0 and 1"],
            id="dilation",
        ),
        pytest.param(
            VirtualTryOn,
            {"personImage": png(), "productImages": [png()], "baseSteps": 0},
            ["baseSteps must not be less than 1"],
            id="no steps",
        ),
    ],
)
def test_rules_that_nest_did_not_have(
    blobs: Blobs, contract: type[Contract], raw: dict[str, Any], sentences: list[str]
) -> None:
    assert refused(contract, raw, blobs) == sentences


LEAST: dict[type[Contract], dict[str, Any]] = {
    TextToImage: {"prompt": "x"},
    ImageUpscale: {"image": png()},
    ImageEdit: edit(mask={}),
    ImageCustomize: {
        "prompt": "x",
        "referenceImages": [
            {"referenceType": "REFERENCE_TYPE_STYLE", "referenceId": 1, "bytesBase64Encoded": png()}
        ],
    },
    VirtualTryOn: {"personImage": png(), "productImages": [png()]},
    ProductRecontext: {"productImages": [png()]},
}
"""The shortest body of each contract."""


@pytest.mark.parametrize("contract", LEAST, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": "OTHER"},
        {"responseFormat": "OTHER"},
        {"responseFormat": "OTHER", "response_format": "OTHER"},
        {"responseFormat": "OTHER", "response_format": None},
        {"responseFormat": None, "response_format": "OTHER"},
    ],
)
def test_the_response_format_has_two_spellings(
    blobs: Blobs, contract: type[Contract], fields: dict[str, Any]
) -> None:
    default = contract.model_fields["response_format"].default
    other = {"url": "b64_json", "b64_json": "url"}[default]
    given = {name: value and other for name, value in fields.items()}

    for text in (False, True):
        raw = deepcopy(LEAST[contract]) | given
        built = read(contract, raw if not text else as_text(raw), CATALOGUE, blobs, text=text)
        assert built.model_dump()["response_format"] == other


WRONG = "must be one of the following values: url, b64_json"


@pytest.mark.parametrize("contract", LEAST, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"responseFormat": "png"}, f"responseFormat {WRONG}"),
        ({"response_format": "png"}, f"response_format {WRONG}"),
        ({"response_format": ["url"]}, f"response_format {WRONG}"),
        ({"response_format": "png", "responseFormat": None}, f"response_format {WRONG}"),
        (
            {"response_format": "url", "responseFormat": "b64_json"},
            "response_format must not differ from responseFormat: they are the same field",
        ),
    ],
)
def test_a_wrong_response_format_is_named_as_the_caller_spelt_it(
    blobs: Blobs, contract: type[Contract], fields: dict[str, Any], sentence: str
) -> None:
    assert refused(contract, LEAST[contract] | fields, blobs) == [sentence]


def test_a_field_without_a_name_is_an_unknown_field(blobs: Blobs) -> None:
    for raw in ({"": 7}, {"": "x", "responseFormat": "b64_json"}):
        assert read(TextToImage, {"prompt": "x", **raw}, CATALOGUE, blobs).prompt == "x"


def test_seed_switches_an_unsaid_watermark_off(blobs: Blobs) -> None:
    assert read(TextToImage, {"prompt": "x", "seed": 5}, CATALOGUE, blobs).watermark is False
    assert read(TextToImage, {"prompt": "x"}, CATALOGUE, blobs).watermark is True


def as_text(value: Any) -> Any:
    """Numbers as a form has them."""
    if isinstance(value, dict):
        return {name: as_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_text(one) for one in value]
    return str(value) if isinstance(value, int) else value


def test_a_form_s_text_becomes_numbers_at_every_depth(blobs: Blobs) -> None:
    picture = png()
    mask = {
        "referenceType": "REFERENCE_TYPE_MASK",
        "referenceId": "2",
        "bytesBase64Encoded": picture,
        "maskImageConfig": {"maskMode": "MASK_MODE_USER_PROVIDED", "dilation": "0.01"},
    }
    base = {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": "1", "bytesBase64Encoded": picture}
    raw = {
        "referenceImages": [base, mask],
        "editMode": "EDIT_MODE_OUTPAINT",
        "sampleCount": "2",
        "addWatermark": "false",
    }
    edit = read(ImageEdit, deepcopy(raw), CATALOGUE, blobs, text=True)
    config = edit.reference_images[1].mask_image_config
    assert (edit.sample_count, edit.add_watermark, edit.reference_images[1].reference_id) == (2, False, 2)
    assert config is not None
    assert config.dilation == 0.01
    assert refused(ImageEdit, raw, blobs)[0] == "referenceImages.0.referenceId must be an integer number"
