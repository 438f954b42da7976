"""The `:predict` models (Imagen, upscale, try-on, recontext): request to JSON, answer to pictures."""

from typing import assert_never

from app.contract.errors import SafetyBlocked, UpstreamFailed
from app.contract.image import (
    ImageRequest,
    ImageUpscale,
    OutputOptions,
    ProductRecontext,
    TextToImage,
    VirtualTryOn,
)
from app.contract.models import Model
from app.contract.prices import Order, Size, today
from app.contract.references import CustomizeReference, EditReference, ImageCustomize, ImageEdit
from app.contract.safety import block
from app.pictures.picture import GcsUri, Picture, Source
from app.ports import Call, Generation
from app.providers.received import checked, landed
from app.providers.vertex.samples import Outcome, gathered
from app.providers.vertex.shapes import Json, an_object, elements, given, text


def encode(request: ImageRequest, model: Model) -> Json:
    """Returns the body of a call: one instance and the parameters.

    `storageUri` never goes out: the gateway stores pictures itself.
    """
    instance, parameters = _encode(request, model)
    shared = {"sampleCount": request.sample_count, "includeRaiReason": True}
    return {"instances": [given(**instance)], "parameters": given(**shared, **parameters)}


def _encode(request: ImageRequest, model: Model) -> tuple[Json, Json]:
    """Returns the instance and the parameters. None stands for a field that is left out."""
    match request:
        case TextToImage():
            return _text_to_image(request, model)
        case ImageUpscale():
            return _upscale(request)
        case ImageEdit():
            return _edit(request)
        case ImageCustomize():
            return _customize(request)
        case VirtualTryOn():
            return _try_on(request)
        case ProductRecontext():
            return _recontext(request, model)
        case _:
            assert_never(request)


def _text_to_image(request: TextToImage, model: Model) -> tuple[Json, Json]:
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


def _upscale(request: ImageUpscale) -> tuple[Json, Json]:
    prompt = None if request.prompt == ImageUpscale.model_fields["prompt"].default else request.prompt
    return {"image": _image(request.image), "prompt": prompt}, {
        "mode": "upscale",
        "upscaleConfig": {"upscaleFactor": request.upscale_factor},
        "addWatermark": request.add_watermark,
        "outputOptions": _output_options(request.output_options),
    }


def _edit(request: ImageEdit) -> tuple[Json, Json]:
    references = [_edit_reference(one) for one in request.reference_images]
    return {"prompt": request.prompt, "referenceImages": references}, {
        "editMode": request.edit_mode,
        "editConfig": {"baseSteps": request.base_steps},
        "guidanceScale": _guidance_scale(request),
        "addWatermark": request.add_watermark,
    }


def _customize(request: ImageCustomize) -> tuple[Json, Json]:
    references = [_customize_reference(one) for one in request.reference_images]
    return {"prompt": request.prompt, "referenceImages": references}, {
        "addWatermark": request.watermark,
        "seed": request.seed,
        "negativePrompt": request.negative_prompt or None,
    }


def _try_on(request: VirtualTryOn) -> tuple[Json, Json]:
    products = [{"image": _image(product)} for product in request.product_images]
    return {"personImage": {"image": _image(request.person_image)}, "productImages": products}, {
        "baseSteps": request.base_steps,
        "addWatermark": request.add_watermark,
        "outputOptions": _output_options(request.output_options),
    }


def _recontext(request: ProductRecontext, model: Model) -> tuple[Json, Json]:
    products = [{"image": _image(product)} for product in request.product_images]
    return {"prompt": request.prompt, "productImages": products}, {
        "addWatermark": request.watermark,
        "seed": request.seed,
        "enhancePrompt": _enhance_prompt(request, model),
        "safetySetting": request.safety_setting,
        "personGeneration": request.person_generation,
    }


def _image(source: Source) -> Json:
    if isinstance(source, GcsUri):
        return {"gcsUri": source.uri}
    return {"bytesBase64Encoded": source.blob, "mimeType": source.mime_type}


def _output_options(options: OutputOptions) -> Json:
    if options.mime_type == "image/png":
        return {"mimeType": "image/png"}
    return {"mimeType": options.mime_type, "compressionQuality": options.compression_quality}


def order(request: ImageRequest, model: Model) -> Order:
    """Returns what a call is priced by."""
    size = image_size(request, model) if isinstance(request, TextToImage) else None
    return Order(model.id, request.operation, today(), samples=request.sample_count, size=size or "1K")


def image_size(request: TextToImage, model: Model) -> Size | None:
    """Returns None for a model that makes 1K only: it does not know the field."""
    return request.sample_image_size if "2K" in model.capabilities else None


def _enhance_prompt(request: TextToImage | ProductRecontext, model: Model) -> bool | None:
    """Google rewrites prompts by default, which makes a seed useless: a seed alone turns it off."""
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
    source = reference.bytes_base64_encoded
    return given(
        referenceType=reference.reference_type,
        referenceId=reference.reference_id,
        referenceImage=_image(source) if source else None,
        maskImageConfig=reference.mask_image_config,
    )


def _customize_reference(reference: CustomizeReference) -> Json:
    """Returns the reference with the settings of its own kind: Google refuses those of other kinds."""
    name, settings = {
        "REFERENCE_TYPE_CONTROL": ("controlImageConfig", reference.control_image_config or _ANY_CONTROL),
        "REFERENCE_TYPE_SUBJECT": ("subjectImageConfig", reference.subject_image_config or _ANY_SUBJECT),
        "REFERENCE_TYPE_STYLE": ("styleImageConfig", reference.style_image_config),
    }[reference.reference_type]
    return given(
        referenceType=reference.reference_type,
        referenceId=reference.reference_id,
        referenceImage=_image(reference.bytes_base64_encoded),
        **{name: settings},
    )


# The document makes the settings optional, Google does not.
_ANY_CONTROL = {"controlType": "CONTROL_TYPE_DEFAULT"}
_ANY_SUBJECT = {"subjectType": "SUBJECT_TYPE_DEFAULT"}


async def decode(answer: object, call: Call) -> Generation:
    """Returns the pictures, and why others are missing.

    Raises the most telling failure if there is no picture, and UpstreamFailed if the answer has another
    shape.
    """
    outcomes: list[Outcome] = []
    for prediction in elements(an_object(answer), "predictions"):
        try:
            sample = an_object(prediction)
            if "bytesBase64Encoded" in sample:
                outcomes.append(await landed(sample["bytesBase64Encoded"], call))
            elif "raiFilteredReason" in sample:
                outcomes.append(SafetyBlocked(block(text(sample, "raiFilteredReason"))))
        except UpstreamFailed as exc:
            outcomes.append(exc)
    return gathered([await _checked(one, call) for one in outcomes])  # when all have landed: it takes a while


async def _checked(outcome: Outcome, call: Call) -> Outcome:
    try:
        return await checked(outcome, call) if isinstance(outcome, Picture) else outcome
    except UpstreamFailed as exc:
        return exc
