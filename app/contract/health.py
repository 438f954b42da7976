"""What `/health/ready` returns."""

from typing import Literal

from pydantic import ConfigDict

from app.contract.words import Described

Status = Literal["ok", "degraded", "failed"]
"""degraded: it works, but something is wrong."""


class PartHealth(Described):
    model_config = ConfigDict(frozen=True)

    status: Status
    required: bool


class Health(Described):
    """`failed` if a required part is, `degraded` if anything else is wrong."""

    model_config = ConfigDict(frozen=True)

    status: Status
    parts: dict[str, PartHealth]
