"""Login and profile."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from app.api.body import never_wait, read_body
from app.api.caller import CurrentCaller
from app.api.examples import LOGIN
from app.api.exchange import blobs, parts
from app.api.openapi.errors import failures
from app.contract.auth import LoginRequest, Profile, TokenAnswer
from app.contract.words import words

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


def login_body(example: dict[str, str]) -> dict[str, Any]:
    """Returns the `requestBody` of a login for the document. `example` is a username and a password."""
    fields = {
        name: {
            "type": "string",
            "minLength": 1,
            "description": words("LoginRequest", name),
            "examples": [value],
        }
        for name, value in example.items()
    }
    schema = {"type": "object", "required": list(fields), "properties": fields}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": schema, "example": example},
            "application/x-www-form-urlencoded": {"schema": schema},
        },
    }


@router.post(
    "/login",
    summary="Get a token",
    openapi_extra={"requestBody": login_body(LOGIN)},
    responses=failures(400, 401, 408, 413, 415, 429, 500, 503),
)
async def login(request: Request, response: Response) -> TokenAnswer:
    """Returns a token for a username and a password, sent as JSON or as the OAuth2 password form.

    On the emulator there is an account `demo`; the gateway prints its password at the start. To log in for
    all routes of this page, use Authorize at the top.
    """
    auth = parts(request.scope).auth
    if not auth.tokens.can_mint:
        raise HTTPException(404)
    address = request.client.host if request.client else ""
    await auth.count_attempt(address)
    answer = await auth.login(
        await read_body(request, never_wait, blobs(request), contract=LoginRequest), address
    )
    response.headers["Cache-Control"] = "no-store"
    return answer


@router.get("/profile", summary="See the account of your token", responses=failures(401, 500, 503))
async def profile(caller: CurrentCaller) -> Profile:
    """Returns the account of the token or API key, and when the token or key expires."""
    return Profile(id=caller.id, username=caller.username, exp=caller.expires)
