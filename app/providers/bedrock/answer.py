"""What the answers of Bedrock's image families have in common: pictures and refusals."""

from collections.abc import Iterable

from app.contract.errors import SafetyBlocked
from app.contract.safety import Block, Side
from app.pictures.blob import Blobs
from app.pictures.picture import Picture
from app.providers.received import picture_of


async def pictures_of(values: Iterable[object], blobs: Blobs) -> tuple[Picture, ...]:
    """Returns the pictures of strings of base64. Raises UpstreamFailed if one is not a whole picture."""
    return tuple([await picture_of(value, blobs) for value in values])


def refused(reason: str, side: Side) -> SafetyBlocked:
    """The filter said no, in one of its spellings; `reason` is ours, the vendor's words stay private."""
    return SafetyBlocked(Block(reason, side=side, hint="Rephrase the prompt and try again"))
