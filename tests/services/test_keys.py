"""API keys in both databases: found while they are valid, and what finding them costs."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.contract.errors import Busy, Forbidden
from app.contract.models import Operation
from app.db import open_database
from app.services import keys as module
from app.services.keys import PREFIX, Key, KeyNameTaken, Keys, NoSuchUser, now
from app.services.users import Users

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    """A database with the user ann."""
    engine = open_database(migrated_url)
    await Users(engine).add("ann", "hash", id="usr_ann")
    yield engine
    await engine.dispose()


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(engine: AsyncEngine, clock: Clock) -> AsyncIterator[Keys]:
    keys = Keys(engine, clock=clock)
    yield keys
    await keys.aclose()


@pytest.fixture
def queries(engine: AsyncEngine) -> list[str]:
    """The reading statements that reach the database."""
    seen: list[str] = []

    def told(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.extend([statement] if statement.startswith("SELECT api_keys") else [])

    event.listen(engine.sync_engine, "before_cursor_execute", told)
    return seen


def invented() -> str:
    return PREFIX + secrets.token_hex(32)


async def test_a_key_is_found_by_itself_alone(keys: Keys, engine: AsyncEngine) -> None:
    until = now() + 60_000
    secret = await keys.add(
        "ci", "ann", operations=["text2img", "img2img"], models=["imagen-4.0-generate-001"], expires_at=until
    )
    every = await keys.add("every.thing_-9", "ann")
    assert await keys.find(secret) == Key(
        "ci",
        "usr_ann",
        frozenset({"text2img", "img2img"}),
        frozenset({"imagen-4.0-generate-001"}),
        until,
    )
    assert await keys.find(every) == Key("every.thing_-9", "usr_ann")
    async with engine.connect() as connection:
        stored = str((await connection.execute(text("SELECT * FROM api_keys"))).all())
    assert secret.removeprefix(PREFIX) not in stored
    (hashed,) = [word for word in stored.split("'") if module._hash(secret) == word]
    for wrong in ("", PREFIX, secret[:-1], secret + "0", secret + "\n", secret.upper(), PREFIX + hashed):
        assert await keys.find(wrong) is None


async def test_a_revoked_key_is_refused_after_half_a_minute(keys: Keys, clock: Clock) -> None:
    secret = await keys.add("ci", "ann")
    assert await keys.find(secret)
    assert await keys.revoke("ci")
    clock.time = 30
    assert await keys.find(secret)
    clock.time = 30.1
    assert await keys.find(secret) is None
    ((row, _),) = await keys.all()
    first = row.revoked_at
    assert first
    assert await keys.revoke("ci")
    assert (await keys.all())[0][0].revoked_at == first
    assert not await keys.revoke("nothing")


async def test_a_key_expires_also_while_it_is_remembered(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    until = now() + 60_000
    secret = await keys.add("ci", "ann", expires_at=until)
    assert await keys.find(secret)
    monkeypatch.setattr(module, "now", lambda: until)
    assert await keys.find(secret) is None
    assert await keys.find(await keys.add("past", "ann", expires_at=until)) is None


async def test_a_new_key_works_after_a_second(keys: Keys, clock: Clock) -> None:
    await keys.find(invented())
    secret = await keys.add("ci", "ann")
    clock.time = 1.1
    assert await keys.find(secret)


async def test_invented_keys_cost_a_query_a_second_and_no_memory(
    keys: Keys, clock: Clock, queries: list[str]
) -> None:
    secret = await keys.add("ci", "ann")
    for second in range(3):
        clock.time = second * 1.1
        found = await asyncio.gather(*(keys.find(invented()) for _ in range(100)), keys.find(secret))
        assert found[:-1] == [None] * 100
        assert found[-1]
    assert len(queries) == 3
    assert len(keys._valid) == 1


async def test_who_leaves_does_not_end_the_reading_for_others(keys: Keys, queries: list[str]) -> None:
    secret = await keys.add("ci", "ann")
    leaving, staying = (asyncio.create_task(keys.find(secret)) for _ in range(2))
    await asyncio.sleep(0)  # both wait for the same reading
    leaving.cancel()
    assert await staying
    assert leaving.cancelled()
    assert len(queries) == 1


async def test_many_keys_are_read_whole(engine: AsyncEngine, keys: Keys) -> None:
    columns = 'name, "user", hash, created_at'
    many = [{"name": f"key-{n}", "hash": module._hash(f"{n}")} for n in range(1_200)]
    insert = f"INSERT INTO api_keys ({columns}) VALUES (:name, 'usr_ann', :hash, 0)"  # noqa: S608
    async with engine.begin() as connection:
        await connection.execute(text(insert), many)
    await keys.find(invented())
    assert len(keys._valid) == 1_200


async def test_a_name_is_not_given_twice(keys: Keys) -> None:
    await keys.add("ci", "ann")
    await keys.revoke("ci")
    with pytest.raises(KeyNameTaken):
        await keys.add("ci", "ann")
    for nobody in ("bob", None):
        with pytest.raises(NoSuchUser):
            await keys.add("other", nobody)


async def test_keys_are_listed_with_their_users(keys: Keys, engine: AsyncEngine) -> None:
    await Users(engine).add("bob", "hash")
    for name, user in (("z", "ann"), ("a", "bob"), ("b", "ann")):
        await keys.add(name, user)
    await Users(engine).delete("bob")
    assert [(row.name, user) for row, user in await keys.all()] == [("a", None), ("b", "ann"), ("z", "ann")]


async def test_without_a_database_all_who_wait_are_told_so() -> None:
    engine = open_database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    keys = Keys(engine)
    found = await asyncio.gather(*(keys.find(invented()) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [Busy] * 3
    assert await keys.find("igw_nonsense") is None
    await keys.aclose()
    await engine.dispose()


@pytest.mark.parametrize(
    ("key", "operation", "model", "refusals"),
    [
        pytest.param(Key("ci", "u"), "text2img", "m", [], id="everything"),
        pytest.param(
            Key("ci", "u", frozenset({"text2img"}), frozenset({"m", "n"})), "text2img", "m", [], id="both"
        ),
        pytest.param(
            Key("ci", "u", frozenset({"text2img"})),
            "image-upscale",
            "m",
            ["This key may not use image-upscale"],
            id="another operation",
        ),
        pytest.param(
            Key("ci", "u", None, frozenset({"n"})),
            "text2img",
            "m",
            ["This key may not use model m"],
            id="another model",
        ),
    ],
)
async def test_what_a_key_may_be_used_for(
    key: Key, operation: Operation, model: str, refusals: list[str]
) -> None:
    found = []
    try:
        key.check_operation(operation)
        key.check_model(model)
    except Forbidden as exc:
        found.append(exc.message)
    assert found == refusals
