"""The emulated Cloud Storage on its own port, for tests of the emulator and of the gateway's stores."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from app.emulator.calls import Calls
from app.emulator.exchange import Cuttable
from app.emulator.gcs.front import routes as gcs_routes
from app.emulator.gcs.objects import Objects
from app.emulator.gcs.public import public
from app.emulator.trouble import Troubles


@dataclass(frozen=True)
class CloudStorage:
    """A running server. `url` serves the JSON API, `url`/public/{bucket}/{object} objects without a token."""

    url: str
    data_dir: Path
    objects: Objects
    troubles: Troubles
    calls: Calls

    def empty(self) -> "CloudStorage":
        """Delete all objects, recorded calls and ordered troubles."""
        self.troubles.clear()
        self.calls.clear()
        shutil.rmtree(self.data_dir, ignore_errors=True)
        return self

    def statuses(self) -> list[tuple[str, int | None]]:
        return [(call.method, call.status) for call in self.calls.list()]


@contextmanager
def cloud_storage(data_dir: Path) -> Iterator[CloudStorage]:
    objects, troubles, calls = Objects(data_dir), Troubles(), Calls()
    routes = [*gcs_routes(objects, troubles, calls), Mount("/public", public(objects))]
    config = uvicorn.Config(
        Cuttable(Starlette(routes=routes)), http="httptools", ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield CloudStorage(url, data_dir, objects, troubles, calls)
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()
