"""Finishes requests after their caller has left: their calls are paid for, so their pictures are stored."""

import asyncio
from contextlib import ExitStack, suppress

import structlog

from app.logs import causes
from app.services.paying import Reply

log = structlog.get_logger()


class Unattended:
    """The requests under way without a caller. `aclose` waits `stop_seconds` for them, then cancels them."""

    def __init__(self, stop_seconds: float) -> None:
        self._stop_seconds = stop_seconds
        self._requests: set[asyncio.Task[Reply]] = set()

    def adopt(self, request: asyncio.Task[Reply], held: ExitStack) -> None:
        """Let the request go on. Close `held`, which its response would have closed, when it has ended."""
        log.info("the caller has left: the request goes on")
        self._requests.add(request)

        def ended(_: asyncio.Task[Reply]) -> None:
            self._requests.discard(request)
            held.close()
            if request.cancelled():
                log.warning("a request was cancelled after its caller had left")
            elif failure := request.exception():
                log.warning("a request failed after its caller had left", cause=causes(failure))
            else:
                log.info("a request ended after its caller had left", status=request.result().status)

        request.add_done_callback(ended)

    def cancel_all(self) -> None:
        """Cancel all requests. Pictures that have arrived stay on the spool."""
        for request in self._requests:
            request.cancel()

    async def aclose(self) -> None:
        """Wait until all requests have ended, and cancel those that take longer than `stop_seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_seconds):
                while self._requests:
                    await asyncio.wait(self._requests)
        self.cancel_all()
        while self._requests:
            await asyncio.wait(self._requests)
