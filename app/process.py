"""Settings of the process for pictures: thread switching, garbage collection, the C library's memory, files.

And the addresses on which it listens.
"""

import ctypes
import gc
import os
import resource
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address

_SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter. Python's 5 ms, times the uploads under way, is what the event
loop would wait for its turn."""

_COLLECT = (20_000, 20, 20)
"""New objects before a collection, and collections before one that also goes through older objects."""

# mallopt's parameters (glibc's malloc.h) and what they are set to.
_MALLOC = {
    -3: 4 * 1024 * 1024,  # M_MMAP_THRESHOLD: a larger block goes back to the kernel when it is freed
    -1: 16 * 1024 * 1024,  # M_TRIM_THRESHOLD: so much is kept at the heap's end
    -8: 2,  # M_ARENA_MAX: heaps, each of which keeps what its threads have freed
}
"""glibc would start at 128 KB, and pay for fresh pages with every picture; then it learns to keep everything
up to 64 MB, where the holes that a large request leaves are too small for its next step."""


def tune() -> None:
    """Before the gateway's parts are built. Garbage is not collected while they are: see `freeze`."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.disable()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in _MALLOC.items():
            libc.mallopt(parameter, value)


def freeze() -> None:
    """Collect garbage from now on, less often than Python does, and leave out what is there already.

    What the imports made stays: going through it would stop the loop for a tenth of a second each time. With
    Python's own thresholds collecting took an eighth of the CPU of a request.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    gc.enable()


def open_files() -> int:
    """Returns how many files and sockets the process may have open, after raising it to what is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS tells an unlimited number, and refuses it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def open_to_others() -> list[str]:
    """Returns the TCP addresses, other than loopback, on which this process accepts connections."""
    addresses = [address for number in os.listdir("/dev/fd") if (address := _listening_at(int(number)))]
    return [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port in addresses
        if not _is_loopback(host)
    ]


def _listening_at(descriptor: int) -> tuple[str, int] | None:
    """Returns host and port of a listening TCP socket, and None for any other descriptor."""
    try:
        one = socket.socket(fileno=descriptor)
    except OSError:
        return None  # a file
    try:
        if one.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        host, port = one.getsockname()[:2]
        return host, port
    finally:
        one.detach()  # the socket has another owner and must stay open


def _is_loopback(host: str) -> bool:
    address = ip_address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback  # gRPC listens on ::ffff:127.0.0.1
