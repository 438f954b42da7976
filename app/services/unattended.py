"""Requests that go on after their caller has left: their calls are paid, and their pictures are stored."""

import asyncio
from contextlib import ExitStack, suppress

import structlog

from app.logs import causes
from app.services.paying import Reply

log = structlog.get_logger()


class Unattended:
    """Runs them to their end. A stopping process waits `stop_seconds` for them, then cancels them."""

    def __init__(self, stop_seconds: float) -> None:
        self._stop_seconds = stop_seconds
        self._requests: set[asyncio.Task[Reply]] = set()

    def adopt(self, request: asyncio.Task[Reply], held: ExitStack) -> None:
        """Let the request run. `held` is closed when it has ended."""
        log.info("the caller is not waiting any more: the request goes on")
        self._requests.add(request)

        def ended(_: asyncio.Task[Reply]) -> None:
            self._requests.discard(request)
            held.close()
            if request.cancelled():
                log.warning("a request without its caller was cancelled")
            elif failure := request.exception():
                log.warning("a request without its caller failed", cause=causes(failure))
            else:
                log.info("a request without its caller has ended", status=request.result().status)

        request.add_done_callback(ended)

    def hurry(self) -> None:
        """Cancel all of them. Pictures that have arrived stay on the spool."""
        for request in self._requests:
            request.cancel()

    async def aclose(self) -> None:
        """Wait until all have ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_seconds):
                while self._requests:
                    await asyncio.wait(self._requests)
        self.hurry()
        while self._requests:
            await asyncio.wait(self._requests)
