"""Logins and callers: returns a token for a password, and a caller for a token or an API key."""

import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from app.contract.auth import LoginRequest, TokenAnswer
from app.contract.budgets import user_scope
from app.contract.errors import Unauthorized
from app.services.keys import PREFIX, Key, Keys
from app.services.limits import RateLimit
from app.services.passwords import Passwords
from app.services.tokens import Tokens
from app.services.users import ID_PREFIX, Users, fold

MAX_SEEN = 10_000
NEVER = 253_402_300_799.0
"""The last second of the year 9999: when a key without an expiry expires."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a request. `id` is the token's subject or the key's user. `expires` is in Unix seconds."""

    id: str
    username: str | None
    expires: float
    key: Key | None = None

    @property
    def scopes(self) -> tuple[str, ...]:
        """The budgets that count what the caller spends: the user's, then the key's."""
        user = user_scope(self.id)
        return (user, f"key:{self.key.name}") if self.key else (user,)

    @property
    def counted_as(self) -> str:
        """The scope whose requests a rate limit counts: the key's, or the user's.

        A scope's prefix distinguishes the key ci from a subject `key:ci` of another issuer.
        """
        return self.scopes[-1]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A user as read from the database at a time. `username` is None if the user is deleted or disabled."""

    username: str | None
    password_version: int
    at: float


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How often logins are tried: for an account from one address, for an account, and from one address."""

    account_and_address: RateLimit
    account: RateLimit
    address: RateLimit


class Auth:
    """Logins, and the callers behind tokens and API keys.

    A token with the gateway's signature and the id of one of its users is valid as long as that user exists,
    is not disabled and has not changed the password. The user is looked up again after `recheck_seconds`, so
    a token can stay valid for that long after a change. If the database does not answer, such callers get
    Busy. For every other subject (another service's, an identity provider's) only the signature counts.
    A key is valid as long as its user exists and is not disabled. A changed password does not end it.
    """

    def __init__(
        self,
        *,
        users: Users,
        keys: Keys,
        passwords: Passwords,
        tokens: Tokens,
        limits: LoginLimits,
        recheck_seconds: float = 30,
    ) -> None:
        self.users = users
        self.keys = keys
        self.passwords = passwords
        self.tokens = tokens
        self._limits = limits
        self._recheck_seconds = recheck_seconds
        self._seen: dict[str, _Seen] = {}

    async def admit(self, address: str) -> None:
        """Count a login attempt from this address, before its body is read. Raises RateLimited."""
        await self._limits.address.hit(_network(address))

    async def login(self, request: LoginRequest, address: str) -> TokenAnswer:
        """Returns a token. Raises RateLimited, Unauthorized, and Busy from the database or the queue of
        passwords.

        The limit per account and address is much lower than that of the account, so a stranger cannot lock
        out the owner, who has another address.
        """
        name = fold(request.username)
        await self._limits.account_and_address.hit(f"{name} {_network(address)}")
        await self._limits.account.hit(f"{name}")
        user = await self.users.by_name(name)
        right = await self.passwords.verify(user.password_hash if user else None, request.password)
        if user is None or user.disabled or not right:
            raise Unauthorized
        if self.passwords.outdated(user.password_hash):
            await self.users.replace_hash(user, await self.passwords.hash(request.password))
        token = self.tokens.mint(user.id, user.username, user.password_version)
        return TokenAnswer(access_token=token, expires_in=self.tokens.lifetime_seconds)

    async def authenticate(self, token: str) -> Caller:
        """Returns the caller of a token or of a key. Raises Unauthorized, and UpstreamUnavailable when a key
        or a user cannot be looked up."""
        if token.startswith(PREFIX):
            return await self._key_holder(token)
        read = await self.tokens.read(token)
        username = read.username
        if read.ours and read.subject.startswith(ID_PREFIX):
            user = await self._look_up(read.subject, read.password_version)
            if user.username is None or user.password_version != read.password_version:
                raise Unauthorized
            username = user.username
        return Caller(read.subject, username, read.expires)

    async def aclose(self) -> None:
        self.passwords.close()
        await self.tokens.aclose()
        await self.keys.aclose()
        limits = self._limits
        for limit in (limits.account_and_address, limits.account, limits.address):
            await limit.aclose()
        await self.users.aclose()

    async def _key_holder(self, secret: str) -> Caller:
        key = await self.keys.find(secret)
        user = await self._look_up(key.user) if key else None
        if key is None or user is None or user.username is None:
            raise Unauthorized
        expires = NEVER if key.expires_at is None else key.expires_at / 1000
        return Caller(key.user, user.username, expires, key)

    async def _look_up(self, id: str, password_version: int = 0) -> _Seen:
        """Returns the user: the remembered one, unless it is too old or the token has a newer
        `password_version`."""
        seen = self._seen.get(id)
        if (
            seen is None
            or time.monotonic() - seen.at > self._recheck_seconds
            or (seen.username is not None and password_version > seen.password_version)
        ):
            asked = time.monotonic()
            user = await self.users.by_id(id)
            if user is None or user.disabled:
                seen = _Seen(None, 0, asked)
            else:
                seen = _Seen(user.username, user.password_version, asked)
            self._seen.pop(id, None)  # the newest come last
            self._seen[id] = seen
            if len(self._seen) > MAX_SEEN:
                del self._seen[next(iter(self._seen))]
        return seen


def _network(address: str) -> str:
    """Returns the addresses that one subscriber has: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return address
    # A socket for both IP versions shows IPv4 addresses as ::ffff:192.0.2.1.
    return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64))
