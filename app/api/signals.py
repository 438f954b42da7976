"""Handles SIGTERM and SIGINT: the first signal stops the gateway gracefully, the second one at once.

uvicorn's own handlers stop accepting requests and wait for those under way, at most for
`--timeout-graceful-shutdown`. This module also stops the gateway's parts, and passes a second signal to
uvicorn as SIGINT, which ends it: a second SIGTERM would not.
"""

import asyncio
import signal
import threading
from types import FrameType

from app.parts import Parts


def watch(parts: Parts) -> None:
    """Wrap uvicorn's signal handlers. Call this on the running loop, after uvicorn has set them."""
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
        loop.call_soon_threadsafe(parts.stop_now if stopping else parts.stop)
        stopping = True

    for number, handler in servers.items():
        if callable(handler):
            signal.signal(number, received)
