"""The commands of the README work: they run one by one beside `make run`, in a copy of the repository."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings
from tests.test_make import PYTHON3
from tools.readme import README, Walk, commands, same

ROOT = README.parent
COMMANDS = list(commands(README.read_text("utf-8")))


def clone(folder: Path) -> Path:
    """Lay out what `make run` needs, as in a clone where it ran before, with the packages of this test run.

    The locks get an old date, so that make does not install again.
    """
    for name in ("Makefile", "alembic", "alembic.ini", "app", "docs", "tools", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("README.md", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, folder)
        os.utime(folder / name, (0, 0))
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")


@needs_curl
def test_every_command_does_what_the_readme_says(tmp_path: Path) -> None:
    shell = ["env", "-i", f"PATH={Path(PYTHON3).parent}:/usr/bin:/bin", f"HOME={tmp_path}", "sh"]
    folder = clone(tmp_path)
    walk = Walk(argv=shell, folder=str(folder), seen_at=folder, port=free_port(), install=False)
    try:
        printed = list(walk.through(COMMANDS))
    finally:
        walk.close()
    assert walk.problems == []
    assert len(printed) == len(COMMANDS)
    assert walk.gateway
    told = walk.gateway.lines
    assert [line.split()[0] for line in told if line and line[0] not in "{ "] == GREETING
    for once in ("Started server process", "Uvicorn running on", "Shutting down"):
        assert sum(once in line for line in told) == 1, once


GREETING = ["Image", "Docs", "Username", "Password", "Token", "curl"]


def test_every_route_has_a_curl_line() -> None:
    routes = set(create_app(Settings()).openapi()["paths"]) | {"/docs"}
    shown = {route for command in COMMANDS for route in command.routes}
    assert routes - shown == {
        "/pro/gen",  # the same as /gen
        "/api/v1/receipts/{id}",  # its id differs from run to run
        "/docs",  # for a browser
    }


@pytest.mark.parametrize(
    ("promised", "printed", "kept"),
    [
        ("Added ann.", "Added ann.", True),
        ("Added ann.", "Added ann", False),
        ('{"a":…,"b":1}', '{"a":[1,2],"b":1}', True),
        ('{"a":…,"b":1}', '{"a":[1,2],"b":2}', False),
        (
            "localhost:3001/20261120_091630_d53ed6726340a379affe1de5",
            "localhost:3999/20270101_000000_" + "0" * 24,
            True,
        ),
        ("at 2026-11-20T09:16:30.126Z", "at 2027-01-01T00:00:00.000Z", True),
    ],
)
def test_what_counts_as_the_promised_output(promised: str, printed: str, kept: bool) -> None:
    assert same(promised, printed) == kept


@needs_curl
def test_a_promise_that_is_not_kept_is_found(tmp_path: Path) -> None:
    """A page with one good command and several bad ones."""
    page = """# Page
```console
$ echo \\
    good
good
$ echo right
wrong
$ false
$ curl -s localhost:3001/nothing
$ echo not a picture > a.png
```
"""
    found = list(commands(page))
    assert [(one.text, one.promised, one.line) for one in found] == [
        ("echo \\\n    good", "good", 3),
        ("echo right", "wrong", 6),
        ("false", "", 8),
        ("curl -s localhost:3001/nothing", "", 9),
        ("echo not a picture > a.png", "", 10),
    ]
    walk = Walk(argv=["sh"], folder=str(tmp_path), seen_at=tmp_path, port=free_port(), install=False)
    try:
        printed = list(walk.through(found))
    finally:
        walk.close()
    assert printed == ["good", "right", "", "", ""]
    assert [problem.split(":")[1] for problem in walk.problems] == ["6", "8", "9", "10"]
