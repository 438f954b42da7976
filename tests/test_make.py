"""The output and the effects of make before the gateway starts, in a temporary folder without packages."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from app.settings import Settings
from tools.port import port_in

ROOT = Path(__file__).parents[1]
PYTHON3 = shutil.which("python3") or "python3"
PYTHON = f"PYTHON={PYTHON3}"
MAKE = ["make", "--no-print-directory"]


class Made(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """Standard error without make's own last line."""
        return [line for line in self.err.splitlines() if not line.startswith("make: *** ")]


class Folder(NamedTuple):
    path: Path

    def make(self, *arguments: str, **environment: str) -> Made:
        """Run make without this process's environment, and so without the variables of `make test`."""
        plain = {"PATH": f"{Path(PYTHON3).parent}:/usr/bin:/bin", "HOME": str(self.path), **environment}
        done = subprocess.run([*MAKE, *arguments], cwd=self.path, env=plain, capture_output=True, text=True)
        return Made(done.returncode, done.stdout, done.stderr)

    def script(self, name: str, text: str) -> str:
        file = self.path / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return f"./{name}"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (tmp_path / lock).touch()
    return Folder(tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_help_has_a_sentence_for_every_target(folder: Folder) -> None:
    told = dict(re.findall(r"^  make (\w+) +(\w.*)$", folder.make("help").out, re.MULTILINE))
    assert list(told) == ["help", "run", "test", "check", "fix", "bench", "lock", "clean"]
    assert folder.make().out == folder.make("help").out


@pytest.mark.parametrize("given", ["command line", "environment", ".env"])
def test_a_busy_port_is_told_in_one_line_before_anything_else(folder: Folder, taken: int, given: str) -> None:
    files = sorted(folder.path.iterdir())
    match given:
        case "command line":
            made = folder.make("run", PYTHON, f"PORT={taken}", PORT="1")
        case "environment":
            made = folder.make("run", PYTHON, PORT=str(taken))
        case _:
            (folder.path / ".env").write_text(f"PORT={taken}\n")
            files = sorted(folder.path.iterdir())
            made = folder.make("run", PYTHON, PORT="")
    assert made.status == 2
    assert made.out == ""
    (line,) = made.said
    other = re.fullmatch(rf"Port {taken} is in use; choose another: make run PORT=(\d+)", line)
    assert other
    assert int(other[1]) > taken
    assert [file for file in sorted(folder.path.iterdir()) if file.name != "__pycache__"] == files


def test_the_port_that_is_told_instead_is_free(folder: Folder, taken: int) -> None:
    (line,) = folder.make("port", PYTHON, f"PORT={taken}").said
    assert folder.make("port", PYTHON, line.rpartition(" ")[2]) == Made(0, "", "")


@pytest.mark.parametrize("wrong", ["http", "0", "65536", "-1", "3001 3002", "0x10", "٣٠٠١"])
def test_what_is_no_port_is_told_in_one_line(folder: Folder, wrong: str) -> None:
    made = folder.make("run", PYTHON, f"PORT={wrong}")
    assert made.status == 2
    assert made.said == [f"PORT is {wrong!r}, not a number from 1 to 65535; choose one: make run PORT=3001"]


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("PORT=3005", 3005),
        ("PORT=3005\r\n", 3005),
        ("export PORT=3005", 3005),
        ("  export   PORT = 3005  ", 3005),
        ("PORT='3005'", 3005),
        ('PORT="3005" # ours', 3005),
        ("PORT=3005 # ours", 3005),
        ("port=3005", 3005),
        ("PORT=3004\nPORT=3005\n", 3005),
        ("# PORT=3005", 3001),
        ("PORT=", 3001),
        ("PORT= # none", 3001),
        ("PORT=''", 3001),
        ("REPORT=3005\nPORT_=3006\nXPORT=3007", 3001),
        ("CLOUD=emulator\n", 3001),
        ("", 3001),
    ],
)
def test_the_env_file_is_read_as_the_gateway_reads_it(tmp_path: Path, text: str, port: int) -> None:
    file = tmp_path / ".env"
    file.write_bytes(text.encode())
    assert int(port_in(file) or "3001") == port
    assert Settings(_env_file=file).port == port


def test_no_env_file_names_no_port(tmp_path: Path) -> None:
    assert port_in(tmp_path / ".env") == ""


@pytest.mark.parametrize("target", ["run", "check"])
def test_without_python(folder: Folder, target: str) -> None:
    made = folder.make(target, "PYTHON=no-such-python")
    assert (made.status, made.out) == (2, "")
    assert made.said == ["Python 3.11 or newer is needed, and there is no no-such-python here."]


def test_with_an_old_python(folder: Folder) -> None:
    old = folder.script("python3.9", 'exec python3 -c "import sys; sys.version_info = (3, 9, 2); $2"')
    made = folder.make("run", f"PYTHON={old}")
    assert made.status == 2
    assert made.said == [
        f"Python 3.11 or newer is needed, and {old} is 3.9; name another: make run PYTHON=python3.11"
    ]


def test_a_venv_that_was_left_half_made_is_made_anew(folder: Folder) -> None:
    """Debian's python3 without python3-venv makes a .venv without pip, and prints what to install."""
    debian = folder.script(
        "debian",
        'if [ "$2" = venv ]; then mkdir -p .venv/bin && ln -s "$(command -v python3)" .venv/bin/python\n'
        '    echo "ensurepip is not available: apt install python3-venv"; exit 1; fi\n'
        'exec python3 "$@"',
    )
    first = folder.make(".venv/.runtime", f"PYTHON={debian}")
    assert (first.status, first.said) == (2, ["ensurepip is not available: apt install python3-venv"])
    assert (folder.path / ".venv/bin/python").exists()

    second = folder.make(".venv/.runtime", PYTHON)
    assert (second.status, second.err) == (0, "")
    assert second.out == "Installing packages into .venv: a minute or two, once.\n"
    assert (folder.path / ".venv/bin/pip").exists()
    assert "up to date" in folder.make(".venv/.runtime", PYTHON).out


def test_pip_is_quiet_unless_it_fails(folder: Folder) -> None:
    """There is a .venv whose pip is a script that prints warnings, as pip does about its settings."""
    (folder.path / ".venv/bin").mkdir(parents=True)
    python = folder.script(".venv/bin/python", 'echo "WARNING: ignored"; echo "Collecting"; exit $(cat ends)')
    shutil.copy(folder.path / python, folder.path / ".venv/bin/pip")
    (folder.path / "ends").write_text("1")
    failed = folder.make(".venv/.dev", PYTHON)
    assert (failed.status, failed.said) == (2, ["WARNING: ignored", "Collecting"])
    (folder.path / "ends").write_text("0")
    assert folder.make(".venv/.dev", PYTHON) == Made(
        0, "Installing packages and tools into .venv: a minute or two, once.\n", ""
    )
