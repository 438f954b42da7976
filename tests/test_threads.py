"""Work in threads keeps its caller's context."""

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import pytest

from app import disk, threads

pytestmark = pytest.mark.anyio

REQUEST: ContextVar[str] = ContextVar("REQUEST")


@pytest.mark.parametrize("run", [threads.off_loop, disk.to_thread])
async def test_work_sees_the_context_of_its_caller(
    run: Callable[[Callable[[], str]], Awaitable[str]],
) -> None:
    for name in ("one", "another"):
        REQUEST.set(name)
        assert await run(REQUEST.get) == name


async def test_what_work_sets_stays_in_its_thread() -> None:
    REQUEST.set("mine")
    with ThreadPoolExecutor(1) as executor:
        await threads.in_executor(executor, REQUEST.set, "theirs")
        assert await threads.in_executor(executor, REQUEST.get) == "mine"
    assert REQUEST.get() == "mine"


def test_all_executors_are_used_through_threads() -> None:
    app = Path(threads.__file__).parent
    users = [path for path in app.rglob("*.py") if "run_in_executor" in path.read_text("utf-8")]
    assert [str(path.relative_to(app)) for path in users if "emulator" not in path.parts] == ["threads.py"]
