"""A Bedrock that answers every call with a recorded picture after two seconds, to any number of callers."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_RECORDED = Path(__file__).parent / "bedrock-wire" / "resp-sdxl-success-1024.json"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer = json.dumps(json.loads(_RECORDED.read_text())["response_json"]).encode()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        threading.Event().wait(2)
        self.send_response(200)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


@contextmanager
def two_second_model() -> Iterator[str]:
    """Its URL. It speaks SDXL, whichever model is asked."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
