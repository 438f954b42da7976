"""Does what Gemini models cannot: applies masks, and converts pictures to the requested type."""

from collections.abc import Sequence

from app.contract.answer import MaskApplied
from app.contract.errors import BrokenPicture, GatewayError, UpstreamFailed
from app.contract.image import ImageRequest, OutputOptions
from app.contract.references import ImageEdit
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge
from app.pictures.pixels import transcode
from app.pictures.room import NoRoom
from app.ports import Call
from app.providers.vertex import edit
from app.providers.vertex.samples import Outcome
from app.threads import off_loop


def mask_applied(request: ImageRequest) -> MaskApplied | None:
    return request.mask_applied if isinstance(request, ImageEdit) else None


async def finished(outcomes: Sequence[Outcome], request: ImageRequest, call: Call) -> list[Outcome]:
    """Returns the pictures with the mask applied or converted, then the failures.

    A picture that cannot be decoded, or kept, becomes a failure. A picture that was changed lands again.
    """
    pictures = tuple(one for one in outcomes if isinstance(one, Picture))
    done: list[Outcome] = [one for one in outcomes if not isinstance(one, Picture)]
    if pictures and isinstance(request, ImageEdit) and mask_applied(request) == "exact":
        made = await _composed(request, pictures)
    else:
        options = getattr(request, "output_options", OutputOptions())
        made = [await _transcoded(one, options) for one in pictures]
    if call.landing:
        for picture, raw in zip(made, pictures, strict=True):
            if isinstance(picture, Picture) and picture is not raw:
                await call.landing.replace(raw, picture)
    return [*made, *done]


async def _composed(request: ImageEdit, pictures: tuple[Picture, ...]) -> list[Outcome]:
    """Apply the mask to all at once, which is cheaper; one by one if that fails."""
    try:
        return [*await off_loop(edit.compose, request, pictures)]
    except (NotAPicture, PictureTooLarge, NoRoom) as exc:
        if len(pictures) == 1:
            return [_unusable(exc)]
    return [outcome for one in pictures for outcome in await _composed(request, (one,))]


async def _transcoded(picture: Picture, options: OutputOptions) -> Outcome:
    if picture.mime_type == options.mime_type:
        return picture
    try:
        return await off_loop(transcode, picture, options.mime_type, options.compression_quality)
    except (NotAPicture, PictureTooLarge, NoRoom) as exc:
        return _unusable(exc)


def _unusable(exc: Exception) -> GatewayError:
    error: GatewayError = BrokenPicture("a picture in the answer is broken")
    if isinstance(exc, NoRoom):
        error = UpstreamFailed("a picture could not be kept")
    error.__cause__ = exc
    return error
