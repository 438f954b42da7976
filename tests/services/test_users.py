"""The table of users."""

import asyncio

import pytest

from app.contract.errors import UpstreamUnavailable
from app.db import User, open_database
from app.services.auth import Auth
from app.services.users import UsernameTaken, Users, fold

pytestmark = pytest.mark.anyio


async def test_two_who_take_the_same_name_at_once(users: Users) -> None:
    outcomes = await asyncio.gather(
        *(users.add("ann", f"hash {n}") for n in range(5)), return_exceptions=True
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert (kinds.count(User), kinds.count(UsernameTaken)) == (1, 4)


async def test_users_come_in_the_order_of_their_names(users: Users) -> None:
    for name in ("zoe", "ann", "bob"):
        await users.add(name, "hash")
    assert [user.username for user in await users.all()] == ["ann", "bob", "zoe"]


async def test_by_name_and_by_id(users: Users, ann: User) -> None:
    found = [await users.by_name("ann"), await users.by_id(ann.id)]
    assert [user and user.id for user in found] == [ann.id, ann.id]
    nobody = [await users.by_name(None), await users.by_name("bob"), await users.by_id("ann")]
    assert nobody == [None, None, None]


async def test_ready_with_a_migrated_database(auth: Auth) -> None:
    await auth.users.ready()


async def test_not_ready_before_the_migration(database_url: str) -> None:
    users = Users(open_database(database_url))
    with pytest.raises(UpstreamUnavailable):
        await users.ready()
    await users.aclose()


async def test_renewed_hash_does_not_undo_a_password_change(users: Users, ann: User) -> None:
    await users.set_password_hash("ann", "changed meanwhile")
    await users.replace_hash(ann, "the old password, hashed anew")
    user = await users.by_name("ann")
    assert user
    assert user.password_hash == "changed meanwhile"


@pytest.mark.parametrize(
    ("username", "folded"),
    [
        pytest.param("Ann", "ann", id="letter case"),
        pytest.param("STRASSE", fold("straße"), id="sharp s"),
        pytest.param("ann@example.com", "ann@example.com", id="address"),
        pytest.param("", None, id="empty"),
        pytest.param("a b", None, id="blank"),
        pytest.param("a\u00a0b", None, id="no-break space"),
        pytest.param("a\ud800", None, id="surrogate"),
        pytest.param("ﷺ" * 128, None, id="long once normalised"),
    ],
)
def test_fold(username: str, folded: str | None) -> None:
    assert fold(username) == folded
