"""Log lines of a separate process, on a terminal and piped."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import json, logging, sys, threading
from pathlib import Path
import structlog
from app import logs
from app.contract.models import load_catalogue

logs.configure("info", sys.argv[1])
log = structlog.get_logger()
with structlog.contextvars.bound_contextvars(request_id="abc"):
    log.info("request", path="/gen", status=200, ms=1.5)
log.warning("two\\nlines", path="/\\x1b[2J\\n", words="a b", nothing=None)
log.debug("not told")
log.info("igw_0123456789abcdef", path="/igw_0123456789abcdef/x")

def deep(left):
    if left:
        return deep(left - 1)
    return json.loads("secret words")

try:
    try:
        deep(40)
    except ValueError as exc:
        raise RuntimeError("secret words") from exc
except RuntimeError:
    log.exception("failed", status=500)
try:
    load_catalogue(Path("no such file"))
except OSError:
    log.exception("failed")

uvicorn = logging.getLogger("uvicorn.error")
uvicorn.info("Uvicorn running on %s", "here")
said = threading.Thread(target=uvicorn.info, args=("Started another server",))
said.start()
said.join()
uvicorn.error("Traceback (most recent call last):\\n  File x\\nOSError: no such folder\\n")
"""


def piped(format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, format], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def on_a_terminal(format: str) -> list[str]:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.Popen([sys.executable, "-c", PROGRAM, format], cwd=ROOT, stdout=theirs)
        os.close(theirs)
        written = b""
        try:
            while piece := terminal.read(65536):
                written += piece
        except OSError:  # Linux: the other end is closed
            pass
        assert done.wait() == 0
    return written.decode().splitlines()


TEXT = """\
hh:mm:ss info    request path=/gen status=200 ms=1.5 request_id=abc
hh:mm:ss warning 'two\\nlines' path='/\\x1b[2J\\n' words='a b' nothing=None
hh:mm:ss info    igw_… path=/igw_…/x
hh:mm:ss error   failed status=500
         RuntimeError in <string>:nn <module>
         JSONDecodeError in json/decoder.py:nn raw_decode
hh:mm:ss error   failed
         FileNotFoundError in app/contract/models.py:nn load_catalogue
hh:mm:ss info    Uvicorn running on here
hh:mm:ss error   OSError: no such folder
"""


def timeless(line: str) -> str:
    line = re.sub(r"\x1b\[\d*m", "", line)
    return re.sub(r"(in \S+):\d+", r"\1:nn", re.sub(r"^\d\d:\d\d:\d\d", "hh:mm:ss", line))


@pytest.mark.parametrize("format", ["auto", "text"])
def test_a_terminal_shows_text_in_colour(format: str) -> None:
    lines = on_a_terminal(format)
    assert [timeless(line) for line in lines] == TEXT.splitlines()
    assert any("\x1b[31m" in line for line in lines)


def test_text_in_a_pipe_has_no_colour() -> None:
    lines = piped("text")
    assert [timeless(line) for line in lines] == TEXT.splitlines()
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("format", ["auto", "json"])
def test_a_pipe_holds_json(format: str) -> None:
    first, second, key, failed, _, running, refused = map(json.loads, piped(format))
    stamp = first.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", stamp)
    assert first == {
        "event": "request",
        "level": "info",
        "logger": "__main__",
        "request_id": "abc",
        "path": "/gen",
        "status": 200,
        "ms": 1.5,
    }
    assert second["path"] == "/\x1b[2J\n"
    assert (key["event"], key["path"]) == ("igw_…", "/igw_…/x")
    assert [error["exc_type"] for error in failed["exception"]] == ["RuntimeError", "JSONDecodeError"]
    assert len(failed["exception"][1]["frames"]) > 40
    assert running["event"] == "Uvicorn running on here"
    assert refused["event"].startswith("Traceback")


def test_a_terminal_may_hold_json() -> None:
    levels = [json.loads(line)["level"] for line in on_a_terminal("json")]
    assert levels == [json.loads(line)["level"] for line in piped("json")]


def test_a_failure_that_nobody_asked_for_is_logged_without_its_message() -> None:
    program = """
import asyncio
from app import logs

logs.configure("info", "json")

async def fail():
    raise ValueError("secret words")

async def main():
    task = asyncio.create_task(fail())
    await asyncio.wait((task,))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    line = json.loads(done.stdout)
    assert (line["event"], line["exception"][0]["exc_type"]) == (
        "Task exception was never retrieved",
        "ValueError",
    )
    assert "secret words" not in done.stdout + done.stderr


def test_no_line_is_lost_because_of_the_encoding_of_stdout() -> None:
    """A caller chooses the path, and could hide its requests."""
    program = (
        "import structlog; from app import logs; logs.configure('info', 'json'); "
        "structlog.get_logger().info('request', path='/caf\\u00e9')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["path"] == "/café"
