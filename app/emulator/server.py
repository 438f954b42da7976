"""Starts and stops the emulated vendors on loopback ports, in threads of their own."""

import socket
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from app.contract.models import Catalogue
from app.emulator import bedrock, claude, control, gcs
from app.emulator.calls import Calls
from app.emulator.exchange import Cuttable
from app.emulator.objects import Objects
from app.emulator.trouble import Troubles
from app.emulator.vertex import grpc_front, rest_front
from app.emulator.vertex.canned import Canned
from app.emulator.vertex.service import Vertex


class Emulator:
    """Vertex AI, Cloud Storage, Bedrock and Anthropic, rehearsed.

    `data_dir` keeps the stored objects. `canned` answers Vertex's and Bedrock's calls with pictures made
    beforehand, for load tests. Every model takes `seconds` before it does its work. Ports of 0 are chosen by
    the system; the addresses are known after `start`: `http_url` for everything, `grpc_address` (host:port)
    for Vertex AI over gRPC. `objects` is an ASGI app, the public read of the stored objects.
    """

    grpc_address: str
    http_url: str

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        data_dir: Path,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        canned: bool = False,
        seconds: float = 0,
    ) -> None:
        self.calls = Calls()
        self.troubles = Troubles(seconds)
        stored = Objects(data_dir)
        self.objects = gcs.public(stored)
        self._host = host
        self._http_port = http_port
        self._grpc_address = f"{host}:{grpc_port}"
        self._canned = Canned(self.calls, self.troubles, seconds) if canned else None
        self._vertex = Vertex(catalogue, stored, self.calls, self.troubles)
        rest = self._canned.rest if self._canned else rest_front.endpoint(self._vertex, self.calls)
        routes: list[BaseRoute] = [
            *control.routes(self.calls, self.troubles),
            *rest_front.routes(rest),
            *gcs.routes(stored, self.troubles, self.calls),
            *bedrock.routes(calls=self.calls, troubles=self.troubles, catalogue=catalogue, ready=canned),
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
        """Listen. Raises OSError or RuntimeError when a port is taken."""
        self._grpc, grpc_port = grpc_front.server(
            self._vertex, self.calls, self._grpc_address, canned=self._canned
        )
        listener = socket.create_server((self._host, self._http_port), backlog=2048)
        self._grpc.start()
        self._thread = threading.Thread(target=self._http.run, args=([listener],), name="http", daemon=True)
        self._thread.start()
        self.grpc_address = f"{self._host}:{grpc_port}"
        self.http_url = f"http://{self._host}:{listener.getsockname()[1]}"

    def stop(self) -> None:
        """Stop listening and end every call under way."""
        self._http.should_exit = True
        self._grpc.stop(grace=None).wait()
        self._thread.join()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut the connections first: uvicorn would wait for the calls that hang."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)
