"""What a /gen request may hold: the document's rules, its sentences, and pictures that are what they say."""

import base64
import json
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.contract.gen import Img2Img, InvalidGen, Text2Img, fit_words, read_gen
from app.pictures.blob import Blobs
from app.pictures.work_folder import WorkFolder

Json = dict[str, Any]


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png(width: int = 512, height: int = 512, mode: str = "RGB") -> bytes:
    return encode(Image.new(mode, (width, height)))


def text2img(**fields: Any) -> Json:
    return {"mode": "text2img", "prompt": "a cat"} | fields


def img2img(data: bytes | None = None, **fields: Any) -> Json:
    image = base64.b64encode(png() if data is None else data).decode()
    return {"mode": "img2img", "prompt": "a cat", "init_image": image} | fields


def refusal(values: Json, blobs: Blobs, *, text: bool = False) -> tuple[str, str]:
    with pytest.raises(InvalidGen) as raised:
        read_gen(values, blobs, text=text)
    return raised.value.error, raised.value.details


def test_a_text2img_request_has_the_documents_defaults(blobs: Blobs) -> None:
    assert read_gen(text2img(), blobs, text=False) == Text2Img(
        mode="text2img",
        prompt="a cat",
        negative_prompt="",
        regen_prompt=False,
        prompt_language=None,
        aspect_ratio="1:1",
        response_format="b64_json",
    )


def test_an_img2img_request_has_the_documents_defaults(blobs: Blobs) -> None:
    request = read_gen(img2img(), blobs, text=False)

    assert isinstance(request, Img2Img)
    assert request == Img2Img(
        mode="img2img",
        prompt="a cat",
        init_image=request.init_image,
        similarity_strength=0.5,
        auto_resize=False,
    )
    assert b"".join(request.init_image.blob.pieces()) == png()


ACCEPTED = [
    pytest.param(text2img(prompt="🐈‍⬛ con mèo مرحبا بالعالم"), id="emoji and right-to-left text"),
    pytest.param(text2img(prompt="x" * 10_000), id="longest prompt"),
    pytest.param(text2img(unknown=1, init_image=7, similarity_strength="x"), id="fields of no concern"),
    pytest.param(img2img(similarity_strength=0), id="similarity 0"),
    pytest.param(img2img(similarity_strength=1.0), id="similarity 1"),
    pytest.param(img2img(png(2048, 2048)), id="largest"),
    pytest.param(img2img(png(512, 576)), id="smallest"),
    pytest.param(img2img(encode(Image.new("RGB", (512, 512)), "JPEG")), id="JPEG"),
    pytest.param(img2img(png(33, 7), auto_resize=True), id="any size with auto_resize"),
    pytest.param(
        img2img(init_image="data:image/png;base64," + base64.encodebytes(png()).decode()),
        id="data URI with line breaks",
    ),
]


@pytest.mark.parametrize("values", ACCEPTED)
def test_a_legal_request_is_read(blobs: Blobs, values: Json) -> None:
    assert read_gen(values, blobs, text=False).prompt == values["prompt"]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("names", [["responseFormat"], ["response_format", "responseFormat"]])
def test_the_response_format_has_two_spellings(blobs: Blobs, names: list[str], text: bool) -> None:
    for values in (text2img(), img2img()):
        assert read_gen(values | dict.fromkeys(names, "url"), blobs, text=text).response_format == "url"


MODE = ("Invalid mode", 'The \'mode\' field must be "text2img" or "img2img"')
NO_PROMPT = ("Missing required parameter: prompt", "The 'prompt' field is required for text2img mode")
PROMPT = ("Invalid prompt", "The 'prompt' field must be a valid text of at most 10000 characters")
RATIO = (
    "Invalid aspect_ratio",
    'The \'aspect_ratio\' field must be one of "1:1", "16:9", "9:16", "3:2", "3:5"',
)
NO_IMAGE = ("Missing required parameter: init_image", "The 'init_image' field is required for img2img mode")
IMAGE = ("Invalid init_image", "The 'init_image' field must be a PNG or JPEG image")
SIMILARITY = (
    "Invalid similarity_strength",
    "The 'similarity_strength' field must be a number from 0.0 to 1.0",
)
FLAG = ("Invalid regen_prompt", "The 'regen_prompt' field must be true or false")

