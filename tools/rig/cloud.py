"""Runs `tools.rig.vendors`, the cloud of the load and chaos programs, in a separate process."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
from pydantic import BaseModel

from tools.rig.processes import MALLOC, Emulated, free_ports, migrate, running
from tools.rig.vendors import Made


class VendorState(BaseModel):
    """What the vendors have recorded. `now` and `most`: model calls under way, at present and at most."""

    now: int
    most: int
    pictures: list[Made]


class Cloud:
    """A running `tools.rig.vendors`. Its objects, and the gateway's database and files, are in `folder`."""

    def __init__(self, emulated: Emulated) -> None:
        self.emulated = emulated
        self.url = emulated.url
        self.folder = emulated.folder
        self.spool = emulated.folder / "spool"
        self._http = httpx.Client(base_url=emulated.url, timeout=60)

    def close(self) -> None:
        self._http.close()

    def trouble(self, kind: str | None, vendor: str = "gcs", **more: object) -> None:
        """Make a vendor fail until `calm` is called."""
        order = {"vendor": vendor, **({"kind": kind} if kind else {}), **more}
        self._http.post("/__emulator/trouble", json=order).raise_for_status()

    def calm(self) -> None:
        self._http.delete("/__emulator/trouble").raise_for_status()

    def state(self) -> "VendorState":
        return VendorState.model_validate_json(self._http.get("/__bench/pictures").raise_for_status().content)

    def forget(self) -> None:
        self._http.delete("/__bench/pictures").raise_for_status()

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Yields the path (bucket and name) and the bytes of each stored object."""
        for path in sorted((self.folder / "objects").glob("*/*")):
            resource, _, data = path.read_bytes().partition(b"\n")
            yield f"{path.parent.name}/{json.loads(resource)['name']}", data

    def kept(self) -> list[Path]:
        """Returns the pictures on the spool, without locks (no suffix) and files that are being written."""
        return [path for path in self.spool.rglob("*") if path.is_file() and path.suffix not in ("", ".part")]

    def temporary_files(self) -> list[Path]:
        """Returns the gateways' temporary files. There are none when no request is under way."""
        return [
            path for path in (self.folder / "work").rglob("*") if path.is_file() and ".lock" not in path.name
        ]


@contextlib.contextmanager
def cloud(seconds: float = 0, *, watch_readers: bool = True) -> Iterator[Cloud]:
    """Run a cloud with models that take `seconds`."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        flags = ["--watch-readers"] if watch_readers else []
        arguments = ["-m", "tools.rig.vendors", str(port), folder, str(seconds), *flags]
        niceness = 0 if watch_readers else 19  # a lower priority than the gateway's, as in bench.run
        with running(arguments, f"{url}/__emulator/calls", MALLOC, niceness):
            emulated = Emulated(url, Path(folder))
            migrate(emulated)
            with contextlib.closing(Cloud(emulated)) as started:
                yield started
