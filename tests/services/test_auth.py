"""From a username and a password to a token, and from a token to a caller."""

from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters

from app.contract.auth import LoginRequest
from app.contract.errors import RateLimited, Unauthorized, UpstreamUnavailable
from app.db import User, open_database
from app.services.auth import Auth, LoginLimits
from app.services.keys import Keys
from app.services.limits import RateLimit
from app.services.passwords import Passwords
from app.services.tokens import Tokens
from app.services.users import Users
from tests.support.accounts import PASSWORD
from tests.support.signing import SECRET

pytestmark = pytest.mark.anyio

ADDRESS = "192.0.2.1"


async def test_password_is_not_in_the_request_s_repr() -> None:
    assert PASSWORD not in repr(LoginRequest(username="ann", password=PASSWORD))


class TestDisabledUser:
    async def test_token_stops_working_and_works_again(self, auth: Auth, users: Users, ann: User) -> None:
        token = auth.tokens.mint(ann.id, ann.username)
        assert (await auth.authenticate(token)).username == "ann"
        await users.set_disabled("ann", True)
        with pytest.raises(Unauthorized):
            await auth.authenticate(token)
        await users.set_disabled("ann", False)
        assert (await auth.authenticate(token)).username == "ann"


async def test_user_who_is_gone_is_refused(auth: Auth) -> None:
    with pytest.raises(Unauthorized):
        await auth.authenticate(auth.tokens.mint("usr_" + "0" * 32, "ann"))


class TestChangedPassword:
    async def test_ends_the_tokens_from_before_and_no_others(
        self, auth: Auth, users: Users, ann: User, password_hash: str
    ) -> None:
        """Also a token that was issued in the same second."""
        bob = await users.add("bob", password_hash)
        old = [
            await token_of(auth, "ann"),
            auth.tokens.mint(ann.id, "ann"),
        ]  # the second one without a version
        others = [await token_of(auth, "bob"), auth.tokens.mint("service-1", "ann")]
        await users.set_password_hash("ann", password_hash)
        new = await token_of(auth, "ann")
        for token in old:
            with pytest.raises(Unauthorized):
                await auth.authenticate(token)
        callers = [await auth.authenticate(token) for token in (new, *others)]
        assert [caller.id for caller in callers] == [ann.id, bob.id, "service-1"]

    async def test_is_noticed_at_once_by_who_logs_in_anew(
        self, users: Users, passwords: Passwords, ann: User, password_hash: str
    ) -> None:
        """A gateway that remembers ann accepts her new token, and from then on refuses the old one."""
        here, there = (auth_with(users, passwords, recheck_seconds=3600) for _ in range(2))
        old = await token_of(here, "ann")
        await here.authenticate(old)
        await users.set_password_hash("ann", password_hash)
        new = await token_of(there, "ann")
        assert (await here.authenticate(old)).id == ann.id
        assert (await here.authenticate(new)).id == ann.id
        with pytest.raises(Unauthorized):
            await here.authenticate(old)

    async def test_an_old_token_costs_no_look_up(
        self, users: Users, passwords: Passwords, ann: User, password_hash: str
    ) -> None:
        auth = auth_with(users, passwords, recheck_seconds=3600)
        old = await token_of(auth, "ann")
        await users.set_password_hash("ann", password_hash)
        await auth.authenticate(await token_of(auth, "ann"))
        auth.users = None  # type: ignore[assignment]  # any further lookup fails
        with pytest.raises(Unauthorized):
            await auth.authenticate(old)

    async def test_a_hash_that_is_renewed_ends_nothing(
        self, auth: Auth, users: Users, ann: User, password_hash: str
    ) -> None:
        token = await token_of(auth, "ann")
        await users.replace_hash(ann, password_hash + "=")
        assert (await auth.authenticate(token)).id == ann.id


async def test_who_is_deleted_cannot_come_back_under_the_same_name(
    auth: Auth, users: Users, ann: User, password_hash: str
) -> None:
    token = await token_of(auth, "ann")
    assert await users.delete("ann")
    with pytest.raises(Unauthorized):
        await auth.authenticate(token)
    await users.add("ann", password_hash)
    with pytest.raises(Unauthorized):
        await auth.authenticate(token)
    assert not await users.delete("bob")


async def token_of(auth: Auth, username: str) -> str:
    return (await auth.login(LoginRequest(username=username, password=PASSWORD), ADDRESS)).access_token


def auth_with(users: Users, passwords: Passwords, *, recheck_seconds: float = 0) -> Auth:
    limit = RateLimit("", name="login")
    tokens = Tokens(secret=SECRET)
    return Auth(
        users=users,
        keys=Keys(open_database("sqlite+aiosqlite://")),  # never asked
        passwords=passwords,
        tokens=tokens,
        limits=LoginLimits(limit, limit, limit),
        recheck_seconds=recheck_seconds,
    )


async def test_user_is_looked_up_once_in_a_while(users: Users, passwords: Passwords, ann: User) -> None:
    auth = auth_with(users, passwords, recheck_seconds=3600)
    token = auth.tokens.mint(ann.id, ann.username)
    await auth.authenticate(token)
    auth.users = None  # type: ignore[assignment]  # any further lookup fails
    assert (await auth.authenticate(token)).id == ann.id


@pytest.mark.usefixtures("no_database")
class TestDatabaseDown:
    async def test_other_issuers_tokens_work(self, auth: Auth) -> None:
        assert (await auth.authenticate(auth.tokens.mint("service-1", "billing"))).username == "billing"

    async def test_not_ready(self, auth: Auth) -> None:
        with pytest.raises(UpstreamUnavailable):
            await auth.users.ready()


