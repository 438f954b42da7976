"""`python -m app.cli keys …`: adds, lists and revokes API keys."""

import argparse
import re
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from typing import get_args

from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.command import CommandFailed, Commands, on_database, read_catalogue
from app.contract.models import Operation
from app.environment import read_price_settings
from app.services.keys import NAME, KeyNameTaken, Keys, NoSuchUser, has_expired, now
from app.services.users import fold

_GEN = ("text2img", "img2img")
_OPERATIONS = [operation for operation in get_args(Operation) if operation != "rewrite"]
"""The operations that a key can be limited to. A rewrite is a part of /gen."""
_HOURS = {"h": 1, "d": 24}


def add_to(commands: Commands) -> None:
    keys = commands.add_parser("keys", help="manage API keys")
    verbs = keys.add_subparsers(required=True, metavar="COMMAND")
    listing = verbs.add_parser("list", help="list keys: name, state, day of creation, user and limits")
    listing.set_defaults(command=on_database(_list))
    revoking = verbs.add_parser("revoke", help="revoke a key")
    revoking.set_defaults(command=on_database(_revoke))
    revoking.add_argument("name")
    adding = verbs.add_parser("add", help="add a key and print it")
    adding.set_defaults(command=on_database(_add))
    adding.add_argument("name")
    adding.add_argument(
        "--user", required=True, help="the key's user; what the key spends counts for this user too"
    )
    adding.add_argument(
        "--operations", help=f"separated by commas; default: all of gen, {', '.join(_OPERATIONS)}"
    )
    adding.add_argument("--models", help="ids of the catalogue, separated by commas; default: all")
    adding.add_argument("--expires", help="the lifetime: 90d, 12h; default: no expiry")


async def _add(database: AsyncEngine, options: argparse.Namespace) -> None:
    """Add a key. Prints only the key to standard output, so that a script can read it."""
    if not NAME.fullmatch(options.name):
        raise CommandFailed("A key's name has 1 to 64 of the characters A-Z, a-z, 0-9, dot, - and _.")
    lifetime = _milliseconds(options.expires) if options.expires is not None else None
    try:
        secret = await Keys(database).add(
            options.name,
            fold(options.user),
            operations=_operations(options.operations),
            models=_models(options.models),
            expires_at=now() + lifetime if lifetime else None,
        )
    except NoSuchUser as exc:
        raise CommandFailed(f"There is no user {options.user}.") from exc
    except KeyNameTaken as exc:
        raise CommandFailed(
            f"There is a key {options.name} already, or there was one: its name cannot be used again."
        ) from exc
    print(f"Added {options.name}. This is the only time that the key is shown:", file=sys.stderr)
    print(secret)


async def _list(database: AsyncEngine, _options: argparse.Namespace) -> None:
    for key, username in await Keys(database).all():
        state = "revoked" if key.revoked_at else "expired" if has_expired(key.expires_at) else "active"
        print(
            key.name,
            state,
            _day(key.created_at),
            username or "(deleted)",
            "all operations" if key.operations is None else ",".join(key.operations),
            "all models" if key.models is None else ",".join(key.models),
            f"until {_day(key.expires_at)}" if key.expires_at else "no expiry",
            sep="\t",
        )


async def _revoke(database: AsyncEngine, options: argparse.Namespace) -> None:
    if not await Keys(database).revoke(options.name):
        raise CommandFailed(f"There is no key {options.name}.")
    print(f"Revoked {options.name}: it stops working within a minute.")


def _operations(words: str | None) -> list[str] | None:
    if words is None:
        return None
    named = _split(words)
    _check("operation", named, ["gen", *_OPERATIONS])
    return list(dict.fromkeys(one for word in named for one in (_GEN if word == "gen" else (word,))))


def _models(words: str | None) -> list[str] | None:
    if words is None:
        return None
    named = _split(words)
    _check("model", named, [model.id for model in read_catalogue(read_price_settings()).model])
    return list(dict.fromkeys(named))


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")]


def _check(kind: str, named: Collection[str], known: Collection[str]) -> None:
    for name in named:
        if name not in known:
            raise CommandFailed(f"There is no {kind} {name!r}. There are: {', '.join(known)}.")


def _milliseconds(words: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,3})([hd])", words, re.ASCII)
    if found is None:
        raise CommandFailed("--expires takes days or hours: 90d, 12h.")
    return int(found[1]) * _HOURS[found[2]] * 3_600_000


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"
