"""SIGTERM and SIGINT: the first one stops the gateway in order, the second one at once.

uvicorn handles them: it takes no further requests, and waits for those under way, at most for its
`--timeout-graceful-shutdown`. This module also tells the gateway's parts. uvicorn alone would treat a
second SIGTERM like the first one, and go on waiting. A second SIGINT makes it end.
"""

import asyncio
import signal
import threading
from types import FrameType

from app.parts import Parts


def watch(parts: Parts) -> None:
    """Call this on the running loop, after uvicorn has set its handlers."""
    if threading.current_thread() is not threading.main_thread():
        return  # a server in a thread gets no signals
    loop = asyncio.get_running_loop()
    servers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stopping = False

    def received(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        handler = servers[signal.Signals(number)]
        assert callable(handler)  # noqa: S101 - installed for those only
        handler(signal.SIGINT if stopping else number, frame)
        loop.call_soon_threadsafe(parts.hurry if stopping else parts.stop)
        stopping = True

    for number, handler in servers.items():
        if callable(handler):
            signal.signal(number, received)