TWICE = (
    "Invalid responseFormat",
    "The 'responseFormat' field must not differ from 'response_format': they are the same field",
)


def no_side(width: int, height: int) -> tuple[str, str]:
    details = f"Image width and height must be within 512-2048 pixels, but are {width}x{height}"
    return "Invalid image dimensions", details


REFUSED = [
    pytest.param({}, MODE, id="nothing"),
    pytest.param(text2img(mode=None), MODE, id="mode null"),
    pytest.param(text2img(mode="TEXT2IMG"), MODE, id="mode in capitals"),
    pytest.param(text2img(mode=["text2img"]), MODE, id="mode a list"),
    pytest.param({"mode": "text2img"}, NO_PROMPT, id="no prompt"),
    pytest.param(text2img(prompt=None), NO_PROMPT, id="prompt null"),
    pytest.param(text2img(prompt=""), NO_PROMPT, id="prompt empty"),
    pytest.param(text2img(prompt=" \n"), NO_PROMPT, id="prompt blank"),
    pytest.param(text2img(prompt=7), PROMPT, id="prompt a number"),
    pytest.param(text2img(prompt="x" * 100_000), PROMPT, id="prompt of 100 000 characters"),
    pytest.param(text2img(prompt="a\0b"), PROMPT, id="prompt with a null character"),
    pytest.param(text2img(prompt="a\ud800"), PROMPT, id="prompt with a lone surrogate"),
    pytest.param(
        text2img(negative_prompt=None),
        ("Invalid negative_prompt", PROMPT[1].replace("'prompt'", "'negative_prompt'")),
        id="negative prompt null",
    ),
    pytest.param(text2img(aspect_ratio="4:3"), RATIO, id="ratio"),
    pytest.param(text2img(aspect_ratio=None), RATIO, id="ratio null"),
    pytest.param(text2img(regen_prompt="true"), FLAG, id="flag in words"),
    pytest.param(text2img(regen_prompt=1), FLAG, id="flag a number"),
    pytest.param(
        text2img(prompt_language="fr"),
        ("Invalid prompt_language", 'The \'prompt_language\' field must be "vi" or "en"'),
        id="language",
    ),
    pytest.param(
        text2img(response_format="png"),
        ("Invalid response_format", 'The \'response_format\' field must be "b64_json" or "url"'),
        id="response format",
    ),
    pytest.param(
        text2img(responseFormat="png"),
        ("Invalid responseFormat", 'The \'responseFormat\' field must be "b64_json" or "url"'),
        id="response format in the other spelling",
    ),
    pytest.param(
        text2img(response_format="url", responseFormat="b64_json"), TWICE, id="two response formats"
    ),
    pytest.param(
        text2img(response_format=None, responseFormat="url"), TWICE, id="null and a response format"
    ),
    pytest.param({"mode": "img2img", "prompt": "x"}, NO_IMAGE, id="no init_image"),
    pytest.param(img2img(init_image=None), NO_IMAGE, id="init_image null"),
    pytest.param(img2img(init_image=""), NO_IMAGE, id="init_image empty"),
    pytest.param(
        img2img(init_image=[1]),
        ("Invalid init_image", "The 'init_image' field must be a base64 encoded PNG or JPEG image"),
        id="init_image a list",
    ),
    pytest.param(img2img(init_image="not base64!"), IMAGE, id="not base64"),
    pytest.param(img2img(init_image="gs://bucket/a.png"), IMAGE, id="gs URI"),
    pytest.param(img2img(b"GIF89a no picture"), IMAGE, id="not a picture"),
    pytest.param(img2img(encode(Image.new("RGB", (512, 512)), "WEBP")), IMAGE, id="WebP"),
    pytest.param(img2img(encode(Image.new("RGB", (512, 512)), "GIF")), IMAGE, id="GIF"),
    pytest.param(
        img2img(png() + bytes(65_000_000)),
        ("Image too large", "The 'init_image' field is too large"),
        id="65 MB",
    ),
    pytest.param(
        img2img(png(20_000, 20_000, "1"), auto_resize=True),
        ("Image too large", "The 'init_image' field is too large"),
        id="a bomb",
    ),
    pytest.param(img2img(png(2049, 512)), no_side(2049, 512), id="2049 pixels"),
    pytest.param(img2img(png(512, 448)), no_side(512, 448), id="448 pixels"),
    pytest.param(
        img2img(png(1000, 1024)),
        (
            "Invalid image dimensions",
            "Image size must be divisible by 64, but width and height are 1000x1024",
        ),
        id="not by 64",
    ),
    *(
        pytest.param(img2img(similarity_strength=value), SIMILARITY, id=f"similarity {value!r:.9}")
        for value in ("0.5", float("nan"), float("inf"), None, True, -0.01, 1.01, 10**400, [0.5])
    ),
]


