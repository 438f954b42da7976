"""The six image routes."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.body import read_body
from app.api.caller import CurrentCaller
from app.api.examples import EXAMPLES, TINY_PNG
from app.api.exchange import parts
from app.api.openapi.routes import described
from app.api.serving import serve
from app.contract.answer import Failed, Filtered, Prediction, Predictions, StoredImage, StoredImages
from app.contract.image import ImageRequest, ImageUpscale, ProductRecontext, TextToImage, VirtualTryOn
from app.contract.references import ImageCustomize, ImageEdit
from app.services.auth import Caller
from app.services.made import Made

router = APIRouter(prefix="/api/v1/image", tags=["image"])

_STORED = {
    "success": True,
    "model": "imagen-3.0-generate-001",
    "images": [
        {
            "url": "https://storage.googleapis.com/image-gateway/images/generated/text-to-image/"
            "20261120_062329_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
            "filename": "20261120_062329_img3_text-to-image_0a1b2c3d4e5f60718293a4b5.png",
            "mimeType": "image/png",
            "generatedAt": "2026-11-20T06:23:29.000Z",
        }
    ],
}


def _described(contract: type[ImageRequest], model: str) -> dict[str, Any]:
    """Returns the documentation of an endpoint that returns base64 by default."""
    return described(
        contract,
        (Predictions, StoredImages),
        request_example=EXAMPLES[contract.operation],
        answer_example={
            "predictions": [{"bytesBase64Encoded": TINY_PNG, "mimeType": "image/png"}],
            "model": model,
        },
    )


async def _answer(request: Request, who: Caller, contract: type[ImageRequest]) -> Response:
    if who.key:
        who.key.check_operation(contract.operation)
    read = partial(read_body, contract=contract)
    return await serve(request, who, read, parts(request.scope).images, _present)


def _present(request: ImageRequest, made: Made) -> StoredImages | Predictions:
    return _stored_images(made) if request.response_format == "url" else _predictions(made)


def _stored_images(made: Made) -> StoredImages:
    return StoredImages(
        model=made.model.id,
        requested_model=made.substituted,
        images=tuple(one.image for one in made.stored if not one.pending),
        filtered=_filtered(made),
        failed=_failed(made),
        pending=_pending(made),
        mask_applied=made.mask_applied,
    )


def _predictions(made: Made) -> Predictions:
    """Returns the pictures in base64, or, with `storageUri`, where they are stored."""
    pictures = tuple(
        Prediction(bytes_base64_encoded=picture, mime_type=picture.mime_type) for picture in made.pictures
    )
    places = tuple(
        Prediction(gcs_uri=f"gs://{one.bucket}/{one.name}", url=one.url, mime_type=one.mime_type)
        for one in made.stored
        if not one.pending
    )
    return Predictions(
        predictions=places if made.stored else pictures,
        model=made.model.id,
        requested_model=made.substituted,
        filtered=_filtered(made),
        failed=_failed(made),
        pending=_pending(made),
        mask_applied=made.mask_applied,
    )


def _filtered(made: Made) -> tuple[Filtered, ...] | None:
    return tuple(map(Filtered.of, made.filtered)) or None


def _failed(made: Made) -> tuple[Failed, ...] | None:
    return tuple(Failed(message=sentence) for sentence in made.failed) or None


def _pending(made: Made) -> tuple[StoredImage, ...] | None:
    return tuple(one.image for one in made.stored if one.pending) or None


@router.post(
    "/text-to-image",
    summary="Make pictures from words",
    **described(
        TextToImage,
        (StoredImages, Predictions),
        request_example=EXAMPLES["text-to-image"],
        answer_example=_STORED,
    ),
)
async def text_to_image(request: Request, who: CurrentCaller) -> Response:
    """Makes one to four pictures from a prompt, with an Imagen or a Gemini model.

    The pictures are stored, and the response holds their public URLs. With `responseFormat: "b64_json"` the
    response holds the pictures themselves, in base64.
    """
    return await _answer(request, who, TextToImage)


@router.post(
    "/image-upscale", summary="Enlarge a picture", **_described(ImageUpscale, "imagen-4.0-upscale-preview")
)
async def image_upscale(request: Request, who: CurrentCaller) -> Response:
    """Makes a picture two, three or four times as wide and high. The result has at most 17 megapixels."""
    return await _answer(request, who, ImageUpscale)


@router.post(
    "/image-edit", summary="Change a part of a picture", **_described(ImageEdit, "imagen-3.0-capability-001")
)
async def image_edit(request: Request, who: CurrentCaller) -> Response:
    """Repaints the masked area: inserts things, removes them, swaps the background, or extends the picture.

    Send two reference images: the picture (`REFERENCE_TYPE_RAW`) and its mask (`REFERENCE_TYPE_MASK`).
    Outside the mask the picture does not change, unless the response says `maskApplied: "instruction"`.
    """
    return await _answer(request, who, ImageEdit)


@router.post(
    "/image-customize",
    summary="Make pictures from reference images",
    **_described(ImageCustomize, "imagen-3.0-capability-001"),
)
async def image_customize(request: Request, who: CurrentCaller) -> Response:
    """Makes pictures of a person, an animal or a product, in a style or a pose, from reference images.

    Each reference image has a number, its `referenceId`. The prompt cites the image with this number: `[1]`.
    """
    return await _answer(request, who, ImageCustomize)


@router.post(
    "/virtual-try-on", summary="Dress a person", **_described(VirtualTryOn, "virtual-try-on-preview-08-04")
)
async def virtual_try_on(request: Request, who: CurrentCaller) -> Response:
    """Shows the person in `personImage` wearing the garment in `productImages`."""
    return await _answer(request, who, VirtualTryOn)


@router.post(
    "/product-recontext",
    summary="Put a product into a new scene",
    **_described(ProductRecontext, "imagen-product-recontext-preview-06-30"),
)
async def product_recontext(request: Request, who: CurrentCaller) -> Response:
    """Shows the product in the scene that the prompt describes. Send one to three views of it."""
    return await _answer(request, who, ProductRecontext)
