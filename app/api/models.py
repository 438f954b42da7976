"""The list of models."""

from fastapi import APIRouter, Request

from app.api.caller import CurrentCaller
from app.api.exchange import parts
from app.api.openapi.errors import failures
from app.contract.models import Model

router = APIRouter(prefix="/api/v1", tags=["models"])


@router.get("/models", summary="List the models", responses=failures(401, 500, 503))
async def models(request: Request, who: CurrentCaller) -> tuple[Model, ...]:
    """Returns every model: what it can do, its status, its dates and its successor."""
    return parts(request.scope).catalogue.model
