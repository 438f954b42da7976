"""The parts of authentication, on a migrated database, and a small app around them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.api import auth as routes
from app.api import errors
from app.api.caller import CurrentCaller
from app.api.middleware import RequestLog
from app.contract.auth import Profile
from app.contract.models import load_catalogue
from app.db import User, open_database
from app.pictures.work_folder import WorkFolder
from app.services.auth import Auth, LoginLimits
from app.services.jwks import Jwks
from app.services.keys import Keys
from app.services.limits import RateLimit
from app.services.passwords import Passwords
from app.services.tokens import Tokens
from app.services.users import Users
from app.settings import Settings
from tests.support.signing import SECRET

PASSWORD = "correct horse battery staple"


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
def users(engine: AsyncEngine) -> Users:
    return Users(engine)


@pytest.fixture
async def keys(engine: AsyncEngine) -> AsyncIterator[Keys]:
    keys = Keys(engine, recheck_seconds=0)
    yield keys
    await keys.aclose()


@pytest.fixture
async def ann(users: Users, password_hash: str) -> User:
    return await users.add("ann", password_hash)


@pytest.fixture
def login_limits() -> dict[str, str]:
    """Override to test the limits of logins: `account_and_address`, `account`, `address`."""
    return {}


@pytest.fixture
def jwks() -> Jwks | None:
    """Override to accept an identity provider's tokens."""
    return None


@pytest.fixture
async def auth(
    users: Users,
    keys: Keys,
    passwords: Passwords,
    jwks: Jwks | None,
    login_limits: dict[str, str],
    redis_url: str | None,
) -> AsyncIterator[Auth]:
    """Everything real; our users and keys are looked up at every request."""
    limits = {
        name: RateLimit(login_limits.get(name, ""), name=name, redis_url=redis_url)
        for name in ("account_and_address", "account", "address")
    }
    tokens = Tokens(secret=SECRET, jwks=jwks, issuer="https://idp.example", audience="gateway")
    yield Auth(
        users=users,
        keys=keys,
        passwords=passwords,
        tokens=tokens,
        limits=LoginLimits(**limits),
        recheck_seconds=0,
    )
    await tokens.aclose()
    for limit in limits.values():
        await limit.aclose()


@pytest.fixture
async def auth_client(auth: Auth, work: WorkFolder) -> AsyncIterator[httpx.AsyncClient]:
    """The auth routes, and beside them any POST, which tells who calls."""
    app = FastAPI()
    app.state.parts = SimpleNamespace(settings=Settings(), catalogue=load_catalogue(), auth=auth, work=work)
    app.include_router(routes.router)

    @app.post("/{path:path}")
    async def anything(caller: CurrentCaller) -> Profile:
        return Profile(id=caller.id, username=caller.username, exp=caller.expires)

    errors.install(app)
    app.add_middleware(RequestLog)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    with capture_logs():  # drawing tracebacks takes seconds
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client
