"""What the gateway sends for a caller's body is what Google's own client was recorded sending."""

import json
from copy import deepcopy
from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import GenerateContentRequest, PredictRequest
from google.protobuf.json_format import MessageToDict, Parse, ParseError

from app.contract import image, references
from app.contract.errors import InvalidRequest
from app.contract.models import Model
from app.contract.reading import read
from app.pictures.in_json import JsonWriter
from app.providers.vertex import abilities, gemini, imagen
from tests.support import vertex_recordings as wire
from tests.support.vertex_provider import CATALOGUE, scope, without

CONTRACTS: dict[str, type[Any]] = {
    contract.operation: contract
    for contract in (
        image.TextToImage,
        image.ImageUpscale,
        references.ImageEdit,
        references.ImageCustomize,
        image.VirtualTryOn,
        image.ProductRecontext,
    )
}
STORED_BY_THE_GATEWAY = {"imagen4-storage-uri", "upscale-gcs-in-gcs-out", "vto-storage-uri"}
"""Recorded with a storageUri, which is never forwarded: the gateway writes there itself."""

PNG = next(case["contract_body"]["image"] for case in wire.cases() if case["name"] == "upscale-x2-bytes")
BLOCKED = {"safetySetting": "block_medium_and_above", "personGeneration": "allow_adult"}


def encode(operation: str, body: wire.Json, model: str | Model | None = None, sample: int = 0) -> wire.Json:
    """What goes out for the body: the text, read again, which Google's own message can read too."""
    with scope() as blobs:
        request = read(CONTRACTS[operation], deepcopy(body), CATALOGUE, blobs)  # it puts blobs into the body
        name = model or body.get("model") or CATALOGUE.defaults[request.operation]
        row = CATALOGUE[name] if isinstance(name, str) else name
        abilities.check(request, row)
        sent = gemini.encode(request, row, sample) if row.family == "gemini" else imagen.encode(request, row)
        writer = JsonWriter(sent)
        text = b"".join(writer)
    assert len(text) == writer.length
    known = as_google_reads(text, row)
    encoded: wire.Json = json.loads(text)
    if row.family == "gemini":
        assert known == encoded
    return encoded


def as_google_reads(text: bytes, row: Model) -> wire.Json:
    """Raises ParseError for a field or a value that Google's message does not know."""
    message = GenerateContentRequest if row.family == "gemini" else PredictRequest
    known: wire.Json = MessageToDict(Parse(text, message.pb()()))
    return known


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["name"]) for case in wire.cases() if "contract_body" in case]
)
def test_recorded_request_is_sent(case: wire.Json) -> None:
    recorded = case["request_json"]
    if case["name"] in STORED_BY_THE_GATEWAY:
        del recorded["parameters"]["storageUri"]
    sent = encode(case["endpoint"], case["contract_body"])
    assert wire.differences(recorded, sent) == []
    assert "storageUri" not in sent.get("parameters", {})


def test_comparison_notices_a_difference() -> None:
    recorded = {
        "instances": [{"prompt": "a", "image": {"bytesBase64Encoded": PNG}}],
        "parameters": {"seed": 1},
    }
    sent = {"instances": [{"prompt": "b", "image": {"bytesBase64Encoded": "AAAA"}}], "parameters": {}}
    assert [line.split(":")[0] for line in wire.differences(recorded, sent)] == [
        "request.instances[0].prompt",
        "request.instances[0].image.bytesBase64Encoded.sha256",
        "request.instances[0].image.bytesBase64Encoded.bytes",
        "request.parameters.seed",
    ]


MASKED = [
    {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "bytesBase64Encoded": PNG},
    {
        "referenceType": "REFERENCE_TYPE_MASK",
        "referenceId": 2,
        "bytesBase64Encoded": PNG,
        "maskImageConfig": {"maskMode": "MASK_MODE_SEMANTIC", "maskClasses": [3], "dilation": 0.5},
    },
]
INSERTION = {"referenceImages": MASKED, "editMode": "EDIT_MODE_INPAINT_INSERTION"}


