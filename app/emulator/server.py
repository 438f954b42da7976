"""Starts and stops the emulated vendors: two ports, served in threads."""

import socket
import threading
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from app.contract.models import Catalogue
from app.emulator import claude, control
from app.emulator.bedrock import front as bedrock
from app.emulator.calls import Calls
from app.emulator.exchange import Cuttable
from app.emulator.gcs import front as gcs
from app.emulator.gcs.objects import Objects
from app.emulator.gcs.public import public
from app.emulator.trouble import Troubles
from app.emulator.vertex import grpc_front, rest_front
from app.emulator.vertex.canned_front import CannedVertex
from app.emulator.vertex.service import Vertex


class Listen(NamedTuple):
    """Where to listen. The system chooses a port of 0."""

    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0


_LOOPBACK = Listen()


class Emulator:
    """Vertex AI, Cloud Storage, Bedrock and Anthropic on loopback.

    `data_dir` keeps the stored objects. With `canned`, Vertex and Bedrock return pictures made beforehand,
    for load tests. Every model waits `seconds` before it does its work.

    `start` sets `http_url`, the address of everything, and `grpc_address` (host:port), of Vertex AI over
    gRPC. `objects` is an ASGI app that serves the stored objects without credentials.
    """

    grpc_address: str
    http_url: str

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        data_dir: Path,
        listen: Listen = _LOOPBACK,
        canned: bool = False,
        seconds: float = 0,
    ) -> None:
        self.calls = Calls()
        self.troubles = Troubles(seconds)
        stored = Objects(data_dir)
        self.objects = public(stored)
        self._listen = listen
        self._canned = CannedVertex(catalogue, self.calls, self.troubles, seconds) if canned else None
        self._vertex = Vertex(catalogue, stored, self.calls, self.troubles)
        rest = self._canned.rest if self._canned else rest_front.endpoint(self._vertex, self.calls)
        routes: list[BaseRoute] = [
            *control.routes(self.calls, self.troubles),
            *rest_front.routes(rest),
            *gcs.routes(stored, self.troubles, self.calls),
            *bedrock.routes(calls=self.calls, troubles=self.troubles, catalogue=catalogue, canned=canned),
            *claude.routes(calls=self.calls, troubles=self.troubles, catalogue=catalogue),
            Mount("/", self.objects),
        ]
        config = uvicorn.Config(
            Cuttable(Starlette(routes=routes)),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=240,  # the vendors keep idle connections for minutes
        )
        self._http = _Server(config)

    def start(self) -> None:
        """Starts to listen. Raises OSError or RuntimeError if a port is taken."""
        host, grpc_port, http_port = self._listen
        endpoints = self._canned.grpc if self._canned else grpc_front.endpoints(self._vertex, self.calls)
        self._grpc, grpc_port = grpc_front.server(endpoints, f"{host}:{grpc_port}")
        listener = socket.create_server((host, http_port), backlog=2048)
        self._grpc.start()
        self._thread = threading.Thread(target=self._http.run, args=([listener],), name="http", daemon=True)
        self._thread.start()
        self.grpc_address = f"{host}:{grpc_port}"
        self.http_url = f"http://{host}:{listener.getsockname()[1]}"

    def stop(self) -> None:
        """Stops listening and ends every call under way."""
        self._http.should_exit = True
        self._grpc.stop(grace=None).wait()
        self._thread.join()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cuts the connections first: uvicorn would wait for calls that hang."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)
