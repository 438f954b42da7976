"""Every way a token can be right or wrong, from the header to the response.

The recorded tokens of Nest are in tests/recordings/nest.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.contract.errors import Unauthorized
from app.services.tokens import Tokens
from tests.api.conftest import Start
from tests.support.signing import IN_AN_HOUR, SECRET, ProviderKey, b64url, compact, hs

PROFILE = "/api/v1/auth/profile"
UNAUTHORIZED = {"statusCode": 401, "message": "Unauthorized"}
HS256 = {"alg": "HS256"}
CLAIMS = {"sub": "user-1", "exp": IN_AN_HOUR}
RSA = ProviderKey("rsa-1")


@pytest.fixture(scope="module")
def http(start: Start) -> Iterator[httpx.Client]:
    """Asks a gateway for the profile of a token."""
    with start(jwt_secret=SECRET) as url, httpx.Client(base_url=url) as client:
        yield client


REFUSED = {
    "no exp": compact(HS256, {"sub": "user-1"}, hs()),
    "expired a second ago": compact(HS256, {**CLAIMS, "exp": {"now": -1}}, hs()),
    "exp true": compact(HS256, {**CLAIMS, "exp": True}, hs()),
    "exp a list": compact(HS256, {**CLAIMS, "exp": [9999999999]}, hs()),
    "exp infinite": compact(HS256, b'{"exp":1e999}', hs()),
    "exp NaN": compact(HS256, b'{"exp":NaN}', hs()),
    "nbf null": compact(HS256, {**CLAIMS, "nbf": None}, hs()),
    "nbf true": compact(HS256, {**CLAIMS, "nbf": True}, hs()),
    "nbf tomorrow": compact(HS256, {**CLAIMS, "nbf": {"now": 86_400}}, hs()),
    "alg missing": compact({"typ": "JWT"}, CLAIMS, hs()),
    "alg null": compact({"alg": None}, CLAIMS, hs()),
    "alg a list": compact({"alg": ["HS256"]}, CLAIMS, hs()),
    "alg lower case": compact({"alg": "hs256"}, CLAIMS, hs()),
    "alg HS384 with our secret": compact({"alg": "HS384"}, CLAIMS, hs(digest="sha384")),
    "alg HS512 with our secret": compact({"alg": "HS512"}, CLAIMS, hs(digest="sha512")),
    "alg none without signature": compact({"alg": "none"}, CLAIMS, lambda _: b""),
    "alg none signed": compact({"alg": "none"}, CLAIMS, hs()),
    "alg of a provider, none configured": RSA.token(),
    "alg dir": compact({"alg": "dir"}, CLAIMS, hs()),
    "key confusion, PEM": compact(HS256, CLAIMS, hs(RSA.pem)),
    "crit": compact({**HS256, "crit": ["b64"], "b64": False}, CLAIMS, hs()),
    "crit empty": compact({**HS256, "crit": []}, CLAIMS, hs()),
    "header a list": compact(b"[]", CLAIMS, hs()),
    "header not JSON": compact(b"{", CLAIMS, hs()),
    "header deep": compact(b'{"alg":"HS256","a":' + b"[" * 5000 + b"]" * 5000 + b"}", CLAIMS, hs()),
    "header with a huge number": compact(b'{"alg":"HS256","a":' + b"1" * 5000 + b"}", CLAIMS, hs()),
    "header not UTF-8": compact(b'{"alg":"HS256","a":"\xff"}', CLAIMS, hs()),
    "payload a list": compact(HS256, [CLAIMS], hs()),
    "payload text": compact(HS256, "user-1", hs()),
    "payload null": compact(HS256, None, hs()),
    "payload not JSON": compact(HS256, b"{", hs()),
    "payload not UTF-8": compact(HS256, b'{"sub":"\xff","exp":9999999999}', hs()),
    "payload deep": compact(HS256, b'{"exp":9999999999,"a":' + b"[" * 5000 + b"]" * 5000 + b"}", hs()),
    "padded signature": compact(HS256, CLAIMS, hs()) + "=",
    "junk in the signature": compact(HS256, CLAIMS, hs()) + "!",
    "cut signature": compact(HS256, CLAIMS, hs())[:-4],
    "another secret": compact(HS256, CLAIMS, hs(SECRET + "x")),
    "empty secret": compact(HS256, CLAIMS, hs("")),
    "16 KiB and more": compact(HS256, {**CLAIMS, "pad": "x" * 16384}, hs()),
    "not ASCII": "ä.ö.ü",
}


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in REFUSED.items()])
def test_refused(http: httpx.Client, token: str) -> None:
    answer = http.get(PROFILE, headers=[(b"Authorization", b"Bearer " + token.encode("latin-1"))])
    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("claims", "id", "username"),
    [
        pytest.param({"sub": "user-1"}, "user-1", None, id="text"),
        pytest.param({"sub": 42}, "42", None, id="number"),
        pytest.param({"sub": "Ayu 🌺"}, "Ayu 🌺", None, id="unicode"),
        pytest.param(
            {"sub": "a", "preferred_username": "ayu"}, "a", "ayu", id="provider's name for a username"
        ),
        pytest.param(
            {"sub": "a", "username": 5, "email": "a@b.c"}, "a", "a@b.c", id="first name that is text"
        ),
        pytest.param({"sub": "a", "username": "a\nb"}, "a", None, id="name unfit for logs"),
        pytest.param({"sub": "a", "jti": [], "iat": None, "aud": 7}, "a", None, id="odd claims"),
    ],
)
def test_accepted_caller(http: httpx.Client, claims: dict[str, Any], id: str, username: str | None) -> None:
    expires = 4102444800.5
    token = compact(HS256, {"exp": expires, **claims}, hs())
    answer = http.get(PROFILE, headers={"Authorization": f"Bearer {token}"})
    assert answer.json() == {"id": id, "username": username, "exp": expires}


@pytest.mark.parametrize(
    ("subject", "shared"),
    [
        pytest.param({}, False, id="missing"),
        pytest.param({"sub": None}, False, id="null"),
        pytest.param({"sub": ""}, False, id="empty"),
        pytest.param({"sub": True}, False, id="boolean"),
        pytest.param({"sub": {"a": 1}}, False, id="object"),
        pytest.param({"sub": "a\0b"}, True, id="null byte"),
        pytest.param({"sub": "x" * 256}, True, id="long"),
    ],
)
def test_subject_unfit_for_an_id_is_digested(
    http: httpx.Client, subject: dict[str, Any], shared: bool
) -> None:
    """Two tokens are one caller when they share a subject, and two callers when they have none."""
    ids = []
    for expires in (4102444800, 4102444800, 4102444801):
        token = compact(HS256, {"exp": expires, **subject}, hs())
        answer = http.get(PROFILE, headers={"Authorization": f"Bearer {token}"})
        ids.append(answer.json()["id"])
    assert all(id.startswith("sha256:") for id in ids)
    assert ids[0] == ids[1]
    assert (ids[1] == ids[2]) is shared


def test_signature_over_another_payload_is_refused(http: httpx.Client) -> None:
    head, _, signature = compact(HS256, CLAIMS, hs()).split(".")
    forged = f"{head}.{b64url(b'{}')}.{signature}"
    answer = http.get(PROFILE, headers={"Authorization": f"Bearer {forged}"})
    assert answer.status_code == 401


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["." * 1_000_000, "a" * 1_000_000], ids=["dots", "letters"])
async def test_a_token_of_a_megabyte_is_refused(token: str) -> None:
    """uvicorn refuses such a header itself (431). Another server may let it through."""
    with pytest.raises(Unauthorized):
        await Tokens(secret=SECRET).read(token)


@pytest.mark.anyio
async def test_live_refuses_the_tokens_of_an_emulator_s_gateway() -> None:
    """Also under the same secret. All other issuers are accepted in both modes."""
    live, emulated = Tokens(secret=SECRET), Tokens(secret=SECRET, emulated=True)
    theirs = [
        compact(HS256, {**CLAIMS, **claims}, hs())
        for claims in ({}, {"iss": "https://old.example"}, {"iss": None}, {"iss": 7}, {"iss": "emulator"})
    ]
    for token in (live.mint("user-1", "ann"), *theirs):
        assert [(await tokens.read(token)).subject for tokens in (live, emulated)] == ["user-1", "user-1"]
    rehearsed = emulated.mint("user-1", "ann")
    assert (await emulated.read(rehearsed)).subject == "user-1"
    with pytest.raises(Unauthorized):
        await live.read(rehearsed)
