"""Makes pictures of a request as small as Google wants them."""

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
"""Of one picture in a request: the least that Google's model cards name (vertex.md §5). We take 20 MB."""

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
