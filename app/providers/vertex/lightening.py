"""Makes the pictures of a request small enough for Google."""

from functools import partial
from typing import TypeVar

from pydantic import BaseModel

from app.contract.errors import InvalidRequest
from app.contract.image import ImageRequest, ImageUpscale
from app.contract.references import ImageEdit
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge
from app.pictures.pixels import lighten
from app.threads import off_loop

_MOST_BYTES = 7_000_000
"""The most bytes of one picture in a request to Google. The gateway takes 20 MB from its callers.

Model cards name different limits; this is the smallest:
https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/vto/virtual-try-on-001
"""

L = TypeVar("L")


async def lightened(request: ImageRequest) -> ImageRequest:
    """Returns the request with pictures of at most 7 MB.

    Pictures of an edit and of an upscale keep their size in pixels. Raises InvalidRequest if a picture cannot
    be made so small or its pixels are damaged, and NoRoom.
    """
    return await _lightened(request, keep_size=isinstance(request, ImageEdit | ImageUpscale))


async def _lightened(value: L, *, keep_size: bool) -> L:
    match value:
        case Picture() if value.length > _MOST_BYTES:
            try:
                return await off_loop(partial(lighten, value, _MOST_BYTES, keep_size=keep_size))  # type: ignore[arg-type]  # mypy does not narrow L
            except PictureTooLarge as exc:
                raise InvalidRequest("a picture is too large for the model, even as a JPEG") from exc
            except NotAPicture as exc:
                raise InvalidRequest("a picture is damaged") from exc
        case tuple():
            return tuple([await _lightened(one, keep_size=keep_size) for one in value])  # type: ignore[return-value]  # likewise
        case BaseModel():
            lighter = {name: await _lightened(one, keep_size=keep_size) for name, one in value}
            return value.model_copy(update=lighter)
        case _:
            return value
