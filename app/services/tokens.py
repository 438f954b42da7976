"""Access tokens: signed with the gateway's secret, verified with it or an identity provider's keys."""

import hashlib
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import orjson
import structlog
from jose import jwk, jws
from jose.exceptions import JOSEError

from app.contract.errors import Unauthorized

if TYPE_CHECKING:
    from app.services.jwks import Jwks

log = structlog.get_logger()

MAX_CHARACTERS = 16 * 1024
ISSUER, EMULATED_ISSUER = "image-gateway", "image-gateway/emulator"
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class Refused(Exception):
    """The token is not accepted. The message is only logged, at level debug."""


@dataclass(frozen=True, slots=True)
class Token:
    """The claims of a valid token. `signed_here`: it was signed with this gateway's secret.

    `expires` is in Unix seconds. `password_version` is that of the user at the login: 0 without the claim,
    -1 if the claim is not an integer.
    """

    subject: str
    username: str | None
    expires: float
    signed_here: bool
    password_version: int


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """Another issuer of tokens, which must have this `issuer` and `audience`, if these are set."""

    jwks: "Jwks"
    issuer: str | None
    audience: str | None

    def check(self, claims: Mapping[str, Any]) -> None:
        """Raises Refused if the issuer or the audience is a different one."""
        if self.issuer and claims.get("iss") != self.issuer:
            raise Refused("iss is not the identity provider's")
        audience = claims.get("aud")
        if self.audience and self.audience not in (audience if isinstance(audience, list) else [audience]):
            raise Refused("aud is not this gateway's")


class Tokens:
    """Makes and reads tokens.

    The secret and the public keys each have fixed algorithms, so a public key never verifies an HMAC. Without
    a `secret` no tokens are made, and only those of the identity provider are read. Tokens that are signed
    with the secret can have any issuer, because other services use the same secret, as the NestJS login did.
    One exception: a gateway on the emulator (`emulated`) writes EMULATED_ISSUER into its tokens, and a live
    gateway refuses that issuer.
    """

    def __init__(
        self,
        *,
        secret: str | None,
        algorithm: str = "HS256",
        lifetime_seconds: int = 3600,
        provider: "IdentityProvider | None" = None,
        emulated: bool = False,
    ) -> None:
        self._secret = jwk.construct(secret, algorithm) if secret else None
        self._algorithm = algorithm
        self.lifetime_seconds = lifetime_seconds
        self._provider = provider
        self._emulated = emulated

    @property
    def can_mint(self) -> bool:
        return self._secret is not None

    def mint(self, subject: str, username: str, password_version: int = 0) -> str:
        """Returns a token for a user of this gateway or, without `password_version`, for another subject."""
        now = int(time.time())
        claims = {
            "iss": EMULATED_ISSUER if self._emulated else ISSUER,
            "sub": subject,
            "username": username,
            "pwv": password_version,
            "iat": now,
            "exp": now + self.lifetime_seconds,
        }
        token: str = jws.sign(claims, self._secret, algorithm=self._algorithm)
        return token

    async def read(self, token: str) -> Token:
        """Returns the claims of a token. Raises Unauthorized if it is not valid, for any reason."""
        try:
            return await self._read(token)
        except (Refused, JOSEError, ValueError, RecursionError) as exc:
            log.debug("token refused", reason=str(exc))
            raise Unauthorized from exc

    async def ready(self) -> None:
        """Raises LookupError if an identity provider is configured and its keys are not known."""
        if self._provider:
            await self._provider.jwks.ready()

    async def aclose(self) -> None:
        if self._provider:
            await self._provider.jwks.aclose()

    async def _read(self, token: str) -> Token:
        # python-jose would skip characters that are not base64url, and padding.
        if len(token) > MAX_CHARACTERS or not _COMPACT.fullmatch(token):
            raise Refused("not a compact JWS")
        header = jws.get_unverified_header(token)
        if "crit" in header:
            raise Refused("critical header extension")
        algorithm = header.get("alg")
        signed_here = algorithm == self._algorithm
        key = self._secret if signed_here else await self._provider_key(algorithm, header.get("kid"))
        if key is None:
            raise Refused("no key for this algorithm and key id")
        claims = orjson.loads(jws.verify(token, key, algorithms=[algorithm]))
        if not isinstance(claims, dict):
            raise Refused("claims are not an object")
        expires = _checked_expiry(claims)
        if self._provider and not signed_here:
            self._provider.check(claims)
        elif claims.get("iss") == EMULATED_ISSUER and not self._emulated:
            raise Refused("issued by a gateway in emulator mode")
        version = claims.get("pwv", 0)
        version = version if isinstance(version, int) else -1
        return Token(_subject(claims, token), _username(claims), expires, signed_here, version)

    async def _provider_key(self, algorithm: object, key_id: object) -> Any:
        if self._provider is None:
            return None
        found = await self._provider.jwks.find(key_id if isinstance(key_id, str) else None, str(algorithm))
        return found and found.key


def _checked_expiry(claims: Mapping[str, Any]) -> float:
    """Returns `exp`. Raises Refused if the token has expired, is not valid yet, or has other types there.

    python-jose's own check accepts text and booleans, and fails on null.
    """
    now = time.time()
    expires = _seconds(claims.get("exp"))
    if expires <= now:
        raise Refused("expired")
    if "nbf" in claims and _seconds(claims["nbf"]) > now:
        raise Refused("not valid yet")
    return expires


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused("exp or nbf missing or not a number")
    return float(value)


def _subject(claims: Mapping[str, Any], token: str) -> str:
    """Returns `sub` if it is printable, else a digest of it, or of the token without a `sub`."""
    subject = claims.get("sub")
    if isinstance(subject, int | float) and not isinstance(subject, bool):
        subject = str(subject)
    if _is_printable(subject):
        return subject
    unique = subject if isinstance(subject, str) and subject else token
    return "sha256:" + hashlib.sha256(unique.encode()).hexdigest()


def _username(claims: Mapping[str, Any]) -> str | None:
    names = (claims.get(name) for name in ("username", "preferred_username", "email"))
    return next((name for name in names if _is_printable(name)), None)


def _is_printable(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()
