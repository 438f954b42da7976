"""What the answers of Bedrock's image families have in common: base64 pictures and refusals."""

import pybase64

from app.contract.errors import SafetyBlocked, UpstreamFailed
from app.contract.pictures import Picture, recognise
from app.contract.safety import Block, Side


def read_picture(text: str) -> Picture:
    """Decode one picture of an answer. Raises UpstreamFailed when it is none."""
    try:
        return recognise(pybase64.b64decode(text, validate=True))
    except ValueError as exc:
        raise UpstreamFailed("The model answered with something that is no picture") from exc


def refused(reason: str, side: Side) -> SafetyBlocked:
    """The filter said no, in one of its spellings; `reason` is ours, the vendor's words stay private."""
    return SafetyBlocked(Block(reason, side=side, hint="Rephrase the prompt and try again"))
