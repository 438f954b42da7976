"""What the answers of Bedrock's image families have in common: refusals."""

from app.contract.errors import SafetyBlocked
from app.contract.safety import Block, Side


def refused(reason: str, side: Side) -> SafetyBlocked:
    """The filter said no, in one of its spellings; `reason` is ours, the vendor's words stay private."""
    return SafetyBlocked(Block(reason, side=side, hint="Rephrase the prompt and try again"))
