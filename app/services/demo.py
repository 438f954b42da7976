"""The user `demo`, for a first login on a gateway with CLOUD=emulator."""

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
from app.services.tokens import Tokens
from app.services.users import ID_PREFIX, UsernameTaken, Users

NAME = "demo"
DEMO_ID = ID_PREFIX + NAME
"""A fixed id, so that a live gateway on the same database can ignore this user."""


class Demo(NamedTuple):
    """The user `demo`. `user` is None if it is disabled, `password` if an operator has changed it."""

    user: User | None
    password: str | None


async def demo_user(users: Users, passwords: Passwords, folder: Path) -> Demo:
    """Returns the user `demo`, which the first call adds. Several processes can call this at the same time.

    The password is made once and kept in `folder`/demo-password, so that every start can print it. An
    existing user is not changed: a new password is kept, and a disabled user stays disabled.
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


def greeting(demo: Demo, tokens: Tokens, base: str) -> str:
    """Returns what the start prints: the address of the docs, a login, a token and a curl line that works.

    `base` is the gateway's own address.
    """
    lines = ["", "Image Gateway on its emulator: no cloud account, no costs.", "", f"Docs      {base}/docs"]
    if demo.user is None:
        lines += ["Login     demo is disabled; add a user: .venv/bin/python -m app.cli users add NAME"]
    else:
        token = tokens.mint(demo.user.id, demo.user.username, demo.user.password_version)
        lines += [
            f"Username  {demo.user.username}",
            f"Password  {demo.password or '(the one that you set)'}",
            f"Token     {token}",
            f"          (for {tokens.lifetime_seconds // 60} minutes; a login gives a new one)",
            "",
            f"curl -s {base}/api/v1/image/text-to-image -H 'Authorization: Bearer {token}' "
            "-H 'Content-Type: application/json' -d '{\"prompt\": \"A lighthouse at dusk\"}'",
        ]
    return "\n".join([*lines, "", ""])


def _file(folder: Path) -> Path:
    return folder / "demo-password"


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8").strip()
    except OSError:
        return None


def _chosen(file: Path) -> str:
    """Returns the password in the file, which the first process writes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=file.parent) as new:  # readable by its owner only
        new.write("".join(secrets.choice(string.ascii_lowercase) for _ in range(16)))
        new.flush()
        with suppress(FileExistsError):
            os.link(new.name, file)  # atomic: the file is complete or not there
    return file.read_text("utf-8").strip()
