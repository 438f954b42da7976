"""The list of models."""

from fastapi import APIRouter, Request

from app.api.caller import CurrentCaller
from app.contract.models import Catalogue, Model

router = APIRouter(prefix="/api/v1", tags=["models"])


@router.get("/models")
async def models(request: Request, who: CurrentCaller) -> tuple[Model, ...]:
    """The catalogue: what each model can do, its status and dates, and which model follows it."""
    catalogue: Catalogue = request.app.state.catalogue
    return catalogue.model
