"""Masked edits by a Gemini model, which supports no masks: the mask is applied to its answer."""

from app.contract.errors import InvalidRequest
from app.contract.models import Model
from app.contract.references import EditReference, ImageEdit
from app.pictures import masks
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge
from app.pictures.pixels import decode
from app.providers.vertex.mask_classes import MASK_CLASSES


def check(request: ImageEdit, model: Model) -> None:
    """Raise InvalidRequest, before anything is paid, for an edit that this model could not finish.

    An automatic mask is described in words (gemini.py), so each of its classes must have a name.
    """
    if automatic := request.automatic_mask:
        if not all(0 <= number < len(MASK_CLASSES) for number in automatic.mask_classes or ()):
            place = request.reference_images.index(request.mask)
            field = f"referenceImages.{place}.maskImageConfig.maskClasses"
            raise InvalidRequest([f"{field} must be between 0 and {len(MASK_CLASSES) - 1}"])
        return
    for index, reference in enumerate(request.reference_images):
        if not isinstance(reference.bytes_base64_encoded, Picture):
            field = f"referenceImages.{index}.bytesBase64Encoded"
            raise InvalidRequest(f"{field} cannot be a gs:// URI with {model.id}")


def check_pixels(request: ImageEdit) -> None:
    """Raise InvalidRequest if a picture that `compose` will open is damaged. Slow: run it in a thread.

    Only PNGs are decoded: their pixels have not been read before.
    """
    for index, reference in enumerate(request.reference_images):
        picture = _picture(reference)
        if picture.mime_type == "image/png":
            try:
                decode(picture)
            except (NotAPicture, PictureTooLarge) as exc:
                field = f"referenceImages.{index}.bytesBase64Encoded"
                raise InvalidRequest([f"{field} must be a PNG, JPEG, WebP or GIF image"]) from exc


def compose(request: ImageEdit, answers: tuple[Picture, ...]) -> tuple[Picture, ...]:
    """Returns the original with each answer under the mask, as PNGs of its size. Slow: use a thread.

    `dilation` is a fraction of the longer side: 1 masks everything.
    """
    original, mask = _picture(request.original), _picture(request.mask)
    config = request.mask.mask_image_config
    share = (config and config.dilation) or 0.0
    return masks.compose(original, mask, answers, dilation=round(share * max(original.size)))


def _picture(reference: EditReference) -> Picture:
    assert isinstance(reference.bytes_base64_encoded, Picture)  # noqa: S101 - `check` has looked
    return reference.bytes_base64_encoded
