"""The user `demo`, with whom a newcomer logs in to a gateway on its emulator."""

import asyncio
import os
import secrets
import string
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from app.db import User
from app.services.passwords import Passwords
from app.services.users import ID_PREFIX, UsernameTaken, Users

NAME = "demo"
DEMO_ID = ID_PREFIX + NAME
"""Known, so that a live gateway on the same database can do without this user."""


class Demo(NamedTuple):
    """The user, or None if it is gone or disabled; its password, or None if it is not the one we chose."""

    user: User | None
    password: str | None


async def demo_user(users: Users, passwords: Passwords, folder: Path) -> Demo:
    """Return the user `demo`, added if there is none. Several processes may call this at once.

    We choose the password once and keep it in `folder`, so that every start can tell it. A user that exists
    is left as it is: whoever changes the password or disables the user has the last word.
    """
    user = await users.by_name(NAME)
    if user is None:
        password = await asyncio.to_thread(_chosen, _file(folder))
        try:
            user = await users.add(NAME, await passwords.hash(password), id=DEMO_ID)
        except UsernameTaken:
            user = await users.by_name(NAME)
    if user is None or user.disabled:
        return Demo(None, None)
    kept = await asyncio.to_thread(_read, _file(folder))
    right = kept is not None and await passwords.verify(user.password_hash, kept)
    return Demo(user, kept if right else None)


def _file(folder: Path) -> Path:
    return folder / "demo-password"


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8").strip()
    except OSError:
        return None


def _chosen(file: Path) -> str:
    """The password in the file. If there is no file, choose one; of several processes one has its way."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=file.parent) as new:  # readable by its owner only
        new.write("".join(secrets.choice(string.ascii_lowercase) for _ in range(16)))
        new.flush()
        with suppress(FileExistsError):
            os.link(new.name, file)  # whole or not at all
    return file.read_text("utf-8").strip()
