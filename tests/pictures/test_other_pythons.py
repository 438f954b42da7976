"""The codec on another Python of this machine: Debian's 3.11.2, for example, whose `re` has its own bugs."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_OTHER = Path(f"/usr/bin/python3.{sys.version_info.minor}")
"""Of the same minor version, so that it can import the packages of this one."""


def test_the_codec_passes_its_tests_there() -> None:
    if not _OTHER.exists() or _version(str(_OTHER)) == _version(sys.executable):
        pytest.skip(f"there is no other Python 3.{sys.version_info.minor} in /usr/bin")
    ran = subprocess.run(
        [
            *(_OTHER, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            "tests/pictures/test_in_json_cases.py",
        ],
        cwd=_ROOT,
        env={"PYTHONPATH": sysconfig.get_path("purelib"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]


def _version(python: str) -> str:
    return subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout
