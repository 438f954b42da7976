"""API keys as Bearer tokens."""

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.contract.errors import Unauthorized
from app.db import User
from app.services.auth import NEVER, Auth, Caller
from app.services.keys import PREFIX, Key, Keys, now
from app.services.users import Users

pytestmark = pytest.mark.anyio

PROFILE = "/api/v1/auth/profile"
UNAUTHORIZED = {"statusCode": 401, "message": "Unauthorized"}


async def profile(auth_client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await auth_client.get(PROFILE, headers={"Authorization": f"Bearer {key}"})


async def test_a_key_stands_for_its_user(auth_client: httpx.AsyncClient, keys: Keys, ann: User) -> None:
    until = now() + 60_000
    for expires_at, exp in ((None, NEVER), (until, until / 1000)):
        key = await keys.add(f"until-{expires_at}", "ann", expires_at=expires_at)
        assert (await profile(auth_client, key)).json() == {"id": ann.id, "username": "ann", "exp": exp}


async def test_a_caller_with_a_key_counts_for_both(auth: Auth, keys: Keys, ann: User) -> None:
    caller = await auth.authenticate(await keys.add("ci", "ann"))
    assert caller == Caller(ann.id, "ann", NEVER, Key("ci", ann.id))
    assert (caller.scopes, caller.counted_as) == ((f"user:{ann.id}", "key:ci"), "key:ci")


async def test_a_subject_that_looks_like_a_key_does_not_count_for_it(auth: Auth) -> None:
    caller = await auth.authenticate(auth.tokens.mint("key:ci", "mallory"))
    assert (caller.key, caller.scopes, caller.counted_as) == (None, ("user:key:ci",), "user:key:ci")


@pytest.mark.parametrize("what", ["invented", "revoked", "expired", "disabled user", "deleted user"])
async def test_a_key_that_is_not_valid(
    auth_client: httpx.AsyncClient, keys: Keys, users: Users, ann: User, what: str
) -> None:
    key = await keys.add("ci", "ann", expires_at=now() - 1 if what == "expired" else None)
    if what == "revoked":
        assert (await profile(auth_client, key)).status_code == 200
        await keys.revoke("ci")
    elif what == "disabled user":
        await users.set_disabled("ann", True)
    elif what == "deleted user":
        await users.delete("ann")
    answer = await profile(auth_client, PREFIX + "0" * 64 if what == "invented" else key)
    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)


async def test_a_changed_password_does_not_end_a_key(
    auth: Auth, keys: Keys, users: Users, ann: User, password_hash: str
) -> None:
    key = await keys.add("ci", "ann")
    await users.set_password_hash("ann", password_hash)
    assert (await auth.authenticate(key)).id == ann.id


async def test_a_key_is_taken_from_the_header_alone(
    auth_client: httpx.AsyncClient, keys: Keys, ann: User
) -> None:
    key = await keys.add("ci", "ann")
    answers = [
        await auth_client.get(PROFILE, params={"key": key, "access_token": key}),
        await auth_client.get(PROFILE, headers={"X-Api-Key": key}),
        await auth_client.get(PROFILE, headers={"Authorization": f"Basic {key}"}),
        await auth_client.get(PROFILE, headers={"Authorization": key}),
        await auth_client.get(PROFILE, headers={"Cookie": f"token={key}"}),
    ]
    assert [answer.status_code for answer in answers] == [401] * 5
    echoed = await auth_client.get(PROFILE, headers={"X-Request-Id": key})
    assert key not in echoed.headers["X-Request-Id"]


async def test_a_database_without_the_table_is_no_refusal(
    auth: Auth, auth_client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE api_keys RENAME TO gone"))
    answer = await profile(auth_client, PREFIX + "0" * 64)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    with pytest.raises(Unauthorized):
        await auth.authenticate("igw_nonsense")
    async with engine.begin() as connection:  # other tests use the same database
        await connection.execute(text("ALTER TABLE gone RENAME TO api_keys"))
