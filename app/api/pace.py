"""Limits how many requests begin at a time, so that a thousand that arrive together do not block the loop."""

import asyncio
from collections import deque

_AT_A_TIME = 4
"""Requests that begin in one turn of the event loop. Each takes half a millisecond until it first waits."""


class Pace:
    """Lets requests begin in the order of their arrival, a few in each turn of the loop."""

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Return when it is this request's turn."""
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
