"""Pictures as vendors send them: what is none is the vendor's failure."""

import pybase64

from app.contract.errors import UpstreamFailed
from app.contract.pictures import Picture, recognise


def picture_of_base64(text: str) -> Picture:
    """Decode one picture of an answer. Raises UpstreamFailed when it is none."""
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError as exc:
        raise UpstreamFailed("the answer holds base64 that is none") from exc
    return picture_of_bytes(data)


def picture_of_bytes(data: bytes) -> Picture:
    """Recognise one picture of an answer. Raises UpstreamFailed when it is none."""
    try:
        return recognise(data)
    except ValueError as exc:
        raise UpstreamFailed("the answer holds a picture that is none") from exc
