"""Google's tokens: fetched in a thread, one at a time, and early."""

import asyncio
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from google.auth import exceptions
from google.auth.credentials import Credentials
from google.oauth2.credentials import Credentials as UserCredentials

from app.contract import errors
from app.providers.vertex.credentials import Bearer

pytestmark = pytest.mark.anyio

AHEAD = timedelta(hours=1)
SOON = timedelta(minutes=1)


class Counting(Credentials):
    """Gives token-1, token-2 …, which last for `lasting`. A refresh waits for `gate` and sets `ended`."""

    def __init__(self, lasting: timedelta = AHEAD, failures: list[Exception] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gate = threading.Event()
        self.gate.set()
        self.ended = threading.Event()
        self.refreshed = 0
        self.under_way = 0
        self.threads: list[threading.Thread] = []
        self.failures = failures or []
        self.lasting = lasting

    def refresh(self, request: Callable[..., object]) -> None:
        self.refreshed += 1
        self.under_way += 1
        assert self.under_way == 1, "one refresh at a time"
        self.threads.append(threading.current_thread())
        self.gate.wait(10)
        self.under_way -= 1
        try:
            if self.failures:
                raise self.failures.pop(0)
            self.token = f"token-{self.refreshed}"
            self.expiry = (datetime.now(UTC) + self.lasting).replace(tzinfo=None)
        finally:
            self.ended.set()


def authorization(headers: dict[str, str]) -> str:
    return headers["authorization"]


def failing(kind: type[Exception], cause: Exception | None = None, **how: object) -> Exception:
    error = kind("secret", **how)
    error.__cause__ = cause
    return error


async def test_token_is_fetched_once_and_off_the_loop() -> None:
    credentials = Counting()
    bearer = Bearer(credentials)
    for _ in range(3):
        assert await bearer.headers() == {"authorization": "Bearer token-1"}
    assert credentials.refreshed == 1
    assert threading.main_thread() not in credentials.threads


async def test_many_callers_share_one_refresh() -> None:
    credentials = Counting()
    credentials.gate.clear()
    bearer = Bearer(credentials)
    waiting = [asyncio.create_task(bearer.headers()) for _ in range(20)]
    await asyncio.sleep(0)
    credentials.gate.set()
    assert set(map(authorization, await asyncio.gather(*waiting))) == {"Bearer token-1"}
    assert credentials.refreshed == 1


async def test_a_caller_who_leaves_does_not_end_the_refresh_of_others() -> None:
    credentials = Counting()
    credentials.gate.clear()
    bearer = Bearer(credentials)
    leaving, staying = (asyncio.create_task(bearer.headers()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait((leaving,))
    credentials.gate.set()
    assert authorization(await staying) == "Bearer token-1"
    assert credentials.refreshed == 1


async def test_token_about_to_expire_is_used_while_the_next_one_comes() -> None:
    credentials = Counting(SOON)
    bearer = Bearer(credentials)
    assert authorization(await bearer.headers()) == "Bearer token-1"
    credentials.gate.clear()
    credentials.lasting = AHEAD
    for _ in range(3):
        assert authorization(await bearer.headers()) == "Bearer token-1"
    credentials.ended.clear()
    credentials.gate.set()
    await asyncio.to_thread(credentials.ended.wait, 10)
    assert authorization(await bearer.headers()) == "Bearer token-2"
    assert credentials.refreshed == 2


async def test_failed_refresh_of_a_token_that_is_still_good_harms_nobody() -> None:
    credentials = Counting(SOON)
    bearer = Bearer(credentials)
    await bearer.headers()
    credentials.failures.append(failing(exceptions.RefreshError))
    credentials.ended.clear()
    assert authorization(await bearer.headers()) == "Bearer token-1"
    await asyncio.to_thread(credentials.ended.wait, 10)
    assert authorization(await bearer.headers()) == "Bearer token-1"


async def test_expired_token_is_never_sent() -> None:
    credentials = Counting()
    credentials.token = "old"
    credentials.expiry = (datetime.now(UTC) - SOON).replace(tzinfo=None)
    assert authorization(await Bearer(credentials).headers()) == "Bearer token-1"


async def test_project_that_pays_is_named() -> None:
    credentials = UserCredentials("token", quota_project_id="payer")  # type: ignore[no-untyped-call]
    assert await Bearer(credentials).headers() == {
        "authorization": "Bearer token",
        "x-goog-user-project": "payer",
    }


@pytest.mark.parametrize(
    ("failure", "meaning"),
    [
        (failing(exceptions.RefreshError, retryable=True), errors.UpstreamUnavailable),
        (failing(exceptions.TransportError), errors.UpstreamUnavailable),
        (failing(exceptions.RefreshError, failing(exceptions.TransportError)), errors.UpstreamUnavailable),
        (failing(exceptions.RefreshError), errors.UpstreamFailed),
        (failing(exceptions.DefaultCredentialsError), errors.UpstreamFailed),
        (failing(ValueError), errors.UpstreamFailed),
        (failing(OSError), errors.UpstreamFailed),
    ],
)
async def test_failure_is_told_to_all_who_wait_and_tried_again_by_the_next(
    failure: Exception, meaning: type[errors.GatewayError], caplog: pytest.LogCaptureFixture
) -> None:
    credentials = Counting(failures=[failure])
    credentials.gate.clear()
    bearer = Bearer(credentials)
    waiting = [asyncio.create_task(bearer.headers()) for _ in range(3)]
    await asyncio.sleep(0)
    credentials.gate.set()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in told] == [meaning] * 3
    assert len(set(map(id, told))) == 3
    for one in told:
        assert isinstance(one, errors.GatewayError)
        assert (one.vendor_code, one.__cause__) == (type(failure).__name__, failure)
        assert "secret" not in one.message
    assert "secret" not in caplog.text
    assert authorization(await bearer.headers()) == "Bearer token-2"


async def test_googles_server_of_tokens_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    credentials = UserCredentials(  # type: ignore[no-untyped-call]
        None,
        refresh_token="r",
        token_uri=f"http://127.0.0.1:{port}/token",
        client_id="c",
        client_secret="s",
    )
    with pytest.raises(errors.UpstreamUnavailable) as away:
        await Bearer(credentials).headers()
    assert away.value.retry_after == 10
