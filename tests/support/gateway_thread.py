"""A gateway on a socket, in a thread of its own."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from app.main import create_app
from app.settings import Settings


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A free port of loopback that is ours already, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def serving(
    listener: socket.socket, settings: Settings, clock: Callable[[], int] | None = None
) -> Iterator[None]:
    """The gateway, up; stopped in the end as an operator would."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings, clock=clock), log_config=None))

    def run() -> None:
        with listener:  # a start that fails leaves nothing to wait for
            server.run([listener])

    thread = threading.Thread(target=run, name="gateway")
    thread.start()
    host, port = listener.getsockname()
    try:
        httpx.get(f"http://{host}:{port}/health", timeout=30).raise_for_status()
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def gateway(**settings: Any) -> Iterator[str]:
    """Start one with these settings; its URL."""
    with listening() as (listener, url), serving(listener, Settings(**settings)):
        yield url
