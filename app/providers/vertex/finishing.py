"""Does what Gemini models cannot do: applies masks, and converts to the type of file asked for."""

from dataclasses import replace

from app.contract.answer import MaskApplied
from app.contract.errors import UpstreamFailed
from app.contract.image import ImageEdit, ImageRequest, OutputOptions
from app.contract.models import Model
from app.pictures.blob import NoRoom
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge
from app.pictures.pixels import transcode
from app.ports import Generation
from app.providers.vertex import edit
from app.threads import off_loop


async def finished(made: Generation, request: ImageRequest, model: Model) -> Generation:
    """Returns the pictures as asked for. Raises UpstreamFailed if one cannot be decoded, or kept."""
    mask_applied: MaskApplied | None = None
    if isinstance(request, ImageEdit):
        mask_applied = "instruction" if request.automatic_mask else "exact"
    try:
        if isinstance(request, ImageEdit) and mask_applied == "exact":
            pictures = await off_loop(edit.compose, request, made.pictures)
        else:
            pictures = await _transcoded(made.pictures, getattr(request, "output_options", OutputOptions()))
    except (NotAPicture, PictureTooLarge, NoRoom) as exc:
        raise UpstreamFailed(f"a picture of {model.id} cannot be used") from exc
    return replace(made, pictures=pictures, mask_applied=mask_applied)


async def _transcoded(pictures: tuple[Picture, ...], options: OutputOptions) -> tuple[Picture, ...]:
    wanted = options.mime_type
    return tuple(
        [
            one
            if one.mime_type == wanted
            else await off_loop(transcode, one, wanted, options.compression_quality)
            for one in pictures
        ]
    )
