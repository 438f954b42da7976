"""Pictures as vendors send them: recognised, and checked to be whole."""

from app.contract.errors import UpstreamFailed
from app.pictures.blob import Blob, Blobs, NoRoom
from app.pictures.checks import check
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge, blob_of_base64, recognise
from app.threads import off_loop


async def picture_of(value: object, blobs: Blobs) -> Picture:
    """Returns the picture of one base64 string in an answer, as Transport gives it: a Blob, or a short text.

    Raises UpstreamFailed if it is not a whole picture, or cannot be kept: it is paid, so the caller is not
    asked to try again.
    """
    try:
        if isinstance(value, str):
            value = blob_of_base64(value, blobs)
        if not isinstance(value, Blob):
            raise NotAPicture("not a string")
        found = recognise(value)
        if found.mime_type == "image/png":
            check(found)  # its chunks were checked while they arrived
        else:
            await off_loop(check, found)
    except (NotAPicture, PictureTooLarge, NoRoom) as exc:
        raise UpstreamFailed("a picture in the answer is broken") from exc
    return found
