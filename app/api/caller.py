"""Who is calling: the Authorization header, read before the body."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer, OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.openapi.models import SecurityBase as Scheme
from fastapi.security.base import SecurityBase

from app.api.exchange import parts
from app.contract.errors import Unauthorized
from app.services.auth import Caller


class Box(SecurityBase):
    """One entry of the Authorize dialog in the API documentation. It does not read the request."""

    def __init__(self, name: str, model: Scheme) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        pass


LOGIN = Box(
    "login",
    OAuth2(
        description="Log in with the username and password of an account of this gateway.",
        flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="/api/v1/auth/login")),
    ),
)
TOKEN = Box(
    "token",
    HTTPBearer(description="Or paste a token, from /api/v1/auth/login or from an identity provider."),
)


async def caller(
    request: Request, _login: Annotated[None, Depends(LOGIN)], _token: Annotated[None, Depends(TOKEN)]
) -> Caller:
    """Returns the caller of the Authorization header's first two words, as Nest does. Raises Unauthorized."""
    words = request.headers.get("authorization", "").split(maxsplit=2)
    if len(words) < 2 or words[0].lower() != "bearer":
        raise Unauthorized
    return await parts(request.scope).auth.authenticate(words[1])


CurrentCaller = Annotated[Caller, Depends(caller)]
