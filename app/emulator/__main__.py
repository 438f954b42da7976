"""`python -m app.emulator` runs the emulated vendors alone, for other clients and for load tests."""

import argparse
import resource
import signal
import threading
from pathlib import Path

from app.contract.models import load_catalogue
from app.emulator.server import Emulator, Listen


def main() -> None:
    """Serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m app.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--grpc-port", type=int, default=9090, help="Vertex AI over gRPC, in plain text")
    parser.add_argument("--http-port", type=int, default=9091, help="everything else, and Vertex AI by REST")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where stored objects are kept")
    parser.add_argument("--models-file", type=Path, help="the catalogue, if not the built-in one")
    parser.add_argument(
        "--canned", action="store_true", help="return pictures made beforehand, for load tests"
    )
    parser.add_argument("--seconds", type=_seconds, default=0, help="how long every model takes")
    options = parser.parse_args()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard_limit, hard_limit)
    )  # a call under way holds a descriptor

    emulator = Emulator(
        catalogue=load_catalogue(options.models_file),
        data_dir=options.data_dir,
        listen=Listen(options.host, options.grpc_port, options.http_port),
        canned=options.canned,
        seconds=options.seconds,
    )
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    emulator.start()
    print(f"VERTEX_ENDPOINT={emulator.http_url}")
    print(f"STORAGE_EMULATOR_HOST={emulator.http_url}")
    print(f"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={emulator.http_url}")
    print(f"ANTHROPIC_BASE_URL={emulator.http_url}")
    print(f"# Vertex AI over gRPC, for Google's own clients: {emulator.grpc_address}", flush=True)
    stopped.wait()
    emulator.stop()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise ValueError
    return seconds


if __name__ == "__main__":
    main()
