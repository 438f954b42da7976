"""`port.py [PORT]` prints the port for `make run`, or fails with one line if that port cannot be used.

The argument comes from make's command line or the environment. Without it PORT in `.env` counts, then 3001.
Runs before anything is installed, so it reads `.env` without a library, in the same way as the gateway.
"""

import re
import socket
import sys
from pathlib import Path

DEFAULT = "3001"
_PORT = re.compile(
    r"""\s*(?:export\s+)?(['"]?)PORT\1\s*=\s*(?:'([^']*)'|"([^"]*)"|(.*?))\s*(?:(?<=\s)\#.*)?""",
    re.IGNORECASE,
)


def port_in(file: Path) -> str:
    """Returns the last PORT of a `.env` file, or "" if there is none."""
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    found = [match for line in lines if (match := _PORT.fullmatch(line))]
    return next((value for value in found[-1].groups()[1:] if value), "") if found else ""


def bind(port: int) -> None:
    """Raises OSError if the port cannot be listened on."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))


def free_above(port: int) -> int:
    for other in range(port + 1, 65536):
        try:
            bind(other)
        except OSError:
            continue
        return other
    return int(DEFAULT)


def main(given: str) -> None:
    text = given or port_in(Path(".env")) or DEFAULT
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        sys.exit(f"PORT is {text!r}, not a number from 1 to 65535; choose one: make run PORT={DEFAULT}")
    port = int(text)
    try:
        bind(port)
    except PermissionError:
        sys.exit(f"Port {port} is reserved for root; choose another: make run PORT={free_above(1024)}")
    except OSError:
        sys.exit(f"Port {port} is in use; choose another: make run PORT={free_above(port)}")
    print(port)


if __name__ == "__main__":
    main("".join(sys.argv[1:]))
