"""Calls under way: what is full delays nobody else, says so, and is free again when the callers have left."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.contract.image import TextToImage
from app.contract.reading import read
from app.emulator.calls import Call
from app.emulator.server import Emulator
from app.parts import build
from app.plan import plan
from app.settings import EMULATED_ADDRESSES, Settings
from tests.api.conftest import Start, token
from tests.support.provider_call import call

pytestmark = pytest.mark.anyio

SLOW_MODEL, MODEL = "imagen-3.0-generate-001", "imagen-4.0-generate-001"
GEMINI = "gemini-2.5-flash-image"

Json = dict[str, Any]


class User:
    """Someone with a token. What they post is under way until `leave`."""

    def __init__(self, url: str, name: str) -> None:
        self.http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token(sub=name)}"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=30,
        )
        self.asked: list[asyncio.Task[httpx.Response]] = []

    def posts(self, path: str, body: Json) -> "asyncio.Task[httpx.Response]":
        task = asyncio.create_task(self.http.post(path, json=body))
        self.asked.append(task)
        return task

    def images(self, prompt: str = "a lighthouse", **fields: Any) -> "asyncio.Task[httpx.Response]":
        body = {"prompt": prompt, "responseFormat": "b64_json", **fields}
        return self.posts("/api/v1/image/text-to-image", body)

    async def refusal(self) -> httpx.Response:
        """Returns the first answer, while all others are under way or wait."""
        (done, _) = await asyncio.wait(self.asked, return_when=asyncio.FIRST_COMPLETED)
        (one,) = done
        return one.result()

    async def leave(self) -> None:
        for task in self.asked:
            task.cancel()
        await asyncio.gather(*self.asked, return_exceptions=True)
        await self.http.aclose()


@asynccontextmanager
async def users(url: str, *names: str) -> AsyncIterator[Sequence[User]]:
    there = [User(url, name) for name in names]
    try:
        yield there
    finally:
        for user in there:
            await user.leave()


async def until(emulator: Emulator, count: int, model: str | None = None) -> None:
    """Wait until so many calls are under way at the vendors."""

    def under_way(calls: Sequence[Call]) -> bool:
        return sum(not one.finished and model in (None, one.model) for one in calls) == count

    await asyncio.to_thread(emulator.calls.wait_for, under_way, 15)


def told(response: httpx.Response) -> tuple[int, str, str]:
    headers = response.headers
    return response.status_code, headers["X-Error-Code"], headers["Retry-After"]


async def test_a_full_model_delays_nobody_else(start: Start, emulator: Emulator, tmp_path: Path) -> None:
    emulator.troubles.set("hang", model=SLOW_MODEL)
    with start(max_calls=5, data_dir=tmp_path) as url:
        async with users(url, "ann", "bob") as (ann, bob):
            for _ in range(7):
                ann.images(model=SLOW_MODEL)
            assert told(await ann.refusal()) == (503, "busy", "5")
            await until(emulator, 3, SLOW_MODEL)
            assert told(await bob.images(model=SLOW_MODEL)) == (503, "busy", "5")

            assert (await bob.images(model=MODEL)).status_code == 200
            assert (await bob.images(model=GEMINI, sampleCount=4)).status_code == 200
            drawn = await bob.posts("/gen", {"mode": "text2img", "prompt": "a cat", "regen_prompt": True})
            assert drawn.json()["enhanced_prompt"] != "a cat"
            login = {"username": "demo", "password": (tmp_path / "demo-password").read_text().strip()}
            assert (await bob.posts("/api/v1/auth/login", login)).status_code == 200
            assert (await bob.http.get("/health")).status_code == 200
            assert sum(task.done() for task in ann.asked) == 1


@pytest.mark.parametrize("path", ["/api/v1/image/text-to-image", "/gen"])
async def test_a_full_user_delays_nobody_else(start: Start, emulator: Emulator, path: str) -> None:
    body = {"mode": "text2img"} if path == "/gen" else {}
    body["responseFormat"] = (
        "b64_json"  # a call for a URL goes on when its caller has left, until the deadline
    )
    with start(max_calls=20, max_calls_per_user=2) as url:
        async with users(url, "ann", "bob") as (ann, bob):
            for _ in range(5):
                ann.posts(path, {**body, "prompt": "a cat #trouble:hang"})
            refused = await ann.refusal()
            assert told(refused) == (429, "too_many_requests", "5")
            assert "vendor" not in refused.text
            await until(emulator, 2)
            assert (await bob.posts(path, {**body, "prompt": "a cat"})).status_code == 200


async def test_the_samples_of_one_user_count_one_by_one(start: Start, emulator: Emulator) -> None:
    with start(max_calls=20, max_calls_per_user=6) as url:
        async with users(url, "ann", "bob") as (ann, bob):
            for _ in range(3):  # six samples are under way, and six wait
                ann.images("cats #trouble:hang", model=GEMINI, sampleCount=4)
            await until(emulator, 6)
            assert told(await ann.images(model=GEMINI)) == (429, "too_many_requests", "5")
            assert len((await bob.images(model=GEMINI, sampleCount=4)).json()["predictions"]) == 4


async def test_more_samples_than_places_are_made_in_turns(start: Start, emulator: Emulator) -> None:
    with start(max_calls=5) as url:
        async with users(url, "ann") as (ann,):
            made = await ann.images(model=GEMINI, sampleCount=4)
    assert (made.status_code, len(made.json()["predictions"])) == (200, 4)


async def test_rewrites_have_places_too(start: Start, emulator: Emulator) -> None:
    """While Claude hangs, its share is full: then prompts are drawn as they are, and others do not notice."""
    emulator.troubles.set("hang", vendor="claude")
    wish = {"mode": "text2img", "prompt": "a cat", "regen_prompt": True}
    with start(max_calls=5) as url:
        async with users(url, "ann", "bob") as (ann, bob):
            for _ in range(7):  # three are rewritten, three wait for it, one is drawn as it is
                ann.posts("/gen", wish)
            first = await ann.refusal()
            assert (first.status_code, first.json()["enhanced_prompt"]) == (200, "a cat")
            await until(emulator, 3)
            vietnamese = {**wish, "prompt": "một con mèo", "prompt_language": "vi"}
            assert told(await bob.posts("/gen", vietnamese)) == (503, "busy", "5")
            assert (await bob.posts("/gen", {**wish, "regen_prompt": False})).status_code == 200


async def test_storing_holds_no_place(start: Start, emulator: Emulator) -> None:
    emulator.troubles.set("hang", vendor="gcs")
    with start(max_calls=1, upload_wait_seconds=5, spool_seconds=0.2) as url:
        async with users(url, "ann", "bob") as (ann, bob):
            stored = ann.images(responseFormat="url")
            await asyncio.to_thread(
                emulator.calls.wait_for, lambda calls: any(one.vendor == "gcs" for one in calls)
            )
            assert (await bob.images()).status_code == 200
            assert not stored.done()
        emulator.troubles.clear()


async def test_a_call_that_waited_too_long_is_not_sent(start: Start, emulator: Emulator) -> None:
    with start(max_calls=1, request_timeout_seconds=2) as url:
        async with users(url, "ann", "bob") as (ann, bob):
            ann.images("a cat #trouble:hang")
            await until(emulator, 1)
            assert told(await bob.images()) == (503, "busy", "5")
            assert (await ann.refusal()).status_code == 504
    assert len(emulator.calls.list()) == 1


async def test_after_hang_ups_at_any_moment_every_place_is_free(start: Start, emulator: Emulator) -> None:
    dice = random.Random(10)
    emulator.troubles.set("slow", arg=0.05)
    with start(max_calls=10, max_calls_per_user=8) as url:
        async with users(url, "ann", "bob", "cid") as everybody:

            async def hang_up(user: User) -> None:
                fields: Json = dice.choice([{"model": MODEL}, {"model": GEMINI, "sampleCount": 4}])
                asking = user.images(**fields)
                await asyncio.wait([asking], timeout=dice.uniform(0, 0.3))
                asking.cancel()

            for _ in range(10):
                await gathered([hang_up(user) for user in everybody for _ in range(7)])
            emulator.troubles.clear()
            await until(emulator, 0)
            emulator.calls.clear()
            emulator.troubles.set("hang")
            ann, bob, cid = everybody
            for user, model, count in ((ann, MODEL, 6), (bob, GEMINI, 2), (cid, SLOW_MODEL, 2)):
                for _ in range(count):
                    user.images(model=model)
            await until(emulator, 10)


async def gathered(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)


async def test_calls_are_sent_in_the_order_in_which_they_came(emulator: Emulator, tmp_path: Path) -> None:
    vendors: Json = dict.fromkeys(EMULATED_ADDRESSES, emulator.http_url)
    folders: Json = {"data_dir": tmp_path, "spool_dir": tmp_path / "spool", "redis_url": None}
    database = f"sqlite:///{tmp_path / 'gateway.db'}"
    settings = Settings(max_calls=1, max_calls_per_user=50, database_url=database, **folders, **vendors)
    prompts = [f"cat {n}" for n in range(2)]
    async with build(plan(settings)) as parts:
        with parts.work.blobs() as blobs:
            wishes = [
                read(TextToImage, {"prompt": text, "responseFormat": "b64_json"}, parts.catalogue, blobs)
                for text in prompts
            ]
            await asyncio.gather(*(parts.images.make(wish, call(blobs)) for wish in wishes))
    assert [one.body["instances"][0]["prompt"] for one in emulator.calls.list()] == prompts
