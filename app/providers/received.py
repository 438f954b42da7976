"""Pictures as vendors send them: recognised, landed if they are to be stored, and checked to be whole."""

from app.contract.errors import BrokenPicture, UpstreamFailed
from app.pictures.blob import Blob
from app.pictures.checks import check
from app.pictures.picture import NotAPicture, Picture, PictureTooLarge, blob_of_base64, recognise
from app.pictures.room import NoRoom
from app.ports import Call
from app.threads import off_loop


async def received(value: object, call: Call) -> Picture:
    """Returns the picture of one base64 string in an answer, as Transport gives it: a Blob, or a short text.

    Raises BrokenPicture if it is not a whole picture. Raises UpstreamFailed, not a 503, if it cannot be kept:
    it is paid for, so the caller should not try again.
    """
    return await checked(await landed(value, call), call)


async def landed(value: object, call: Call) -> Picture:
    """Recognise a picture, and keep it on disk if the call asks for that. Raises as `received` does."""
    call.bill.pictures += 1
    try:
        if isinstance(value, str):
            value = blob_of_base64(value, call.answers)
        if not isinstance(value, Blob):
            raise NotAPicture("not a string")
        picture = recognise(value)
    except (NotAPicture, PictureTooLarge) as exc:
        raise BrokenPicture("a picture in the answer is broken") from exc
    except NoRoom as exc:
        raise UpstreamFailed("a picture could not be kept") from exc
    if call.landing and call.place:
        await call.landing.land(picture, call.place, later=call.unfinished)
    return picture


async def checked(picture: Picture, call: Call) -> Picture:
    """Returns the picture. Raises BrokenPicture if it is not whole, and discards it."""
    try:
        if picture.mime_type == "image/png":
            check(picture)  # its chunks were checked while they arrived
        else:
            await off_loop(check, picture)
    except (NotAPicture, PictureTooLarge) as exc:
        if call.landing:
            call.landing.discard(picture)
        raise BrokenPicture("a picture in the answer is broken") from exc
    return picture
