"""Fixtures of all tests: no network except loopback, default settings, databases, counters, a gateway."""

import asyncio
import gc
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import certifi
import coredis
import httpx
import pytest
from limits.aio.storage import RedisStorage
from pydantic_settings import BaseSettings
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.api.examples import LOGIN
from app.contract.models import load_catalogue
from app.db import Base, migrate, open_database
from app.pictures.blob import Blobs
from app.pictures.work_folder import WorkFolder
from app.services.passwords import Passwords
from app.services.users import Users
from app.settings import DatabaseSettings, PriceSettings, Settings
from tests.pictures.reading import assert_empty

if TYPE_CHECKING:
    from app.emulator.server import Emulator

SERVICES = ("database_url", "redis_url")
"""The settings that tests read from the environment. All other variables of the developer are removed."""

_reached: list[str] = []

pytest_plugins = ["tests.support.accounts"]


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for kind in (Settings, DatabaseSettings, PriceSettings):
        patch.setitem(kind.model_config, "env_file", None)
    for field in Settings.model_fields:
        if field not in SERVICES:
            patch.delenv(field.upper(), raising=False)
    patch.setenv("SSL_CERT_FILE", _one_authority(config))
    sys.addaudithook(_refuse_the_network)
    gc.disable()  # collecting the tests makes no garbage


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection: they stay in memory to the end."""
    gc.freeze()
    gc.enable()


def _one_authority(config: pytest.Config) -> str:
    """Returns a file with a single certificate authority from certifi.

    No test needs more, and reading all of the system's authorities takes each HTTP client 50 ms.
    """
    folder = TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    end = "-----END CERTIFICATE-----\n"
    file = Path(folder.name) / "authority.pem"
    file.write_text(certifi.contents().partition(end)[0] + end)
    return str(file)


def _refuse_the_network(event: str, args: tuple[object, ...]) -> None:
    """Audit hook: raises ConnectionRefusedError for connections to, and look-ups of, other machines.

    Does not see sockets that gRPC and uvloop open in C.
    """
    if event == "socket.connect":
        host = args[1][0] if isinstance(args[1], tuple) else None  # a Unix socket's address is a path
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if host and not _is_here(host.decode() if isinstance(host, bytes) else str(host)):
        _reached.append(str(host))
        raise ConnectionRefusedError(f"a test tried to reach {host}")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(autouse=True)
def only_loopback() -> Iterator[None]:
    """Fail a test that tried to reach the network, even if a library caught the refusal."""
    yield
    reached = ", ".join(_reached)
    _reached.clear()
    assert not reached, f"tried to reach {reached}"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    """A new database without tables: a SQLite file, or one on the server of DATABASE_URL."""
    with _new_database(tmp_path, make_url(Settings().database_url)) as url:
        yield url


@pytest.fixture
def redis_url() -> str | None:
    """REDIS_URL, after deleting all counters there; None without REDIS_URL."""
    url = Settings().redis_url
    if url:
        asyncio.run(_forget_counters(url))
    return url


class Machine(BaseSettings):
    ci: bool = False


@pytest.fixture
def redis(redis_url: str | None) -> str:
    """REDIS_URL, for tests of Redis. Skips without REDIS_URL, and fails in CI."""
    if redis_url is None:
        assert not Machine().ci, "REDIS_URL is not set"
        pytest.skip("REDIS_URL is not set")
    return redis_url


@pytest.fixture
def work(tmp_path: Path) -> Iterator[WorkFolder]:
    """A work folder. Fails if a blob is still open when the test ends."""
    with WorkFolder(tmp_path / "work") as work:
        yield work
        assert_empty(work)


@pytest.fixture
def blobs(work: WorkFolder) -> Iterator[Blobs]:
    """A scope of blobs, like a request's: closed when the test ends."""
    with work.blobs() as blobs:
        yield blobs


class LiveGateway(NamedTuple):
    """A gateway on the embedded emulator, listening on loopback, with one user and a token for that user.

    The user is that of the documentation's login example.
    """

    url: str
    username: str
    password: str
    token: str


@pytest.fixture(scope="session")
def live_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    # Imported here: all vendors' clients take seconds to import, and most tests do not need them.
    from tests.support.gateway_thread import listening, serving

    folder = tmp_path_factory.mktemp("gateway")
    server = make_url(Settings().database_url)
    with _new_database(folder, server) as database, listening() as (listener, url):
        migrate(database)
        asyncio.run(_add_user(database, **LOGIN))
        settings = Settings(
            public_base_url=f"{url}/storage",
            data_dir=folder,
            spool_dir=folder / "spool",
            database_url=database,
            rate_limit="",
            login_rate_limit="",
            login_account_rate_limit="",
            login_address_rate_limit="",
        )
        with serving(listener, settings):
            answer = httpx.post(f"{url}/api/v1/auth/login", json=LOGIN).raise_for_status().json()
            yield LiveGateway(url, token=answer["access_token"], **LOGIN)


