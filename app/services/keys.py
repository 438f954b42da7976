"""API keys, which programs send instead of a token.

A key is `igw_` and 32 random bytes in hexadecimal digits. The database holds only its SHA-256.
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from app.contract.errors import Forbidden
from app.contract.models import Operation
from app.db import ApiKeyRow, User, busy_on_failure

PREFIX = "igw_"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_SECRET = re.compile(rf"{PREFIX}[0-9a-f]{{64}}")
_AT_A_TIME = 100
_PAUSE_FACTOR = 20


class KeyNameTaken(Exception):
    """A key of this name exists or has existed. Budgets and receipts still refer to it."""


class NoSuchUser(Exception):
    """There is no user with this name."""


@dataclass(frozen=True, slots=True)
class Key:
    """A valid key and what it allows.

    `user` is the id of its user. `operations` and `models` are None if all are allowed. `expires_at` is in
    Unix milliseconds, or None if the key does not expire.
    """

    name: str
    user: str
    operations: frozenset[str] | None = None
    models: frozenset[str] | None = None
    expires_at: int | None = None

    def check_operation(self, operation: Operation) -> None:
        """Raises Forbidden if the key does not allow the operation."""
        if self.operations is not None and operation not in self.operations:
            raise Forbidden(f"This key may not use {operation}")

    def check_model(self, model_id: str) -> None:
        """Raises Forbidden if the key does not allow the model."""
        if self.models is not None and model_id not in self.models:
            raise Forbidden(f"This key may not use model {model_id}")


class Keys:
    """The table of keys. Every method raises Busy if the database does not answer.

    `find` keeps all valid keys in memory and reads the table again after `recheck_seconds`, so a revoked key
    is refused after that time at the latest. An unknown key can be a new one, so it makes `find` read the
    table too, but at most once per `pause_seconds`, and per twenty times the duration of the last read. So
    invented keys cost at most a twentieth of the time, and no memory.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        recheck_seconds: float = 30,
        pause_seconds: float = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = async_sessionmaker(engine, expire_on_commit=False)
        self._recheck_seconds = recheck_seconds
        self._pause_seconds = self._pause = pause_seconds
        self._clock = clock
        self._valid: dict[str, Key] = {}
        self._read_at = -float("inf")
        self._reading: asyncio.Task[None] | None = None

    async def find(self, secret: str) -> Key | None:
        """Returns the key, or None if it is unknown, revoked or expired.

        The lookup by hash does not take constant time. That is safe: an attacker cannot choose the hash of a
        key.
        """
        if not _SECRET.fullmatch(secret):
            return None
        hashed = _hash(secret)
        await self._not_older_than(self._recheck_seconds)
        if hashed not in self._valid:
            await self._not_older_than(self._pause)
        key = self._valid.get(hashed)
        return None if key is None or has_expired(key.expires_at) else key

    async def add(
        self,
        name: str,
        username: str | None,
        *,
        operations: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        expires_at: int | None = None,
    ) -> str:
        """Add a key for a user and return it. It cannot be read again later.

        `name` must match NAME. `username` must be folded (`users.fold`). `expires_at` is in Unix
        milliseconds. Raises NoSuchUser and KeyNameTaken.
        """
        secret = PREFIX + secrets.token_hex(32)
        row = ApiKeyRow(
            name=name,
            hash=_hash(secret),
            operations=None if operations is None else list(operations),
            models=None if models is None else list(models),
            expires_at=expires_at,
            created_at=now(),
        )
        async with busy_on_failure():
            try:
                await self._insert(row, username)
            except IntegrityError as exc:
                raise KeyNameTaken(name) from exc
        return secret

    async def _insert(self, row: ApiKeyRow, username: str | None) -> None:
        async with self._session.begin() as session:
            user = await session.scalar(select(User.id).where(User.username == username))
            if user is None:
                raise NoSuchUser(username)
            row.user = user
            session.add(row)

    async def all(self) -> Sequence[tuple[ApiKeyRow, str | None]]:
        """Returns all keys by name, also revoked and expired ones, each with its username.

        The username is None if the user was deleted.
        """
        listed = (
            select(ApiKeyRow, User.username)
            .outerjoin(User, User.id == ApiKeyRow.user)
            .order_by(ApiKeyRow.name)
        )
        async with busy_on_failure(), self._session() as session:
            return [(key, username) for key, username in await session.execute(listed)]

    async def revoke(self, name: str) -> bool:
        """Refuse the key from now on. Returns False if there is no such key."""
        first = func.coalesce(ApiKeyRow.revoked_at, now())
        revoked = update(ApiKeyRow).where(ApiKeyRow.name == name).values(revoked_at=first)
        async with busy_on_failure(), self._session.begin() as session:
            return (await session.execute(revoked.returning(ApiKeyRow.name))).first() is not None

    async def aclose(self) -> None:
        """Cancel a read that is under way. The engine stays open."""
        if self._reading:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def _not_older_than(self, seconds: float) -> None:
        """Read the table if the keys in memory are older. Concurrent callers share one read."""
        if self._clock() - self._read_at <= seconds:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)  # other requests wait for the same read

    async def _read(self) -> None:
        row = ApiKeyRow
        usable = row.revoked_at.is_(None) & (row.expires_at.is_(None) | (row.expires_at > now()))
        columns = select(row.hash, row.name, row.user, row.operations, row.models, row.expires_at)
        began, valid = self._clock(), {}
        async with busy_on_failure(), self._session() as session:
            found = await session.stream(columns.where(usable))
            async for some in found.partitions(_AT_A_TIME):  # thousands at once would block the event loop
                for hashed, name, user, operations, models, expires_at in some:
                    valid[hashed] = Key(name, user, _set(operations), _set(models), expires_at)
        self._valid, self._read_at = valid, began
        self._pause = max(self._pause_seconds, _PAUSE_FACTOR * (self._clock() - began))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def now() -> int:
    """Returns the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def has_expired(expires_at: int | None) -> bool:
    """Returns whether a key with this `expires_at` has expired."""
    return expires_at is not None and expires_at <= now()


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