@pytest.mark.parametrize(("values", "sentences"), REFUSED)
def test_a_broken_rule_is_told_in_the_documents_words(
    blobs: Blobs, values: Json, sentences: tuple[str, str]
) -> None:
    assert refusal(values, blobs) == sentences


def test_what_the_json_parser_makes_of_nan_is_refused(blobs: Blobs) -> None:
    values = json.loads(json.dumps(img2img(similarity_strength=float("nan"))))

    assert refusal(values, blobs) == SIMILARITY


def test_a_form_has_numbers_flags_and_files(blobs: Blobs) -> None:
    form = {
        "mode": "img2img",
        "prompt": "a cat",
        "init_image": blobs.of(png()),
        "similarity_strength": "0.7",
        "regen_prompt": "True",
        "auto_resize": "false",
    }

    request = read_gen(form, blobs, text=True)

    assert isinstance(request, Img2Img)
    assert (request.similarity_strength, request.regen_prompt, request.auto_resize) == (0.7, True, False)
    assert request.init_image.blob is form["init_image"]


@pytest.mark.parametrize("value", ["", "1e1", "1e999", "nan", "0x1", "1_0", " 0.5", "\u0660", "9" * 400, "2"])
def test_a_form_takes_decimal_notation_only(blobs: Blobs, value: str) -> None:
    assert refusal(img2img() | {"similarity_strength": value}, blobs, text=True) == SIMILARITY


@pytest.mark.parametrize(
    ("value", "strength"),
    [
        ("1e-05", 0.00001),
        (".5", 0.5),
        ("1.", 1),
        ("1E0", 1),
        ("0.1000000000000000055511151231257827", 0.1),
    ],
)
def test_a_form_takes_a_number_as_languages_write_it(blobs: Blobs, value: str, strength: float) -> None:
    request = read_gen(img2img() | {"similarity_strength": value}, blobs, text=True)
    assert isinstance(request, Img2Img)
    assert request.similarity_strength == strength


@pytest.mark.parametrize("value", ["1", "yes", "", "tru"])
def test_a_form_takes_true_and_false_only(blobs: Blobs, value: str) -> None:
    assert refusal(text2img(regen_prompt=value), blobs, text=True) == FLAG


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just("text2img"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
NAMES = [*Img2Img.model_fields, "responseFormat", "unknown"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(st.sampled_from(NAMES), anything),
    good=st.sampled_from([{}, text2img(), img2img()]),
    text=st.booleans(),
)
def test_anything_is_a_request_or_a_refusal(work: WorkFolder, values: Json, good: Json, text: bool) -> None:
    """The binary values become blobs, as the parsers of bodies make them."""
    with work.blobs() as blobs, suppress(InvalidGen):
        read = {name: blobs.of(one) if isinstance(one, bytes) else one for name, one in values.items()}
        assert read_gen(good | read, blobs, text=text).prompt.strip()


@pytest.mark.parametrize(
    ("text", "characters", "fitting"),
    [
        ("one two three", 13, "one two three"),
        (" one two three ", 13, "one two three"),
        ("one two three", 12, "one two"),
        ("one two three", 7, "one two"),
        ("one two three", 6, "one"),
        ("one\ntwo three", 4, "one"),
        ("incomprehensibilities", 5, "incom"),
        ("🐈 🐈🐈", 3, "🐈"),
    ],
)
def test_words_are_cut_whole(text: str, characters: int, fitting: str) -> None:
    assert fit_words(text, characters) == fitting
