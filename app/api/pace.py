"""Starts few requests at a time, so that a thousand that arrive together do not block the event loop."""

import asyncio
from collections import deque

_AT_A_TIME = 4
"""Requests that start per iteration of the event loop. Each takes about 0.5 ms until its first await."""


class Pace:
    """Starts requests in the order of their arrival, a few per iteration of the event loop."""

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Return when this request may start."""
        loop = asyncio.get_running_loop()
        if self._begun == 0:
            loop.call_soon(self._turn)
        if self._begun < _AT_A_TIME:
            self._begun += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < _AT_A_TIME:
            turn = self._waiting.popleft()
            if not turn.done():  # its request has not been cancelled
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._turn)