class Watched(Passwords):
    """Remembers which hashes were checked."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.checked: list[str] = []

    def _matches(self, stored: str, password: str) -> bool:
        self.checked.append(stored)
        return super()._matches(stored, password)


@pytest.mark.parametrize("username", ["ann", "nobody", "bad\0name", "x" * 200, "disabled"])
async def test_every_refusal_costs_one_check_of_equal_weight(
    users: Users, ann: User, password_hash: str, username: str
) -> None:
    """What an attacker could time is the same for those who exist and those who do not."""
    await users.add("disabled", password_hash)
    await users.set_disabled("disabled", True)
    passwords = Watched()
    auth = auth_with(users, passwords)
    with pytest.raises(Unauthorized):
        await auth.login(LoginRequest(username=username, password="not the password"), ADDRESS)
    assert [extract_parameters(stored) for stored in passwords.checked] == [extract_parameters(password_hash)]
    passwords.close()


async def test_outdated_hash_is_renewed_at_login(auth: Auth, users: Users) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await users.add("old", old)
    await auth.login(LoginRequest(username="old", password=PASSWORD), ADDRESS)
    user = await users.by_name("old")
    assert user
    assert not auth.passwords.outdated(user.password_hash)
    assert await auth.passwords.verify(user.password_hash, PASSWORD)


class TestAttempts:
    """Limits per hour, so that no test runs over the end of a window."""

    @pytest.fixture
    def account_settings(self) -> dict[str, Any]:
        return {
            "login_rate_limit": "3/hour",
            "login_account_rate_limit": "5/hour",
            "login_address_rate_limit": "7/hour",
        }

    async def test_are_limited_per_account_and_address(self, auth: Auth, ann: User) -> None:
        """Whether or not the account exists. Its owner can log in from elsewhere, and other users from
        here."""
        for name, address in (("ann", "10.0.0.1"), ("nobody", "10.0.0.2")):
            tries = [await self._attempt(auth, name, address) for _ in range(4)]
            assert tries == ["Unauthorized"] * 3 + ["RateLimited"]
        assert await self._attempt(auth, "ann", "10.0.0.9", PASSWORD) == "in"
        assert await self._attempt(auth, "bob", "10.0.0.1") == "Unauthorized"

    async def test_are_limited_per_account_wherever_they_come_from(self, auth: Auth, ann: User) -> None:
        for name in ("ann", "nobody"):
            tries = [await self._attempt(auth, name, f"10.{len(name)}.0.{n}") for n in range(6)]
            assert tries == ["Unauthorized"] * 5 + ["RateLimited"]

    async def test_that_are_refused_at_their_address_do_not_count_for_the_account(
        self, auth: Auth, ann: User
    ) -> None:
        tries = [await self._attempt(auth, "ann", "10.0.0.1") for _ in range(7)]
        assert tries == ["Unauthorized"] * 3 + ["RateLimited"] * 4
        assert await self._attempt(auth, "ann", "10.0.0.9", PASSWORD) == "in"

    async def test_are_limited_per_address_whatever_the_names(self, auth: Auth) -> None:
        tries = [await self._attempt(auth, f"user-{n}", "10.0.0.1") for n in range(8)]
        assert tries == ["Unauthorized"] * 7 + ["RateLimited"]
        assert await self._attempt(auth, "user-9", "10.0.0.2") == "Unauthorized"

    async def test_are_limited_per_ipv6_network(self, auth: Auth) -> None:
        tries = [await self._attempt(auth, f"user-{n}", f"2001:db8:1:1::{n}") for n in range(8)]
        assert tries == ["Unauthorized"] * 7 + ["RateLimited"]
        tries = [await self._attempt(auth, "ann", f"2001:db8:1:2::{n}") for n in range(4)]
        assert tries == ["Unauthorized"] * 3 + ["RateLimited"]
        assert await self._attempt(auth, "user-9", "2001:db8:1:3::1") == "Unauthorized"

    async def test_of_ipv4_on_an_ipv6_socket_are_told_apart(self, auth: Auth) -> None:
        tries = [await self._attempt(auth, f"user-{n}", f"::ffff:10.0.0.{n}") for n in range(8)]
        assert tries == ["Unauthorized"] * 8
        assert await self._attempt(auth, "user-0", "10.0.0.0") == "Unauthorized"
        assert await self._attempt(auth, "user-0", "::ffff:10.0.0.0") == "Unauthorized"
        assert await self._attempt(auth, "user-0", "10.0.0.0") == "RateLimited"

    async def test_spelling_a_name_differently_does_not_help(self, auth: Auth) -> None:
        tries = [await self._attempt(auth, name, ADDRESS) for name in ("ann", "Ann", "aNN", "ANN")]
        assert tries == ["Unauthorized"] * 3 + ["RateLimited"]

    async def test_are_counted_before_a_password_is_checked(
        self, auth: Auth, users: Users, ann: User
    ) -> None:
        auth.passwords = watched = Watched()
        tries = [await self._attempt(auth, "ann", ADDRESS) for _ in range(6)]
        assert (tries.count("Unauthorized"), len(watched.checked)) == (3, 3)
        watched.close()

    async def _attempt(self, auth: Auth, username: str, address: str, password: str = "x") -> str:  # noqa: S107
        try:
            await auth.count_attempt(address)
            await auth.login(LoginRequest(username=username, password=password), address)
        except (Unauthorized, RateLimited) as exc:
            return type(exc).__name__
        return "in"
