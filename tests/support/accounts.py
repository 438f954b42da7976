"""Fixtures for users, keys and tokens: the parts that production builds, on the test's own database."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.db import User, open_database
from app.services.auth import Auth
from app.services.keys import Keys
from app.services.passwords import Passwords
from app.services.users import Users
from app.settings import EMULATED_ADDRESSES, Settings
from tests.support.signing import PROVIDER_CLAIMS, SECRET

if TYPE_CHECKING:
    from app.parts import Parts

PASSWORD = "correct horse battery staple"
NOWHERE = "http://127.0.0.1:9"
"""The address of vendors and storage, which these tests never call."""


@pytest.fixture(scope="session")
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(threads=1)
    yield passwords
    passwords.close()


@pytest.fixture(scope="session")
def password_hash(passwords: Passwords) -> str:
    return asyncio.run(passwords.hash(PASSWORD))


@pytest.fixture
async def engine(migrated: str) -> AsyncIterator[AsyncEngine]:
    engine = open_database(migrated)
    yield engine
    await engine.dispose()


@pytest.fixture
def account_settings() -> dict[str, Any]:
    """Override to build `parts` with other settings."""
    return {}


@pytest.fixture
async def parts(
    migrated: str, redis_url: str | None, tmp_path: Path, account_settings: dict[str, Any]
) -> "AsyncIterator[Parts]":
    """The parts of a live gateway.

    Users and keys are looked up for every request, not every 30 seconds as in production.
    """
    from app.parts import build  # imported here, as in tests/conftest.py
    from app.plan import plan

    given = {
        "cloud": "live",
        "google_cloud_project": "our-project",
        "gcs_bucket": "our-bucket",
        **dict.fromkeys(EMULATED_ADDRESSES, NOWHERE),
        "anthropic_api_key": "none",
        "database_url": migrated,
        "redis_url": redis_url,
        "data_dir": tmp_path,
        "spool_dir": tmp_path / "spool",
        "jwt_secret": SECRET,
        "jwt_issuer": PROVIDER_CLAIMS["iss"],
        "jwt_audience": PROVIDER_CLAIMS["aud"],
        "login_rate_limit": "",
        "login_account_rate_limit": "",
        "login_address_rate_limit": "",
    }
    async with build(plan(Settings(**{**given, **account_settings}))) as built:
        built.auth._recheck_seconds = built.auth.keys._recheck_seconds = 0
        yield built


@pytest.fixture
def auth(parts: "Parts") -> Auth:
    return parts.auth


@pytest.fixture
async def no_database(auth: Auth) -> AsyncIterator[None]:
    """Disconnects the users from the database."""
    running, auth.users = auth.users, Users(open_database("postgresql+asyncpg://nobody@127.0.0.1:1/no"))
    yield
    await auth.users.aclose()
    auth.users = running


@pytest.fixture
def users(auth: Auth) -> Users:
    return auth.users


@pytest.fixture
def keys(auth: Auth) -> Keys:
    return auth.keys


@pytest.fixture
async def ann(users: Users, password_hash: str) -> User:
    return await users.add("ann", password_hash)


@pytest.fixture
async def auth_client(parts: "Parts") -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway that is built from `parts`."""
    from app.main import create_app  # imported here, as in tests/conftest.py

    app = create_app(parts.settings)
    app.parts = parts
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    with capture_logs():  # rendering tracebacks would take seconds
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client
