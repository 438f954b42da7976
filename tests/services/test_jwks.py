"""Tokens of an identity provider, whose keys come over HTTP from a real server."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from app.services import jwks as module
from app.services.auth import Auth
from app.services.jwks import Jwks
from tests.support.signing import IN_AN_HOUR, PROVIDER_CLAIMS, ProviderKey, compact, hs

pytestmark = pytest.mark.anyio

RSA, NEXT = ProviderKey("rsa-1"), ProviderKey("rsa-2")
EC = ProviderKey("ec-1", "ES256")


class Provider:
    """Answers every GET with `status` and `body`, once `open` is set; counts them; sets `asked`."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.fetches = 0
        self.asked = threading.Event()
        self.open = threading.Event()
        self.open.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches += 1
                provider.asked.set()
                provider.open.wait()
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(provider.body)))
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"

    def publish(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    provider.publish(RSA.jwk, EC.jwk)
    thread = threading.Thread(target=provider.server.serve_forever, args=(0.01,))
    thread.start()
    yield provider
    provider.open.set()
    provider.server.shutdown()
    thread.join()
    provider.server.server_close()


@pytest.fixture
def account_settings(provider: Provider) -> dict[str, Any]:
    return {"jwks_url": provider.url}


@pytest.fixture
def jwks(auth: Auth) -> Jwks:
    """The gateway's key set. Rests an hour after a fetch, unless a test says not."""
    provider = auth.tokens._provider
    assert provider
    provider.jwks.cooldown_seconds = 3600
    return provider.jwks


Ask = Callable[[str], Any]


@pytest.fixture
def ask(auth_client: httpx.AsyncClient, jwks: Jwks) -> Ask:
    async def ask(token: str) -> int:
        return (
            await auth_client.get("/api/v1/auth/profile", headers={"Authorization": f"Bearer {token}"})
        ).status_code

    return ask


ACCEPTED = {
    "RS256": RSA.token(),
    "ES256": EC.token(),
    "no kid, one key of the algorithm": compact({"alg": "RS256"}, PROVIDER_CLAIMS, RSA.sign),
    "audience in a list": RSA.token({"aud": ["other", "gateway"]}),
    "our own secret beside it": compact({"alg": "HS256"}, {"sub": "a", "exp": IN_AN_HOUR}, hs()),
    "a subject like our users' ids": RSA.token({"sub": "usr_" + "0" * 32}),
}

REFUSED = {
    "another's key under a known kid": RSA.token_signed(NEXT.sign),
    "unknown kid": NEXT.token(),
    "kid of another type": RSA.token(kid="ec-1"),
    "RS512": RSA.token(alg="RS512"),
    "PS256": RSA.token(alg="PS256"),
    "key confusion, PEM": RSA.token_signed(hs(RSA.pem), alg="HS256"),
    "key confusion, JWK": RSA.token_signed(hs(json.dumps(RSA.jwk)), alg="HS256"),
    "key confusion, modulus": RSA.token_signed(hs(RSA.jwk["n"]), alg="HS256"),
    "RS256 signed with our secret": RSA.token_signed(hs(), alg="RS256"),
    "embedded key": NEXT.token_signed(NEXT.sign, jwk=NEXT.jwk),
    "crit": RSA.token(crit=["exp"]),
    "another issuer": RSA.token({"iss": "https://evil.example"}),
    "no issuer": RSA.token({"iss": None}),
    "another audience": RSA.token({"aud": "other"}),
    "audience that holds ours": RSA.token({"aud": "gateway2"}),
    "no audience": RSA.token({"aud": None}),
    "audience of another type": RSA.token({"aud": {"gateway": 1}}),
    "expired": RSA.token({"exp": {"now": -1}}),
    "exp text": RSA.token({"exp": "9999999999"}),
}


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in ACCEPTED.items()])
async def test_accepted(ask: Ask, token: str) -> None:
    assert await ask(token) == 200


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in REFUSED.items()])
async def test_refused(ask: Ask, token: str) -> None:
    assert await ask(token) == 401


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([{**RSA.jwk, "use": "enc"}], id="for encryption"),
        pytest.param([{**RSA.jwk, "key_ops": ["encrypt"]}], id="for other operations"),
        pytest.param([{**RSA.jwk, "key_ops": 5}], id="operations of another type"),
        pytest.param([{**RSA.jwk, "alg": "RS512"}], id="of another algorithm"),
        pytest.param([{**RSA.jwk, "kty": "oct", "k": "c2VjcmV0"}], id="symmetric"),
        pytest.param([{**RSA.jwk, "n": "AQAB"}], id="too short"),
        pytest.param([{**RSA.jwk, "n": "!"}], id="not base64"),
        pytest.param([{**EC.jwk, "kid": "rsa-1", "x": EC.jwk["y"]}], id="not on the curve"),
        pytest.param([{**EC.jwk, "crv": "P-384"}], id="of another curve"),
        pytest.param([None, 5, []], id="no keys at all"),
    ],
)
async def test_key_that_checks_no_signature_of_ours_is_not_used(
    ask: Ask, provider: Provider, keys: list[dict[str, Any]]
) -> None:
    provider.publish(*keys)
    assert (await ask(RSA.token()), await ask(EC.token()), provider.fetches) == (401, 401, 1)


