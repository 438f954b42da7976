"""The `:predict` models (Imagen, upscale, try-on, recontext): request to JSON, answer to pictures."""

from collections.abc import Iterable
from typing import Any, assert_never

from google.protobuf.struct_pb2 import Value

from app.contract.errors import InvalidRequest, SafetyBlocked
from app.contract.image import (
    CustomizeReference,
    EditReference,
    ImageCustomize,
    ImageEdit,
    ImageRequest,
    ImageUpscale,
    OutputOptions,
    ProductRecontext,
    TextToImage,
    VirtualTryOn,
)
from app.contract.models import Model
from app.contract.pictures import GcsUri, Source
from app.contract.safety import block
from app.ports import Generation
from app.providers.received import picture_of_base64

Json = dict[str, Any]


def encode(request: ImageRequest, model: Model) -> tuple[Json, Json]:
    """The one instance and the parameters. Raises InvalidRequest for what the model cannot do.

    `storageUri` never goes out: the gateway stores pictures itself.
    """
    instance, parameters = _encode(request, model)
    shared = {"sampleCount": request.sample_count, "includeRaiReason": True}
    return _given(instance), _given({**shared, **parameters})


def _encode(request: ImageRequest, model: Model) -> tuple[Json, Json]:
    match request:
        case TextToImage():
            return {"prompt": request.prompt}, {
                "addWatermark": request.watermark,
                "seed": request.seed,
                "negativePrompt": request.negative_prompt or None,
                "aspectRatio": request.aspect_ratio,
                "sampleImageSize": image_size(request, model),
                "enhancePrompt": _enhance_prompt(request, model),
                "safetySetting": request.safety_setting,
                "personGeneration": request.person_generation,
                "outputOptions": _output_options(request.output_options),
            }
        case ImageUpscale():
            prompt = None if request.prompt == ImageUpscale.model_fields["prompt"].default else request.prompt
            return {"image": _image(request.image), "prompt": prompt}, {
                "mode": "upscale",
                "upscaleConfig": {"upscaleFactor": request.upscale_factor},
                "addWatermark": request.add_watermark,
                "outputOptions": _output_options(request.output_options),
            }
        case ImageEdit():
            return {
                "prompt": request.prompt,
                "referenceImages": [_edit_reference(one) for one in request.reference_images],
            }, {
                "editMode": request.edit_mode,
                "editConfig": {"baseSteps": request.base_steps},
                "guidanceScale": _guidance_scale(request),
                "addWatermark": request.add_watermark,
            }
        case ImageCustomize():
            return {
                "prompt": request.prompt,
                "referenceImages": [_customize_reference(one) for one in request.reference_images],
            }, {
                "addWatermark": request.watermark,
                "seed": request.seed,
                "negativePrompt": request.negative_prompt or None,
            }
        case VirtualTryOn():
            if len(request.product_images) > 1 and "several-products" not in model.capabilities:
                raise InvalidRequest(f"productImages must hold one picture with {model.id}")
            return {
                "personImage": {"image": _image(request.person_image)},
                "productImages": [{"image": _image(product)} for product in request.product_images],
            }, {
                "baseSteps": request.base_steps,
                "addWatermark": request.add_watermark,
                "outputOptions": _output_options(request.output_options),
            }
        case ProductRecontext():
            return {
                "prompt": request.prompt,
                "productImages": [{"image": _image(product)} for product in request.product_images],
            }, {
                "addWatermark": request.watermark,
                "seed": request.seed,
                "enhancePrompt": request.enhance_prompt,
                "safetySetting": request.safety_setting,
                "personGeneration": request.person_generation,
            }
        case _:
            assert_never(request)


def _given(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _image(source: Source) -> Json:
    if isinstance(source, GcsUri):
        return {"gcsUri": source.uri}
    return {"bytesBase64Encoded": source.base64, "mimeType": source.mime_type}


def _output_options(options: OutputOptions) -> Json:
    if options.mime_type == "image/png":
        return {"mimeType": "image/png"}
    return {"mimeType": options.mime_type, "compressionQuality": options.compression_quality}


def image_size(request: TextToImage, model: Model) -> str | None:
    """1K is what every model makes; those that make nothing else do not know the field."""
    if request.sample_image_size is None or "2K" in model.capabilities:
        return request.sample_image_size
    if request.sample_image_size != "1K":
        raise InvalidRequest(f"sampleImageSize {request.sample_image_size} is not available with {model.id}")
    return None


def _enhance_prompt(request: TextToImage, model: Model) -> bool | None:
    """Rewriting is on upstream unless told otherwise, and makes a seed useless: a seed alone turns it off."""
    if "enhance-prompt" not in model.capabilities:
        return None
    if request.enhance_prompt is None and request.seed is not None:
        return False
    return request.enhance_prompt


def _guidance_scale(request: ImageEdit) -> int:
    if request.guidance_scale is not None:
        return request.guidance_scale
    return 75 if request.edit_mode == "EDIT_MODE_INPAINT_INSERTION" else 60


def _edit_reference(reference: EditReference) -> Json:
    config = reference.mask_image_config
    return _given(
        {
            "referenceType": reference.reference_type,
            "referenceId": reference.reference_id,
            "referenceImage": _image(source) if (source := reference.bytes_base64_encoded) else None,
            "maskImageConfig": config and config.model_dump(by_alias=True, exclude_none=True),
        }
    )


def _customize_reference(reference: CustomizeReference) -> Json:
    """A reference with the settings of its own kind; upstream refuses any other's."""
    encoded = {
        "referenceType": reference.reference_type,
        "referenceId": reference.reference_id,
        "referenceImage": _image(reference.bytes_base64_encoded),
    }
    name, config, otherwise = {
        "REFERENCE_TYPE_CONTROL": ("controlImageConfig", reference.control_image_config, _ANY_CONTROL),
        "REFERENCE_TYPE_SUBJECT": ("subjectImageConfig", reference.subject_image_config, _ANY_SUBJECT),
        "REFERENCE_TYPE_STYLE": ("styleImageConfig", reference.style_image_config, None),
    }[reference.reference_type]
    settings = config.model_dump(by_alias=True, exclude_none=True) if config else otherwise
    return _given({**encoded, name: settings})


# The document makes the settings optional, Google does not.
_ANY_CONTROL = {"controlType": "CONTROL_TYPE_DEFAULT"}
_ANY_SUBJECT = {"subjectType": "SUBJECT_TYPE_DEFAULT"}


def texts(predictions: Iterable[Value]) -> tuple[list[str], list[str]]:
    """An answer's pictures, as base64, and the reasons why others are missing: all that is wanted of it."""
    pictures: list[str] = []
    reasons: list[str] = []
    for prediction in predictions:
        fields = prediction.struct_value.fields
        if "bytesBase64Encoded" in fields:
            pictures.append(fields["bytesBase64Encoded"].string_value)
        elif "raiFilteredReason" in fields:
            reasons.append(fields["raiFilteredReason"].string_value)
    return pictures, reasons


def decode(pictures: list[str], reasons: list[str]) -> Generation:
    """The pictures; each text is dropped when it is decoded. Raises SafetyBlocked when there is none."""
    if not pictures:
        raise SafetyBlocked(block(*reasons))
    pictures.reverse()
    decoded = [picture_of_base64(pictures.pop()) for _ in range(len(pictures))]
    return Generation(tuple(decoded), tuple(map(block, reasons)))