@pytest.mark.parametrize(
    ("operation", "body", "parameters"),
    [
        pytest.param(
            "text-to-image",
            {"prompt": "x"},
            {"sampleCount": 1, "addWatermark": True, "outputOptions": {"mimeType": "image/png"}, **BLOCKED},
            id="text-to-image",
        ),
        pytest.param(
            "text-to-image",
            {
                "prompt": "x",
                "model": "imagen-4.0-ultra-generate-001",
                "seed": 5,
                "sampleImageSize": "2K",
                "aspectRatio": "9:16",
                "negativePrompt": "fog",
                "storageUri": "gs://bucket/x",
                "language": "id",
                "outputOptions": {"mimeType": "image/jpeg"},
            },
            {
                "sampleCount": 1,
                "addWatermark": False,
                "seed": 5,
                "enhancePrompt": False,
                "negativePrompt": "fog",
                "aspectRatio": "9:16",
                "sampleImageSize": "2K",
                "outputOptions": {"mimeType": "image/jpeg", "compressionQuality": 75},
                **BLOCKED,
            },
            id="text-to-image with everything",
        ),
        pytest.param(
            "image-upscale",
            {"image": PNG},
            {
                "sampleCount": 1,
                "mode": "upscale",
                "upscaleConfig": {"upscaleFactor": "x2"},
                "addWatermark": True,
                "outputOptions": {"mimeType": "image/png"},
            },
            id="upscale",
        ),
        pytest.param(
            "image-edit",
            INSERTION,
            {
                "sampleCount": 4,
                "editMode": "EDIT_MODE_INPAINT_INSERTION",
                "editConfig": {"baseSteps": 75},
                "guidanceScale": 75,
                "addWatermark": True,
            },
            id="insertion",
        ),
        pytest.param(
            "image-edit",
            {**INSERTION, "editMode": "EDIT_MODE_BGSWAP"},
            {
                "sampleCount": 4,
                "editMode": "EDIT_MODE_BGSWAP",
                "editConfig": {"baseSteps": 75},
                "guidanceScale": 60,
                "addWatermark": True,
            },
            id="background swap",
        ),
        pytest.param(
            "virtual-try-on",
            {"personImage": PNG, "productImages": [PNG]},
            {
                "sampleCount": 1,
                "baseSteps": 32,
                "addWatermark": True,
                "outputOptions": {"mimeType": "image/png"},
            },
            id="try-on",
        ),
        pytest.param(
            "product-recontext",
            {"productImages": [PNG], "seed": 3, "enhancePrompt": False},
            {"sampleCount": 1, "addWatermark": False, "seed": 3, "enhancePrompt": False, **BLOCKED},
            id="recontext",
        ),
    ],
)
def test_defaults_are_explicit(operation: str, body: wire.Json, parameters: wire.Json) -> None:
    assert encode(operation, body)["parameters"] == {"includeRaiReason": True, **parameters}


def test_references_are_nested() -> None:
    source = {"bytesBase64Encoded": PNG, "mimeType": "image/png"}
    assert encode("image-edit", INSERTION)["instances"] == [
        {
            "referenceImages": [
                {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "referenceImage": source},
                {
                    "referenceType": "REFERENCE_TYPE_MASK",
                    "referenceId": 2,
                    "maskImageConfig": {
                        "maskMode": "MASK_MODE_SEMANTIC",
                        "dilation": 0.5,
                        "maskClasses": [3],
                    },
                },
            ]
        }
    ]


def reference(kind: str, number: int, **config: wire.Json) -> wire.Json:
    return {
        "referenceType": f"REFERENCE_TYPE_{kind}",
        "referenceId": number,
        "bytesBase64Encoded": PNG,
        **config,
    }


CUSTOM: wire.Json = {
    "prompt": "[1] in the pose of [2]",
    "negativePrompt": "noise",
    "seed": 2**31 - 1,
    "referenceImages": [
        reference("CONTROL", 2, controlImageConfig={"controlType": "CONTROL_TYPE_CANNY"}),
        reference(
            "SUBJECT",
            1,
            subjectImageConfig={"subjectType": "SUBJECT_TYPE_PERSON", "subjectDescription": "a tall man"},
            styleImageConfig={"styleDescription": "not a style picture"},
        ),
        reference("STYLE", 3, styleImageConfig={"styleDescription": "ink"}),
    ],
}


PHOTO: wire.Json = {
    "prompt": "x",
    "referenceImages": [
        reference(
            "CONTROL",
            1,
            controlImageConfig={
                "controlType": "CONTROL_TYPE_CANNY",
                "enableControlImageComputation": True,
            },
        )
    ],
}


