"""Runs a gateway on a socket, in a thread."""

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
    """Yields a listening socket on a free port of loopback, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def serving(
    listener: socket.socket, settings: Settings, clock: Callable[[], int] | None = None
) -> Iterator[None]:
    """Run a gateway during the `with` block, and stop it gracefully."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings, clock=clock), log_config=None))

    def run() -> None:
        with listener:  # closed if the start fails, so that the request below fails too
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
    """Run a gateway with these settings. Yields its URL."""
    with listening() as (listener, url), serving(listener, Settings(**settings)):
        yield url
