"""Runs the commands of README.md one by one, as a newcomer would: `python3 tools/readme.py`.

A command is a line of a ```console block that begins with `$ `, with its continuation lines. The lines after
it are the expected output, in which `…` matches any text. Every curl must get a 2xx, or the status in the
comment after it (`# 400: …`). Every picture, stored or written to a file, must be a complete PNG or JPEG.
Needs only Python's standard library, so that it works where nothing is installed (tools/fresh_root.sh).
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).parents[1] / "README.md"
PORT = 3001

_DONE = "@@done "
_STATUS = "@@status "
_UP = "Uvicorn running on"
_PRICKLY = [  # texts that differ from run to run
    (re.compile(r"localhost:\d+"), "localhost:PORT"),
    (re.compile(r"\d{8}_\d{6}"), "DAY_TIME"),
    (re.compile(r"[0-9a-f]{24,32}"), "RANDOM"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
]


class Command(NamedTuple):
    text: str
    promised: str
    """The expected output; empty if the README shows none."""
    line: int

    @property
    def status(self) -> str:
        """The expected HTTP status of its curl, as a regular expression."""
        said = re.search(r"\s# (\d{3})\b[^\n]*$", self.text)
        return said[1] if said else "2.."

    @property
    def routes(self) -> list[str]:
        return re.findall(r"localhost:\d+(/[\w/.-]*)", self.text)


def commands(text: str) -> Iterator[Command]:
    for block in re.finditer(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        above = text[: block.start(1)].count("\n") + 1
        for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block[1], re.MULTILINE):
            yield Command(match[1], match[2].strip(), above + block[1][: match.start()].count("\n"))


class Output(NamedTuple):
    status: int
    out: str
    err: str


class Shell:
    """One `sh` for all commands, so that variables are kept. `curl` prints each status on standard error."""

    def __init__(self, argv: Sequence[str], folder: str) -> None:
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until `close`
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._err, text=True
        )
        told = "%{stderr}" + _STATUS + "%{http_code}\\n"
        self._write(f"cd {folder}\ncurl() {{ command curl --write-out '{told}' \"$@\"; }}\n")

    def run(self, text: str) -> Output:
        """Raises EOFError if the shell ends."""
        seen = self._err.seek(0, 2)
        self._write(f"{{ {text}\n}} </dev/null\nprintf '\\n{_DONE}%s\\n' $?\n")
        lines: list[str] = []
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(_DONE):
                self._err.seek(seen)
                return Output(int(line.removeprefix(_DONE)), "".join(lines).strip(), self._err.read().strip())
            lines.append(line)
        raise EOFError("the shell ended: " + "".join(lines))

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._err.close()

    def _write(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text)
        self._process.stdin.flush()


class Gateway:
    """`make run`, in a process group of its own. Its output is kept in `lines`."""

    def __init__(self, argv: Sequence[str], folder: str, text: str) -> None:
        self.lines: list[str] = []
        self._told = threading.Event()
        self._process = subprocess.Popen(
            [*argv, "-c", f"cd {folder} && exec {text}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def up(self) -> bool:
        """Wait until it listens. False if it ended instead."""
        self._told.wait()
        return any(_UP in line for line in self.lines)

    def stop(self) -> int:
        """Press Ctrl-C."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        status = self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()
        return status

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if _UP in line:
                self._told.set()
        self._told.set()


