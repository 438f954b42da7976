"""Every capability of the catalogue is read: a model without it refuses a request, or gets another one."""

from collections.abc import Callable
from typing import get_args

import pytest

from app.contract.errors import InvalidRequest
from app.contract.image import ImageRequest, TextToImage, VirtualTryOn
from app.contract.models import Capability, Model
from app.contract.references import ImageCustomize, ImageEdit
from app.providers.vertex import abilities, imagen
from tests.support.vertex_provider import IMAGEN, Caller, Json, calling

pytestmark = pytest.mark.anyio

PICTURE = "gs://bucket/a.png"


def edit(caller: Caller) -> ImageRequest:
    mask = {
        "referenceType": "REFERENCE_TYPE_MASK",
        "referenceId": 2,
        "maskImageConfig": {"maskMode": "MASK_MODE_BACKGROUND"},
    }
    original = {"referenceType": "REFERENCE_TYPE_RAW", "referenceId": 1, "bytesBase64Encoded": PICTURE}
    body = {"prompt": "a cat", "editMode": "EDIT_MODE_BGSWAP", "referenceImages": [original, mask]}
    return caller.read(ImageEdit, body)


def customize(caller: Caller) -> ImageRequest:
    config = {"controlType": "CONTROL_TYPE_CANNY", "enableControlImageComputation": True}
    control = {
        "referenceType": "REFERENCE_TYPE_CONTROL",
        "referenceId": 1,
        "bytesBase64Encoded": PICTURE,
        "controlImageConfig": config,
    }
    return caller.read(ImageCustomize, {"prompt": "a cat [1]", "referenceImages": [control]})


def try_on(caller: Caller) -> ImageRequest:
    return caller.read(VirtualTryOn, {"personImage": PICTURE, "productImages": [PICTURE, PICTURE]})


def text(**fields: object) -> Callable[[Caller], ImageRequest]:
    return lambda caller: caller.read(TextToImage, {"prompt": "a cat", **fields})


ASKING: dict[Capability, Callable[[Caller], ImageRequest]] = {
    "seed": text(seed=1),
    "watermark-off": text(addWatermark=False, seed=None),
    "enhance-prompt": text(enhancePrompt=True),
    "2K": text(sampleImageSize="2K"),
    "mask-modes": edit,
    "control-computation": customize,
    "several-products": try_on,
}
NOT_ASKED_FOR = {"4K"}
"""No request asks for it. The emulator refuses it where it is missing: test_vertex_refusals.py."""


@pytest.mark.parametrize("capability", sorted({*get_args(Capability)} - NOT_ASKED_FOR))
async def test_every_capability_is_read(capability: Capability) -> None:
    able = IMAGEN.model_copy(update={"capabilities": get_args(Capability)})
    unable = IMAGEN.model_copy(update={"capabilities": tuple({*get_args(Capability)} - {capability})})
    async with calling(endpoint="127.0.0.1:1") as caller:
        request = ASKING[capability](caller)

        def sent(model: Model) -> Json | str:
            try:
                abilities.check(request, model)
            except InvalidRequest as refused:
                return refused.message
            return imagen.encode(request, model)

        assert isinstance(sent(able), dict)
        assert sent(able) != sent(unable)
