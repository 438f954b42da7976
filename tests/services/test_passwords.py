"""Hashes of passwords are checked in threads, a few at a time."""

import asyncio

import pytest

from app.contract.errors import UpstreamUnavailable
from app.services.passwords import Passwords
from tests.support.accounts import PASSWORD

pytestmark = pytest.mark.anyio


async def test_too_many_logins_at_once_are_told_to_come_back(password_hash: str) -> None:
    passwords = Passwords(threads=1, max_waiting=0)
    attempts = [passwords.verify(password_hash, PASSWORD) for _ in range(2)]
    first, second = await asyncio.gather(*attempts, return_exceptions=True)
    assert first is True
    assert isinstance(second, UpstreamUnavailable)
    assert await passwords.verify(password_hash, PASSWORD)
    passwords.close()


async def test_stored_nonsense_is_no_match(passwords: Passwords) -> None:
    assert not await passwords.verify("not a hash", PASSWORD)
