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

MAX_KNOWN = 10_000
NEVER = 253_402_300_799.0
"""The last second of the year 9999: when a key without an expiry expires."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated user of a request.

    `id` is the token's subject, or the id of the key's user. `expires` is in Unix seconds. `username` is None
    if a token of another issuer names none. `key` is None for a token.
    """

    id: str
    username: str | None
    expires: float
    key: Key | None = None

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of the budgets that the caller spends from: the user's, then the key's."""
        user = user_scope(self.id)
        return (user, f"key:{self.key.name}") if self.key else (user,)

    @property
    def counted_as(self) -> str:
        """The scope for which the rate limit counts requests: the key's if there is a key, else the user's.

        A scope's prefix distinguishes the key `ci` from the subject `key:ci` of another issuer.
        """
        return self.scopes[-1]


@dataclass(frozen=True, slots=True)
class _KnownUser:
    """A user as read from the database at `at` (monotonic). `username` is None if deleted or disabled."""

    username: str | None
    password_version: int
    at: float


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How many logins may be tried: per account and address together, per account, and per address."""

    account_and_address: RateLimit
    account: RateLimit
    address: RateLimit


class Auth:
    """Logs users in, and authenticates tokens and API keys.

    - A token of one of the gateway's own users is valid as long as that user exists, is not disabled and has
      not changed the password. The user is looked up again after `recheck_seconds`, so a token can stay valid
      for that long after a change. If the database does not answer, Busy is raised.
    - Any other token (of another service or an identity provider) is valid until it expires.
    - A key is valid as long as its user exists and is not disabled. A new password does not end it.
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
        self._known: dict[str, _KnownUser] = {}

    async def count_attempt(self, address: str) -> None:
        """Count a login attempt from this address, before its body is read. Raises RateLimited."""
        await self._limits.address.hit(_network(address))

    async def login(self, request: LoginRequest, address: str) -> TokenAnswer:
        """Returns a token for a username and password.

        Raises RateLimited, Unauthorized, and Busy if the database or the password threads are overloaded.
        The limit per account and address is much lower than the limit per account, so a stranger at another
        address cannot lock the owner out.
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
        """Returns the caller for a token or an API key.

        Raises Unauthorized, and Busy if the database does not answer.
        """
        if token.startswith(PREFIX):
            return await self._key_user(token)
        read = await self.tokens.read(token)
        username = read.username
        if read.signed_here and read.subject.startswith(ID_PREFIX):
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

    async def _key_user(self, secret: str) -> Caller:
        key = await self.keys.find(secret)
        user = await self._look_up(key.user) if key else None
        if key is None or user is None or user.username is None:
            raise Unauthorized
        expires = NEVER if key.expires_at is None else key.expires_at / 1000
        return Caller(key.user, user.username, expires, key)

    async def _look_up(self, id: str, password_version: int = 0) -> _KnownUser:
        """Returns the user, from memory unless that entry is too old or has an older `password_version`."""
        known = self._known.get(id)
        if (
            known is None
            or time.monotonic() - known.at > self._recheck_seconds
            or (known.username is not None and password_version > known.password_version)
        ):
            asked = time.monotonic()
            user = await self.users.by_id(id)
            if user is None or user.disabled:
                known = _KnownUser(None, 0, asked)
            else:
                known = _KnownUser(user.username, user.password_version, asked)
            self._known.pop(id, None)  # the newest come last
            self._known[id] = known
            if len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
        return known


def _network(address: str) -> str:
    """Returns the network of one subscriber: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return address
    # A socket for both IP versions shows IPv4 addresses as ::ffff:192.0.2.1.
    return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64))