async def test_one_bad_key_does_not_spoil_the_set(ask: Ask, provider: Provider) -> None:
    provider.publish({**NEXT.jwk, "n": "!"}, RSA.jwk)
    assert await ask(RSA.token()) == 200


async def test_keys_are_fetched_once(ask: Ask, provider: Provider) -> None:
    assert [await ask(token) for token in (RSA.token(), EC.token(), RSA.token())] == [200, 200, 200]
    assert provider.fetches == 1


async def test_rotation_is_followed(ask: Ask, provider: Provider, jwks: Jwks) -> None:
    assert await ask(RSA.token()) == 200
    provider.publish(NEXT.jwk)
    jwks.cooldown_seconds = 0
    assert await ask(NEXT.token()) == 200
    assert await ask(RSA.token()) == 401


async def test_a_storm_of_unknown_kids_is_one_fetch(ask: Ask, provider: Provider) -> None:
    provider.open.clear()
    storm = [asyncio.create_task(ask(NEXT.token(kid=f"made-up-{n}"))) for n in range(50)]
    good = asyncio.create_task(ask(RSA.token()))
    await asyncio.to_thread(provider.asked.wait)
    provider.open.set()
    assert set(await asyncio.gather(*storm)) == {401}
    assert await good == 200
    assert {await ask(NEXT.token(kid=f"later-{n}")) for n in range(50)} == {401}
    assert provider.fetches == 1


async def test_a_fetch_under_way_is_shared(provider: Provider, jwks: Jwks) -> None:
    provider.open.clear()
    jwks.cooldown_seconds = 0
    finds = [asyncio.create_task(jwks.find(f"made-up-{n}", "RS256")) for n in range(50)]
    await asyncio.to_thread(provider.asked.wait)
    provider.open.set()
    assert set(await asyncio.gather(*finds)) == {None}
    assert provider.fetches == 1


async def test_one_who_hangs_up_does_not_fail_the_others(ask: Ask, provider: Provider) -> None:
    provider.open.clear()
    impatient, patient = (asyncio.create_task(ask(RSA.token())) for _ in range(2))
    await asyncio.to_thread(provider.asked.wait)
    impatient.cancel()
    await asyncio.wait([impatient])
    provider.open.set()
    assert await patient == 200


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, b"", id="500"),
        pytest.param(302, b"", id="redirect"),
        pytest.param(200, b"<html>", id="not JSON"),
        pytest.param(200, b"[]", id="not an object"),
        pytest.param(200, b'{"keys": 5}', id="no list"),
        pytest.param(200, b'{"keys": []}', id="no keys"),
        pytest.param(200, b'{"keys": []}' + b" " * module.MAX_BYTES, id="too large"),
    ],
)
async def test_last_good_set_stays(
    ask: Ask, provider: Provider, jwks: Jwks, status: int, body: bytes
) -> None:
    assert await ask(RSA.token()) == 200
    provider.status, provider.body = status, body
    jwks.cooldown_seconds = 0
    assert await ask(NEXT.token()) == 401
    assert provider.fetches == 2
    assert await ask(RSA.token()) == 200


async def test_known_keys_do_not_wait_for_a_hanging_provider(
    ask: Ask, provider: Provider, jwks: Jwks
) -> None:
    assert await ask(RSA.token()) == 200
    provider.open.clear()
    jwks.max_age_seconds = 0
    assert await ask(RSA.token()) == 200


async def test_fetch_that_hangs_is_given_up(
    ask: Ask, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.05)
    provider.open.clear()
    assert await ask(RSA.token()) == 401


async def test_ready_once_there_are_keys(provider: Provider, jwks: Jwks) -> None:
    jwks.cooldown_seconds = 0
    provider.status = 500
    with pytest.raises(LookupError):
        await jwks.ready()
    provider.status = 200
    await jwks.ready()