Lend = Callable[[URL, Path], AbstractContextManager[str]]
"""Context manager for a database with empty tables on this server, or, for SQLite, in this folder."""


@pytest.fixture(scope="session")
def lend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lend]:
    """Lends databases with empty tables.

    The tables are made once per server: PostgreSQL takes 0.25 s of CPU for them. They are emptied after each
    test. With SQLite, each test has its own copy of the file.
    """
    made: dict[URL, URL] = {}
    with ExitStack() as databases:

        @contextmanager
        def lend(server: URL, folder: Path) -> Iterator[str]:
            if server not in made:
                url = databases.enter_context(_new_database(tmp_path_factory.mktemp("tables"), server))
                migrate(url)
                made[server] = make_url(url)
            original = made[server]
            if original.get_backend_name() == "sqlite":
                copy = shutil.copy(str(original.database), folder / "gateway.db")
                yield f"sqlite+aiosqlite:///{copy}"
            else:
                yield original.render_as_string(hide_password=False)
                emptied = (str(table.delete()) for table in reversed(Base.metadata.sorted_tables))
                asyncio.run(_execute(original, _END_OTHERS, *emptied))

        yield lend


@pytest.fixture
def migrated(lend: Lend, tmp_path: Path) -> Iterator[str]:
    """A database like `database_url`, with empty tables."""
    with lend(make_url(Settings().database_url), tmp_path) as url:
        yield url


@pytest.fixture
def postgres_server() -> str:
    """The URL of a PostgreSQL server. Skips if there is none."""
    configured = Settings().database_url
    local = "postgresql+asyncpg://postgres@127.0.0.1/test"
    url = configured if configured.startswith("postgresql") else local
    try:
        asyncio.run(_execute(make_url(url), "SELECT 1"))
    except OSError:
        pytest.skip("no PostgreSQL server answers")
    return url


@pytest.fixture
def postgres_url(postgres_server: str, lend: Lend, tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL database with empty tables. Skips without a server."""
    with lend(make_url(postgres_server), tmp_path) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, lend: Lend, tmp_path: Path) -> Iterator[str]:
    """A database with empty tables, once on SQLite and once on PostgreSQL, if there is a server."""
    sqlite = request.param == "sqlite"
    server = make_url("sqlite+aiosqlite://" if sqlite else request.getfixturevalue("postgres_server"))
    with lend(server, tmp_path) as url:
        yield url


_END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@contextmanager
def _new_database(folder: Path, server: URL) -> Iterator[str]:
    if server.get_backend_name() == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / 'gateway.db'}"
        return
    name = f"gateway_test_{uuid.uuid4().hex}"
    # Tests do not restart the server, so commits need not wait for the disk, which other tests keep busy.
    no_sync = f"ALTER DATABASE {name} SET synchronous_commit = off"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}", no_sync))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(server: URL, *statements: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()


async def _forget_counters(redis_url: str) -> None:
    pool = coredis.ConnectionPool.from_url(redis_url)
    await RedisStorage(f"async+{redis_url}", connection_pool=pool).reset()  # type: ignore[arg-type]
    pool.disconnect()


async def _add_user(database: str, username: str, password: str) -> None:
    users, passwords = Users(open_database(database)), Passwords(threads=1)
    await users.add(username, await passwords.hash(password))
    await users.aclose()
    passwords.close()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Emulator]":
    """The emulator that all tests share. Tests use `emulator`, which resets it."""
    from app.emulator.server import Emulator  # imported here, as in live_gateway

    emulator = Emulator(catalogue=load_catalogue(), data_dir=tmp_path_factory.mktemp("cloud"))
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def recorded_inputs(cloud: "Emulator") -> None:
    """The objects that the recordings in recordings/vertex/ read."""
    from tests.support.vertex_client import picture, upload  # imported here, as in live_gateway

    for name, format in (("in/a.jpg", "JPEG"), ("in/shoe.jpg", "JPEG"), ("in/photo.png", "PNG")):
        upload(cloud, "my-bucket", name, picture(format=format))


@pytest.fixture
def emulator(cloud: "Emulator") -> "Iterator[Emulator]":
    """The shared emulator, without ordered troubles and recorded calls."""
    cloud.troubles.clear()
    cloud.calls.clear()
    yield cloud
    cloud.troubles.clear()
