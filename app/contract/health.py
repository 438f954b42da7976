"""What `/health/ready` returns."""

from typing import Literal

from pydantic import ConfigDict

from app.contract.words import Described

Status = Literal["ok", "degraded", "failed"]
"""degraded: it works, but has a problem."""


class PartHealth(Described):
    model_config = ConfigDict(frozen=True)

    status: Status
    required: bool


class Health(Described):
    """`failed` if a required part has failed, `degraded` if any other part is not `ok`."""

    model_config = ConfigDict(frozen=True)

    status: Status
    parts: dict[str, PartHealth]
