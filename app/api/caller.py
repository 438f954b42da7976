"""Authenticates the caller of a request, from the Authorization header, before the body is read."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer, OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase

from app.api.exchange import exchange, parts
from app.contract.errors import Unauthorized
from app.services.auth import Caller

LOGIN = OAuth2(
    description="Log in with the username and password of an account of this gateway.",
    flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="/api/v1/auth/login")),
)
"""The other entry of the Authorize dialog. `docs.py` adds it: FastAPI takes one for each dependency."""


class _Authorization(SecurityBase):
    """A dependency that is also an entry of the Authorize dialog in the API documentation."""

    scheme_name = "token"
    model = HTTPBearer(
        description="Or paste an API key (igw_…), or a token from /api/v1/auth/login or from an identity "
        "provider."
    )

    async def __call__(self, request: Request) -> Caller:
        """Returns the caller of the token or key after `Bearer`. Raises Unauthorized and Busy.

        Ignores further words, as NestJS does.
        """
        words = request.headers.get("authorization", "").split(maxsplit=2)
        if len(words) < 2 or words[0].lower() != "bearer":
            raise Unauthorized
        caller = await parts(request.scope).auth.authenticate(words[1])
        if caller.key:
            exchange(request).log["key"] = caller.key.name
        return caller


CurrentCaller = Annotated[Caller, Depends(_Authorization())]
