"""The gateway's parts without HTTP: they make pictures, and leave nothing on disk."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog

import app.providers.bedrock.client
import app.providers.claude
import app.providers.vertex.client
from app.api.examples import EXAMPLES, GEN_EXAMPLES
from app.contract.gen import read_gen
from app.contract.image import ImageRequest, ImageUpscale, ProductRecontext, TextToImage, VirtualTryOn
from app.contract.models import Model
from app.contract.reading import read
from app.contract.references import ImageCustomize, ImageEdit
from app.emulator.server import Emulator
from app.parts import build
from app.pictures.checks import check
from app.pictures.work_folder import WorkFolder
from app.plan import plan
from app.ports import Call, PaidCall
from app.providers.attempt import attempt
from app.settings import EMULATED_ADDRESSES, Settings
from app.threads import off_loop
from tests.pictures.reading import assert_empty
from tests.support.provider_call import call
from tests.support.server_process import ROOT

pytestmark = pytest.mark.anyio

A = TypeVar("A")
T = TypeVar("T")


@pytest.fixture
def settings(tmp_path: Path, database_url: str, emulator: Emulator) -> Settings:
    """A gateway in front of the shared emulator."""
    vendors: dict[str, Any] = dict.fromkeys(EMULATED_ADDRESSES, emulator.http_url)
    return Settings(
        data_dir=tmp_path,
        spool_dir=tmp_path / "spool",
        database_url=database_url,
        redis_url=None,
        **vendors,
    )


def work_folders(data_dir: Path) -> list[Path]:
    return list((data_dir / "work").glob("work-*"))


async def test_an_image_is_made_and_nothing_is_left(settings: Settings) -> None:
    async with build(plan(settings)) as parts:
        with parts.work.blobs() as blobs:
            body = {"prompt": "a harbour", "responseFormat": "b64_json"}
            request = read(TextToImage, body, parts.catalogue, blobs)
            made = await parts.images.make(request, call(blobs))
            (picture,) = made.pictures
            check(picture)
            assert (made.stored, made.requested) == ((), parts.catalogue.defaults["text-to-image"])
        assert_empty(parts.work)
        assert work_folders(settings.data_dir) == [parts.work.path]

    assert work_folders(settings.data_dir) == []


async def test_an_image_is_stored_and_nothing_is_left(settings: Settings, emulator: Emulator) -> None:
    async with build(plan(settings)) as parts:
        with parts.work.blobs() as blobs:
            request = read(TextToImage, {"prompt": "a harbour"}, parts.catalogue, blobs)
            made = await parts.images.make(request, call(blobs))
            (stored,) = made.stored
            assert not stored.pending
        assert_empty(parts.work)

    assert work_folders(settings.data_dir) == []


async def test_gen_makes_one_too(settings: Settings) -> None:
    async with build(plan(settings)) as parts:
        with parts.work.blobs() as blobs:
            values = {"mode": "text2img", "prompt": "a harbour", "regen_prompt": True}
            made = await parts.gen.make(read_gen(values, blobs, text=False), call(blobs))
            assert [picture.size for picture in made.pictures] == [(1024, 1024)]
            assert made.prompt_enhanced
        assert_empty(parts.work)


PAID: tuple[type[ImageRequest], ...] = (
    TextToImage,
    ImageUpscale,
    ImageEdit,
    ImageCustomize,
    VirtualTryOn,
    ProductRecontext,
)


async def test_every_paid_call_goes_through_attempt(
    settings: Settings, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where calls are recorded before they are sent, and where they are repeated."""
    sent: list[str] = []

    async def counting(
        send: Callable[[], Awaitable[A]],
        read: Callable[[A, Call], Awaitable[T]],
        paid: PaidCall,
        model: Model,
        *rest: Any,
        **others: Any,
    ) -> T:
        async def counted() -> A:
            sent.append(model.id)
            return await send()

        return await attempt(counted, read, paid, model, *rest, **others)

    for module in (app.providers.vertex.client, app.providers.bedrock.client, app.providers.claude):
        monkeypatch.setattr(module, "attempt", counting)
    async with build(plan(settings)) as parts:
        with parts.work.blobs() as blobs:
            for contract in PAID:
                body = {**EXAMPLES[contract.operation], "responseFormat": "b64_json"}
                await parts.images.make(read(contract, deepcopy(body), parts.catalogue, blobs), call(blobs))
            for values in GEN_EXAMPLES.values():
                await parts.gen.make(
                    read_gen({**values, "regen_prompt": True}, blobs, text=False), call(blobs)
                )
    called = [one.model for one in emulator.calls.list()]
    assert sorted(called) == sorted(sent)
    assert len(sent) >= len(PAID) + 2 * len(GEN_EXAMPLES)


async def test_every_part_is_ready(settings: Settings) -> None:
    async with build(plan(settings)) as parts:
        health = await parts.readiness.ask()
        assert (health.status, {part.status for part in health.parts.values()}) == ("ok", {"ok"})


KILLED = """
import asyncio, os, signal, sys
from app.parts import build
from app.plan import plan
from app.settings import Settings

async def main():
    async with build(plan(Settings.model_validate_json(sys.argv[1]))) as parts:
        blob = parts.work.blobs().of(bytes(1000))
        blob.path()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_folder_of_a_killed_process_is_removed_by_the_next_start(settings: Settings) -> None:
    given = {name: str(getattr(settings, name)) for name in settings.model_fields_set if name != "redis_url"}
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, json.dumps(given), env=environment, cwd=settings.data_dir
    )
    assert await killed.wait() == -signal.SIGKILL
    (left,) = work_folders(settings.data_dir)
    assert [path.stat().st_size for path in left.glob("*.part")] == [1000]

    async with build(plan(settings)) as parts:
        assert work_folders(settings.data_dir) == [parts.work.path]
        assert parts.work.path != left


async def test_the_folder_of_a_running_process_is_left_alone(settings: Settings) -> None:
    with WorkFolder(settings.data_dir / "work") as another:
        async with build(plan(settings)) as parts:
            assert set(work_folders(settings.data_dir)) == {another.path, parts.work.path}


async def test_work_beside_the_loop_keeps_the_context_and_changes_no_other() -> None:
    def work() -> dict[str, Any]:
        found = structlog.contextvars.get_contextvars()
        structlog.contextvars.bind_contextvars(left="behind")
        return found

    async def request(id: str) -> list[dict[str, Any]]:
        with structlog.contextvars.bound_contextvars(request_id=id):
            return [await off_loop(work) for _ in range(3)]

    found = await asyncio.gather(*(request(id) for id in "ab"))

    assert found == [[{"request_id": "a"}] * 3, [{"request_id": "b"}] * 3]
    assert structlog.contextvars.get_contextvars() == {}
