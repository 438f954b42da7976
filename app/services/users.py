"""Reads and changes the users in the database. Every method raises Busy if the database does not answer."""

import unicodedata
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, select, text, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from app.db import User, busy_on_failure

ID_PREFIX = "usr_"
"""The prefix of the ids of this gateway's users. Subjects of other issuers have none."""


MAX_NAME = 128


class UsernameTaken(Exception):
    """A user with this name exists already."""


def fold(username: str) -> str | None:
    """Returns the name in the form in which it is stored and looked up, or None if it is not allowed."""
    if len(username) > MAX_NAME:
        return None
    name = unicodedata.normalize("NFKC", username).casefold()
    fits = 0 < len(name) <= MAX_NAME and name.isprintable() and not any(char.isspace() for char in name)
    return name if fits else None


class Users:
    """The table of users. Usernames must be folded (`fold`). No user has the name None.

    `without`: the id of a user that lookups by name and id ignore.
    """

    def __init__(self, engine: AsyncEngine, *, without: str | None = None) -> None:
        self._engine = engine
        self._found = User.id != without if without else true()
        self._session = async_sessionmaker(engine, expire_on_commit=False)

    async def by_name(self, username: str | None) -> User | None:
        return await self._one(User.username == username)

    async def by_id(self, id: str) -> User | None:
        return await self._one(User.id == id)

    async def all(self) -> Sequence[User]:
        async with busy_on_failure(), self._session() as session:
            return (await session.scalars(select(User).order_by(User.username))).all()

    async def add(self, username: str, password_hash: str, *, id: str | None = None) -> User:
        """Returns the new user. Without `id` it gets a new unique id. Raises UsernameTaken."""
        user = User(
            id=id or ID_PREFIX + uuid.uuid4().hex,
            username=username,
            password_hash=password_hash,
            disabled=False,
            created_at=datetime.now(UTC),
        )
        async with busy_on_failure():
            try:
                async with self._session.begin() as session:
                    session.add(user)
            except IntegrityError as exc:
                raise UsernameTaken(username) from exc
        return user

    async def set_disabled(self, username: str | None, disabled: bool) -> bool:
        """Returns False if there is no such user."""
        return await self._change(User.username == username, disabled=disabled)

    async def set_password_hash(self, username: str | None, password_hash: str) -> bool:
        """Change the password, which ends the user's tokens. Returns False if there is no such user."""
        version = User.password_version + 1
        return await self._change(
            User.username == username, password_hash=password_hash, password_version=version
        )

    async def delete(self, username: str | None) -> bool:
        """Delete the user. Returns False if there is no such user."""
        async with busy_on_failure(), self._session.begin() as session:
            gone = delete(User).where(User.username == username).returning(User.id)
            return (await session.execute(gone)).first() is not None

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Replace the hash of an unchanged password. Does nothing if the password was changed meanwhile."""
        same = (User.id == user.id) & (User.password_hash == user.password_hash)
        await self._change(same, password_hash=password_hash)

    async def ready(self) -> None:
        """Return if the database answers and has its schema."""
        async with busy_on_failure(), self._engine.connect() as connection:
            await connection.execute(text("SELECT 1 FROM users WHERE 1 = 0"))

    async def aclose(self) -> None:
        await self._engine.dispose()

    async def _one(self, condition: ColumnElement[bool]) -> User | None:
        async with busy_on_failure(), self._session() as session:
            return await session.scalar(select(User).where(condition, self._found))

    async def _change(self, condition: ColumnElement[bool], **values: Any) -> bool:
        async with busy_on_failure(), self._session.begin() as session:
            change = update(User).where(condition).values(**values).returning(User.id)
            return (await session.execute(change)).first() is not None