def test_reference_travels_with_the_settings_of_its_kind_only() -> None:
    sent = encode("image-customize", CUSTOM)["instances"][0]["referenceImages"]
    assert [sorted(one) for one in sent] == [
        ["controlImageConfig", "referenceId", "referenceImage", "referenceType"],
        ["referenceId", "referenceImage", "referenceType", "subjectImageConfig"],
        ["referenceId", "referenceImage", "referenceType", "styleImageConfig"],
    ]


def test_gemini_is_told_what_each_reference_is_for() -> None:
    shown = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert encode("image-customize", CUSTOM, "gemini-2.5-flash-image", sample=1) == {
        "contents": [
            {
                "role": "user",
                "parts": [
                    {
                        "text": "[2] is a control picture: follow the edges and outlines in it, "
                        "not its colours or its content."
                    },
                    shown,
                    {"text": "[1] is the person in this picture: a tall man"},
                    shown,
                    {"text": "[3] is a style picture: draw in its style (ink), not its content."},
                    shown,
                    {"text": "[1] in the pose of [2]\n\nAvoid in the picture: noise"},
                ],
            }
        ],
        "generationConfig": {"responseModalities": ["IMAGE"], "seed": 0, "imageConfig": {}},
    }


def test_gemini_is_told_that_a_control_picture_is_to_be_made_of_a_photo() -> None:
    [introduced, *_] = encode("image-customize", PHOTO, "gemini-3-pro-image")["contents"][0]["parts"]
    assert introduced == {
        "text": "[1] is a photo: follow the edges and outlines in it, not its colours or its content."
    }


def test_gemini_is_asked_in_its_own_words() -> None:
    body = {
        "prompt": "x",
        "negativePrompt": "fog",
        "model": "gemini-3-pro-image",
        "seed": 7,
        "sampleCount": 3,
        "aspectRatio": "16:9",
        "sampleImageSize": "2K",
        "safetySetting": "block_only_high",
        "personGeneration": "dont_allow",
        "outputOptions": {"mimeType": "image/jpeg", "compressionQuality": 40},
    }
    harms = ("HATE_SPEECH", "HARASSMENT", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
    assert encode("text-to-image", body, sample=2) == {
        "contents": [{"role": "user", "parts": [{"text": "x\n\nAvoid in the picture: fog"}]}],
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "seed": 9,
            "imageConfig": {
                "aspectRatio": "16:9",
                "imageSize": "2K",
                "personGeneration": "ALLOW_NONE",
                "imageOutputOptions": {"mimeType": "image/jpeg", "compressionQuality": 40},
            },
        },
        "safetySettings": [
            {"category": f"HARM_CATEGORY_{harm}", "threshold": "BLOCK_ONLY_HIGH"} for harm in harms
        ],
    }


def test_gemini_reads_stored_pictures_itself() -> None:
    body = {"productImages": ["gs://bucket/a.JPG", "gs://bucket/b"]}
    parts = encode("product-recontext", body, "gemini-3-pro-image")["contents"][0]["parts"]
    assert [part["fileData"] for part in parts if "fileData" in part] == [
        {"mimeType": "image/jpeg", "fileUri": "gs://bucket/a.JPG"},
        {"mimeType": "image/png", "fileUri": "gs://bucket/b"},
    ]


