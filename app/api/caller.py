"""Who is calling: the Authorization header, read before the body."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase

from app.contract.errors import Unauthorized
from app.services.auth import Auth, Caller


class BearerToken(SecurityBase):
    """Reads the caller of a request; in the API documentation, it is the login behind Authorize."""

    def __init__(self) -> None:
        self.scheme_name = "login"
        self.model = OAuth2(flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="/api/v1/auth/login")))

    async def __call__(self, request: Request) -> Caller:
        """Takes the header's first two words, as Nest does. Raises Unauthorized."""
        words = request.headers.get("authorization", "").split(maxsplit=2)
        if len(words) < 2 or words[0].lower() != "bearer":
            raise Unauthorized
        auth: Auth = request.app.state.auth
        return await auth.authenticate(words[1])


caller = BearerToken()
CurrentCaller = Annotated[Caller, Depends(caller)]
