"""Hashes and checks passwords with argon2id, in threads."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.contract.errors import Busy
from app.threads import in_executor

T = TypeVar("T")

MIN_LENGTH, MAX_LENGTH = 12, 1024
"""The least and the most characters of a new password."""


class Passwords:
    """Hashes and checks passwords.

    One hash takes about 20 ms of a core and 19 MiB of memory. So at most `threads` run and `max_waiting`
    wait; `hash` and `verify` raise Busy for more.
    """

    def __init__(self, *, threads: int = 2, max_waiting: int = 32) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._free = threads + max_waiting
        self._unknown_users = self._hasher.hash(secrets.token_hex())

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Returns whether the password has this hash. For None (an unknown user), False takes as long."""
        right = await self._run(lambda: self._matches(stored or self._unknown_users, password))
        return right and stored is not None

    def outdated(self, stored: str) -> bool:
        """Returns whether the hash was made with parameters other than the present ones."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        """Returns the result of `work`, run in a thread. Raises Busy if too many calls wait already."""
        if self._free <= 0:
            raise Busy(retry_after=1)
        self._free -= 1
        try:
            return await in_executor(self._threads, work)
        finally:
            self._free += 1


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
