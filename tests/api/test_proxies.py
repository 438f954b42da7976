"""Whose X-Forwarded-For is believed: `python -m uvicorn app.main:app`, over real sockets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import UVICORN, bare, free_port, serving

NOWHERE = "http://127.0.0.1:1"
ENVIRONMENT = {
    "VERTEX_ENDPOINT": "127.0.0.1:1",
    "STORAGE_EMULATOR_HOST": NOWHERE,
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": NOWHERE,
    "ANTHROPIC_BASE_URL": NOWHERE,
    "LOGIN_ADDRESS_RATE_LIMIT": "2/hour",
}


@contextmanager
def gateway(folder: Path, *options: str, **environment: str) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*UVICORN, f"--port={port}", *options]
    everything = bare(folder) | ENVIRONMENT | environment
    with serving(command, f"{url}/health", environment=everything, folder=folder):
        yield url


def statuses(url: str, *forwarded: str, by: str = "127.0.0.1") -> list[int]:
    """Send one failing login for each X-Forwarded-For, from the address `by`."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=by), base_url=url) as client:
        return [
            client.post(
                "/api/v1/auth/login",
                json={"username": f"user-{n}", "password": "wrong"},
                headers={"X-Forwarded-For": address},
            ).status_code
            for n, address in enumerate(forwarded)
        ]


CALLERS = ("198.51.100.1", "198.51.100.2", "198.51.100.3")


def test_nobody_is_believed_unless_named(tmp_path: Path) -> None:
    """Not even 127.0.0.1, which uvicorn believes by default."""
    with gateway(tmp_path) as url:
        assert statuses(url, *CALLERS) == [401, 401, 429]


@pytest.mark.parametrize("named", ["127.0.0.1,::1", "10.0.0.7, 127.0.0.0/31"])
def test_a_named_proxy_is_believed_and_no_other(tmp_path: Path, named: str) -> None:
    with gateway(tmp_path, FORWARDED_ALLOW_IPS=named) as url:
        assert statuses(url, *CALLERS) == [401, 401, 401]
        assert statuses(url, *CALLERS, by="127.0.0.2") == [401, 401, 429]
        # The caller's own claim comes before the address that the proxy adds.
        claims = [f"203.0.113.{n}, 198.51.100.9" for n in range(3)]
        assert statuses(url, *claims) == [401, 401, 429]


def test_a_proxy_may_be_named_in_env(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FORWARDED_ALLOW_IPS=127.0.0.2\n")
    with gateway(tmp_path) as url:
        assert statuses(url, *CALLERS, by="127.0.0.2") == [401, 401, 401]
        assert statuses(url, *CALLERS) == [401, 401, 429]


def test_a_proxy_may_be_named_to_uvicorn(tmp_path: Path) -> None:
    with gateway(tmp_path, "--forwarded-allow-ips=127.0.0.2") as url:
        assert statuses(url, *CALLERS, by="127.0.0.2") == [401, 401, 401]
        assert statuses(url, *CALLERS) == [401, 401, 429]
