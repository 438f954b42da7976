"""A gateway in front of the shared emulator, whose recorded calls the tests can read."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from jose import jwt

from app.emulator.server import Emulator
from app.settings import EMULATED_ADDRESSES, Settings
from tests.support.gateway_thread import listening, serving

SECRET = "a secret that only the tests know, 32 or more"

Start = Callable[..., AbstractContextManager[str]]


def token(**claims: Any) -> str:
    return str(jwt.encode({"sub": "user-1", "exp": int(time.time()) + 3600, **claims}, SECRET, "HS256"))


@pytest.fixture(scope="session")
def start(cloud: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts gateways in front of the shared emulator. Keyword arguments are settings, and `clock`."""

    @contextmanager
    def start(*, clock: Callable[[], int] | None = None, **settings: Any) -> Iterator[str]:
        folder = tmp_path_factory.mktemp("gateway")
        all_settings = Settings(
            **{
                **dict.fromkeys(EMULATED_ADDRESSES, cloud.http_url),
                "public_base_url": cloud.http_url,
                "jwt_secret": SECRET,
                "database_url": f"sqlite:///{folder / 'gateway.db'}",
                "redis_url": None,
                "spool_dir": folder / "spool",
                "data_dir": folder,
                "rate_limit": "",
                **settings,
            }
        )
        with listening() as (listener, url), serving(listener, all_settings, clock):
            yield url

    return start


class Client(NamedTuple):
    """Posts JSON to one gateway with a valid token."""

    http: httpx.Client

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers=headers)

    def text_to_image(self, prompt: str, **fields: Any) -> httpx.Response:
        return self.post("/api/v1/image/text-to-image", {"prompt": prompt, **fields})


def client_of(url: str) -> Client:
    return Client(httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token()}"}, timeout=30))


@pytest.fixture(scope="session")
def gateway_url(start: Start) -> Iterator[str]:
    with start() as url:
        yield url


@pytest.fixture
def client(gateway_url: str, emulator: Emulator) -> Iterator[Client]:
    client = client_of(gateway_url)
    yield client
    client.http.close()


__all__ = ["Client", "Start", "client_of", "token"]
