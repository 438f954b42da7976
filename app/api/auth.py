"""Login and profile."""

from fastapi import APIRouter, HTTPException, Request, Response

from app.api.body import read_body
from app.api.caller import CurrentCaller
from app.api.openapi import failures
from app.contract.auth import LoginRequest, Profile, TokenAnswer
from app.services.auth import Auth

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])

_CREDENTIALS = {
    "type": "object",
    "required": ["username", "password"],
    "properties": {
        "username": {"type": "string", "minLength": 1},
        "password": {"type": "string", "minLength": 1, "format": "password"},
    },
    "example": {"username": "ann", "password": "correct horse battery staple"},
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": _CREDENTIALS},
        "application/x-www-form-urlencoded": {"schema": _CREDENTIALS},
    },
}


@router.post(
    "/login",
    openapi_extra={"requestBody": _BODY},
    responses=failures(400, 401, 408, 413, 415, 429, 500, 503),
)
async def login(request: Request, response: Response) -> TokenAnswer:
    """Get a token for a username and a password, sent as JSON or as the OAuth2 password form."""
    auth: Auth = request.app.state.auth
    if not auth.tokens.can_mint:
        raise HTTPException(404)
    address = request.client.host if request.client else ""
    await auth.admit(address)
    answer = await auth.login(await read_body(request, contract=LoginRequest), address)
    response.headers["Cache-Control"] = "no-store"
    return answer


@router.get("/profile", responses=failures(401, 500, 503))
async def profile(caller: CurrentCaller) -> Profile:
    """Tell whose token this is and until when it is valid."""
    return Profile(id=caller.id, username=caller.username, exp=caller.expires)