class Walk:
    """Runs the README. `problems` has a text for each result that differs from the README."""

    def __init__(self, *, argv: Sequence[str], folder: str, seen_at: Path, port: int, install: bool) -> None:
        self.problems: list[str] = []
        self.gateway: Gateway | None = None
        self._argv, self._folder, self._seen_at = argv, folder, seen_at
        self._port, self._install = port, install
        self._shell = Shell(argv, folder)

    def through(self, commands: Iterable[Command]) -> Iterator[str]:
        """Run the commands and yield the output of each. Ends early if the gateway does not start."""
        for command in commands:
            yield self._step(command)
            if self.gateway and not self.gateway.up():
                return

    def _step(self, command: Command) -> str:
        text = command.text.replace(f"localhost:{PORT}", f"localhost:{self._port}")
        before = len(self.problems)
        if text.startswith("make run"):
            out = self._start(text)
        elif text.startswith(("sudo ", "make test")):
            out = self._shell.run(text.removeprefix("sudo ")).out if self._may(text) else "(left out)"
        else:
            out = self._check(command, self._shell.run(text))
        self.problems[before:] = [
            f"README.md:{command.line}: {text}\n{problem}" for problem in self.problems[before:]
        ]
        return out

    def close(self) -> None:
        self._shell.close()
        if self.gateway:
            self.gateway.stop()

    def _may(self, text: str) -> bool:
        return self._install and text.startswith("sudo ")

    def _start(self, text: str) -> str:
        self.gateway = Gateway(
            self._argv, self._folder, text if self._port == PORT else f"{text} PORT={self._port}"
        )
        if not self.gateway.up():
            self.problems.append("it ended:\n" + "\n".join(self.gateway.lines))
        return "\n".join(self.gateway.lines)

    def _check(self, command: Command, output: Output) -> str:
        statuses = re.findall(rf"^{_STATUS}(\d+)$", output.err, re.MULTILINE)
        noise = re.sub(rf"^{_STATUS}\d+\n?", "", output.err, flags=re.MULTILINE).strip()
        wrong = [one for one in statuses if not re.fullmatch(command.status, one)]
        if output.status != 0 or noise or wrong or len(statuses) != command.text.count("curl "):
            self.problems.append(f"exit status {output.status}, HTTP {statuses}: {noise} {output.out[:1000]}")
        if command.promised and not same(command.promised, output.out):
            self.problems.append(f"promised {command.promised}\nprinted  {output.out[:2000]}")
        for url in re.findall(r"http://localhost:\d+/storage/[^\s\"]+", output.out):
            with urllib.request.urlopen(url) as answer:  # noqa: S310 - http, as matched
                self._look(url, answer.read())
        for name in re.findall(r"> (\S+\.(?:png|jpg))", command.text):
            file = self._seen_at / name
            self._look(name, file.read_bytes() if file.exists() else b"")
        return output.out

    def _look(self, name: str, data: bytes) -> None:
        whole = (data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82")) or (
            data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")
        )
        if not whole:
            self.problems.append(f"{name} is no PNG or JPEG: {data[:100]!r}")


def same(promised: str, printed: str) -> bool:
    """Whether the output is the expected one. Times and random names may differ, and `…` matches any text."""
    for pattern, name in _PRICKLY:
        promised, printed = pattern.sub(name, promised), pattern.sub(name, printed)
    return bool(re.fullmatch(".*".join(map(re.escape, promised.split("…"))), printed, re.DOTALL))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=PORT, help="for the gateway, if not the README's")
    parser.add_argument(
        "--install", action="store_true", help="run the sudo lines too, without sudo: be root"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("/"), help="the folder here that is / for the shell"
    )
    parser.add_argument("--folder", default=str(README.parent), help="the path of the clone for the shell")
    parser.add_argument("shell", nargs="*", default=["sh"], help="the command that starts a shell")
    options = parser.parse_args()
    seen_at = options.root / options.folder.lstrip("/")
    walk = Walk(
        argv=options.shell,
        folder=options.folder,
        seen_at=seen_at,
        port=options.port,
        install=options.install,
    )
    try:
        page = list(commands((seen_at / "README.md").read_text("utf-8")))
        for command, out in zip(page, walk.through(page), strict=False):
            print(f"$ {command.text}\n{out[:2000]}\n", flush=True)
    finally:
        walk.close()
    print("\n".join(["", *walk.problems, f"{len(walk.problems)} problems"]))
    return 1 if walk.problems else 0


if __name__ == "__main__":
    sys.exit(main())
