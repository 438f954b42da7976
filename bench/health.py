"""How long /health takes to respond while a gateway is busy."""

import gc
import multiprocessing
import time

import httpx


class HealthWatch:
    """Measures the longest wait for /health, in milliseconds, from a separate process.

    Uses one connection, on which `__init__` has sent a first request.
    """

    def __init__(self, url: str, every_seconds: float = 0.05) -> None:
        self._pause = every_seconds
        self._begun, self._ended = multiprocessing.Event(), multiprocessing.Event()
        self._longest = multiprocessing.Value("d", 0.0)
        self._process = multiprocessing.Process(target=self._run, args=(url,))
        self._process.start()
        self._begun.wait(30)

    def _run(self, url: str) -> None:
        gc.disable()  # a collection of all inherited modules would take 100 ms
        with httpx.Client(timeout=120) as client:
            client.get(f"{url}/health").raise_for_status()
            self._begun.set()
            while not self._ended.wait(self._pause):
                started = time.perf_counter()
                client.get(f"{url}/health").raise_for_status()
                self._longest.value = max(self._longest.value, (time.perf_counter() - started) * 1000)

    def end(self) -> float:
        self._ended.set()
        self._process.join()
        return float(self._longest.value)