@pytest.mark.parametrize(
    ("operation", "body", "model", "sentence"),
    [
        pytest.param(
            "text-to-image",
            {"prompt": "x", "sampleImageSize": "2K"},
            "gemini-2.5-flash-image",
            "sampleImageSize 2K is not available with gemini-2.5-flash-image",
            id="size, Gemini",
        ),
        pytest.param(
            "text-to-image",
            {"prompt": "x", "sampleImageSize": "2K"},
            "imagen-3.0-generate-001",
            "sampleImageSize 2K is not available with imagen-3.0-generate-001",
            id="size, Imagen",
        ),
        pytest.param(
            "text-to-image",
            {"prompt": "x", "addWatermark": False},
            "gemini-3-pro-image",
            "addWatermark false is not available with gemini-3-pro-image",
            id="watermark",
        ),
        pytest.param(
            "virtual-try-on",
            {"personImage": PNG, "productImages": [PNG, PNG]},
            "virtual-try-on-001",
            "productImages must hold one picture with virtual-try-on-001",
            id="products",
        ),
        pytest.param(
            "text-to-image",
            {"prompt": "x", "seed": 5},
            without(CATALOGUE["gemini-3-pro-image"], "seed"),
            "seed is not available with gemini-3-pro-image",
            id="seed",
        ),
        pytest.param(
            "image-customize",
            CUSTOM,
            without(CATALOGUE["imagen-3.0-capability-001"], "seed"),
            "seed is not available with imagen-3.0-capability-001",
            id="seed of a customization",
        ),
        pytest.param(
            "image-upscale",
            {"image": PNG, "addWatermark": False},
            without(CATALOGUE["imagen-4.0-upscale-preview"], "watermark-off"),
            "addWatermark false is not available with imagen-4.0-upscale-preview",
            id="watermark, Imagen",
        ),
        pytest.param(
            "image-edit",
            INSERTION,
            without(CATALOGUE["imagen-3.0-capability-001"], "mask-modes"),
            "maskMode MASK_MODE_SEMANTIC is not available with imagen-3.0-capability-001",
            id="automatic mask",
        ),
        pytest.param(
            "image-customize",
            PHOTO,
            without(CATALOGUE["imagen-3.0-capability-001"], "control-computation"),
            "enableControlImageComputation is not available with imagen-3.0-capability-001",
            id="control picture of a photo",
        ),
        pytest.param(
            "image-upscale",
            {"image": PNG},
            "gemini-3-pro-image",
            "image-upscale is not available with gemini-3-pro-image",
            id="operation",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    operation: str, body: wire.Json, model: str | Model, sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        encode(operation, body, model)
    assert refused.value.message == sentence


@pytest.mark.parametrize("model", ["gemini-2.5-flash-image", "imagen-3.0-generate-001"])
def test_the_only_size_of_a_model_needs_no_field(model: str) -> None:
    assert "1K" not in str(encode("text-to-image", {"prompt": "x", "sampleImageSize": "1K"}, model))


def test_a_model_that_rewrites_no_prompts_is_not_told_to() -> None:
    body = {"prompt": "x", "enhancePrompt": True}
    plain = without(CATALOGUE["imagen-4.0-generate-001"], "enhance-prompt")
    assert "enhancePrompt" not in encode("text-to-image", body, plain)["parameters"]
    scene = without(CATALOGUE["imagen-product-recontext-preview-06-30"], "enhance-prompt")
    assert "enhancePrompt" not in encode("product-recontext", {"productImages": [PNG]}, scene)["parameters"]


# ── Google's own messages ────────────────────────────────────────────────────────────────────────────────

FULL: dict[str, wire.Json] = {
    "text-to-image": {
        "prompt": 'a "cat"\n\u2028\\',
        "negativePrompt": "fog",
        "seed": 2**31 - 1,
        "sampleCount": 4,
        "aspectRatio": "16:9",
        "sampleImageSize": "1K",
        "outputOptions": {"mimeType": "image/jpeg", "compressionQuality": 1},
        "safetySetting": "block_none",
        "personGeneration": "allow_all",
        "enhancePrompt": True,
    },
    "image-upscale": {"image": PNG, "upscaleFactor": "x4", "prompt": "x", "addWatermark": False},
    "image-edit": {**INSERTION, "prompt": "x", "baseSteps": 3, "guidanceScale": 0},
    "image-customize": {**CUSTOM, "referenceImages": [*CUSTOM["referenceImages"], reference("SUBJECT", 4)]},
    "virtual-try-on": {"personImage": PNG, "productImages": ["gs://bucket/a.png"], "sampleCount": 4},
    "product-recontext": {"productImages": [PNG, "gs://bucket/a.webp"], "prompt": "x", "seed": 1},
}


@pytest.mark.parametrize(
    ("operation", "model"),
    [
        pytest.param(operation, row.id, id=f"{operation}, {row.id}")
        for row in CATALOGUE.model
        if row.vendor == "google"
        for operation in row.operations
    ],
)
def test_every_body_is_one_of_googles_messages(operation: str, model: str) -> None:
    encode(operation, FULL[operation], model)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("gemini-3-pro-image", b'{"generationConfig": {"image_size": "1K"}}'),
        ("gemini-3-pro-image", b'{"generationConfig": {"imageConfig": {"personGeneration": "NOBODY"}}}'),
        ("imagen-4.0-generate-001", b'{"instance": []}'),
    ],
)
def test_googles_messages_notice_a_mistake(model: str, text: bytes) -> None:
    with pytest.raises(ParseError):
        as_google_reads(text, CATALOGUE[model])
