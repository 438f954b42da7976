"""Refuses requests for what a model cannot do, by its capabilities in the catalogue."""

from app.contract.errors import InvalidRequest
from app.contract.image import ImageRequest, TextToImage, VirtualTryOn
from app.contract.models import Model
from app.contract.references import ImageCustomize, ImageEdit


def check(request: ImageRequest, model: Model) -> None:
    """Raise InvalidRequest, before anything is paid, if the model cannot do what is asked.

    Gemini models compute no masks or control pictures: these are described in words (gemini.py).
    """
    can = model.capabilities
    if getattr(request, "seed", None) is not None and "seed" not in can:
        raise InvalidRequest(f"seed is not available with {model.id}")
    if getattr(request, "add_watermark", None) is False and "watermark-off" not in can:
        raise InvalidRequest(f"addWatermark false is not available with {model.id}")
    match request:
        case TextToImage(sample_image_size="2K") if "2K" not in can:
            raise InvalidRequest(f"sampleImageSize 2K is not available with {model.id}")
        case VirtualTryOn() if len(request.product_images) > 1 and "several-products" not in can:
            raise InvalidRequest(f"productImages must hold one picture with {model.id}")
        case ImageEdit(automatic_mask=mask) if mask and model.family != "gemini" and "mask-modes" not in can:
            raise InvalidRequest(f"maskMode {mask.mask_mode} is not available with {model.id}")
        case ImageCustomize() if _computes(request) and model.family != "gemini":
            if "control-computation" not in can:
                raise InvalidRequest(f"enableControlImageComputation is not available with {model.id}")


def _computes(request: ImageCustomize) -> bool:
    controls = [one.control_image_config for one in request.reference_images]
    return any(one and one.enable_control_image_computation for one in controls)
