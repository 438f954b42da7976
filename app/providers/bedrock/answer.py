"""What the answers of all image families on Bedrock have in common: pictures and refusals."""

from collections.abc import Iterable

from app.contract.errors import SafetyBlocked
from app.contract.safety import Block, Side
from app.pictures.picture import Picture
from app.ports import Call
from app.providers.received import received


async def pictures_of(values: Iterable[object], call: Call) -> tuple[Picture, ...]:
    """Returns the pictures of strings of base64. Raises UpstreamFailed if one is not a whole picture."""
    return tuple([await received(value, call) for value in values])


def refused(reason: str, side: Side) -> SafetyBlocked:
    """Returns the error for a refusal by the content filter. `reason` is for the caller."""
    return SafetyBlocked(Block(reason, side=side, hint="Rephrase the prompt and try again"))
