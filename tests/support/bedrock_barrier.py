"""A Bedrock server that responds with a recorded picture once a number of callers wait together."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_RECORDED = Path(__file__).parents[1] / "recordings/bedrock" / "resp-sdxl-success-1024.json"
_ANSWER = json.dumps(json.loads(_RECORDED.read_text("utf-8"))["response_json"]).encode()
_GIVE_UP_SECONDS = 60


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


@contextmanager
def model_for_many(callers: int) -> Iterator[str]:
    """Yields the server's URL. It sends SDXL's response for all models."""
    together = threading.Barrier(callers, timeout=_GIVE_UP_SECONDS)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            together.wait()
            self.send_response(200)
            self.send_header("content-length", str(len(_ANSWER)))
            self.end_headers()
            self.wfile.write(_ANSWER)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
