"""Masked edits by a Gemini model, which knows no masks: its answer is put under the caller's mask."""

from app.contract import masks
from app.contract.errors import InvalidRequest
from app.contract.image import EditReference, ImageEdit
from app.contract.models import Model
from app.contract.pictures import Picture


def check(request: ImageEdit, model: Model) -> None:
    """Raise InvalidRequest, before anything is paid, for an edit that `compose` could not finish."""
    for index, reference in enumerate(request.reference_images):
        field = f"referenceImages.{index}"
        config = reference.mask_image_config
        if config and config.mask_mode != "MASK_MODE_USER_PROVIDED":
            raise InvalidRequest(
                f"{field}.maskImageConfig.maskMode {config.mask_mode} is not available with {model.id}"
            )
        if not isinstance(reference.bytes_base64_encoded, Picture):
            raise InvalidRequest(f"{field}.bytesBase64Encoded cannot be a gs:// URI with {model.id}")


def compose(request: ImageEdit, answers: tuple[Picture, ...]) -> tuple[Picture, ...]:
    """The original with each answer under the mask, as PNGs of the original's size. Slow: not on the loop.

    `dilation` is a share of the longer side, so that 1 masks everything.
    """
    original, mask = _picture(request.original), _picture(request.mask)
    config = request.mask.mask_image_config
    share = (config and config.dilation) or 0.0
    return masks.compose(original, mask, answers, dilation=round(share * max(original.size)))


def _picture(reference: EditReference) -> Picture:
    assert isinstance(reference.bytes_base64_encoded, Picture)  # noqa: S101 - `check` has looked
    return reference.bytes_base64_encoded
