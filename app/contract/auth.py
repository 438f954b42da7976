"""The request of the login, and the answers of the login and of the profile."""

from typing import ClassVar, Literal

from pydantic import Field

from app.contract.fields import NonEmptyText
from app.contract.reading import Contract
from app.contract.words import Described


class LoginRequest(Contract):
    """JSON, or the OAuth2 password form. The form's other fields (`grant_type`, `scope` …) are ignored."""

    max_body_bytes: ClassVar[int] = 16 * 1024

    username: NonEmptyText
    password: NonEmptyText = Field(repr=False)


class TokenAnswer(Described):
    """The access token response of RFC 6749, section 5.1."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - no password
    expires_in: int


class Profile(Described):
    """The account of a token."""

    id: str
    username: str | None
    exp: float
