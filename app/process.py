"""Tunes the process (thread switching, garbage collection, malloc, open files), and lists open ports."""

import ctypes
import gc
import os
import resource
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address

_SWITCH_SECONDS = 0.001
"""How long a thread can keep the interpreter. With Python's 5 ms, the event loop would wait 5 ms for each
upload under way."""

_COLLECT = (20_000, 20, 20)
"""New objects before a collection, and collections before one that also goes through older objects."""

# mallopt's parameters (glibc's malloc.h) and what they are set to.
_MALLOC = {
    -3: 4 * 1024 * 1024,  # M_MMAP_THRESHOLD: a larger block goes back to the kernel when it is freed
    -1: 16 * 1024 * 1024,  # M_TRIM_THRESHOLD: so much is kept at the heap's end
    -8: 2,  # M_ARENA_MAX: heaps, each of which keeps what its threads have freed
}
"""By default, glibc's M_MMAP_THRESHOLD starts at 128 KB, so that every picture takes fresh pages. Then glibc
raises it, and keeps up to 64 MB of freed memory, in fragments that are too small for the next picture."""


def tune() -> None:
    """Call this before building the gateway's parts. Turns off garbage collection until `freeze`."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.disable()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in _MALLOC.items():
            libc.mallopt(parameter, value)


def freeze() -> None:
    """Turn garbage collection on, with higher thresholds than Python's, for objects made from now on.

    Going through the objects that the imports made would stop the loop for 0.1 s each time. With Python's own
    thresholds, collections took an eighth of the CPU time of a request.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    gc.enable()


def open_files() -> int:
    """Raise the limit of open files and sockets to the hard limit. Returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS reports an unlimited hard limit, and refuses it
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
    """Returns the host and port of a listening TCP socket, or None for any other descriptor."""
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
