"""Logins and profiles over HTTP."""

import time

import httpx
import pytest
from jose import jwt

from app.db import User
from app.services.auth import Auth
from app.services.tokens import Tokens
from app.services.users import Users
from tests.support.accounts import PASSWORD
from tests.support.signing import SECRET

pytestmark = pytest.mark.anyio

ADDRESS = "192.0.2.1"
LOGIN = "/api/v1/auth/login"
PROFILE = "/api/v1/auth/profile"
UNAUTHORIZED = {"statusCode": 401, "message": "Unauthorized"}
FORM = "application/x-www-form-urlencoded"


async def test_json_login_gives_a_token_that_works(auth_client: httpx.AsyncClient, ann: User) -> None:
    answer = await auth_client.post(LOGIN, json={"username": "ann", "password": PASSWORD})
    body = answer.json()
    token = body.pop("access_token")
    assert (answer.status_code, body) == (200, {"token_type": "Bearer", "expires_in": 3600})
    assert answer.headers["cache-control"] == "no-store"
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert claims == {
        "iss": "image-gateway",
        "sub": ann.id,
        "username": "ann",
        "pwv": 0,
        "iat": pytest.approx(time.time(), abs=60),
        "exp": claims["iat"] + 3600,
    }
    profile = await auth_client.get(PROFILE, headers={"Authorization": f"Bearer {token}"})
    assert profile.json() == {"id": ann.id, "username": "ann", "exp": claims["exp"]}


async def test_oauth2_password_form(auth_client: httpx.AsyncClient, ann: User) -> None:
    form = {"grant_type": "password", "username": "ann", "password": PASSWORD, "scope": "", "client_id": "x"}
    answer = await auth_client.post(LOGIN, data=form)
    assert (answer.status_code, answer.json()["token_type"]) == (200, "Bearer")


@pytest.mark.parametrize(
    ("username", "password", "status"),
    [
        pytest.param("ANN", PASSWORD, 200, id="other letter case of the name"),
        pytest.param("\uff41nn", PASSWORD, 200, id="full-width letter in the name"),
        pytest.param("ann", PASSWORD.upper(), 401, id="other letter case of the password"),
        pytest.param("ann", PASSWORD + " ", 401, id="blank after the password"),
        pytest.param("ann ", PASSWORD, 401, id="blank after the name"),
        pytest.param("bob", PASSWORD, 401, id="unknown name"),
        pytest.param("ann\0", PASSWORD, 401, id="null byte in the name"),
        pytest.param("ann", "a\0b", 401, id="null byte in the password"),
        pytest.param("\u202eann", PASSWORD, 401, id="direction mark in the name"),
        pytest.param("x" * 129, PASSWORD, 401, id="long name"),
        pytest.param("ann", "x" * 10_000, 401, id="long password"),
        pytest.param("' OR 1=1 --", "' OR 1=1 --", 401, id="SQL"),
    ],
)
async def test_credentials(
    auth_client: httpx.AsyncClient, ann: User, username: str, password: str, status: int
) -> None:
    answer = await auth_client.post(LOGIN, json={"username": username, "password": password})
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == UNAUTHORIZED


@pytest.mark.parametrize(
    ("body", "media", "sentences"),
    [
        pytest.param(
            "{}",
            "application/json",
            [
                "username should not be empty",
                "username must be a string",
                "password should not be empty",
                "password must be a string",
            ],
            id="nothing",
        ),
        pytest.param(
            '{"username":"ann","password":5}',
            "application/json",
            ["password must be a string"],
            id="a number",
        ),
        pytest.param("username=ann&password=", FORM, ["password should not be empty"], id="form"),
        pytest.param(
            '{"username":["ann"],"password":{"$ne":null}}',
            "application/json",
            ["username must be a string", "password must be a string"],
            id="a list and an object",
        ),
    ],
)
async def test_body_that_breaks_rules(
    auth_client: httpx.AsyncClient, body: str, media: str, sentences: list[str]
) -> None:
    answer = await auth_client.post(LOGIN, content=body, headers={"Content-Type": media})
    expected = {"statusCode": 400, "message": sentences, "error": "Bad Request"}
    assert (answer.status_code, answer.json()) == (400, expected)


async def test_lone_surrogates_are_no_server_error(auth_client: httpx.AsyncClient, ann: User) -> None:
    body = '{"username":"ann","password":"\\ud800"}'
    answer = await auth_client.post(LOGIN, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 401)


async def test_large_body_is_refused(auth_client: httpx.AsyncClient) -> None:
    answer = await auth_client.post(LOGIN, json={"username": "ann", "password": "x" * 16384})
    assert (answer.status_code, answer.json()) == (
        413,
        {"statusCode": 413, "message": "request entity too large"},
    )


async def test_a_disabled_user_cannot_log_in(auth_client: httpx.AsyncClient, users: Users, ann: User) -> None:
    await users.set_disabled("ann", True)
    answer = await auth_client.post(LOGIN, json={"username": "ann", "password": PASSWORD})
    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)


@pytest.mark.usefixtures("no_database")
async def test_without_a_database_logins_and_our_users_tokens_are_unavailable(
    auth_client: httpx.AsyncClient, auth: Auth
) -> None:
    token = auth.tokens.mint("usr_" + "0" * 32, "ann")
    answers = [
        await auth_client.post(LOGIN, json={"username": "ann", "password": PASSWORD}),
        await auth_client.get(PROFILE, headers={"Authorization": f"Bearer {token}"}),
    ]
    for answer in answers:
        expected = {"statusCode": 503, "message": "Service Unavailable"}
        assert (answer.status_code, answer.json()) == (503, expected)
        assert answer.headers["retry-after"] == "5"


async def test_without_a_secret_there_is_no_login(auth_client: httpx.AsyncClient, auth: Auth) -> None:
    auth.tokens = Tokens(secret=None)
    answer = await auth_client.post(LOGIN, json={"username": "ann", "password": PASSWORD})
    expected = {"statusCode": 404, "message": f"Cannot POST {LOGIN}", "error": "Not Found"}
    assert (answer.status_code, answer.json()) == (404, expected)


@pytest.mark.parametrize(
    "account_settings", [pytest.param({"login_rate_limit": "3/hour"}, id="three an hour")]
)
async def test_attempts_with_the_right_password_are_limited_too(
    auth_client: httpx.AsyncClient, ann: User
) -> None:
    for _ in range(3):
        await auth_client.post(LOGIN, json={"username": "ann", "password": "wrong"})
    answer = await auth_client.post(LOGIN, json={"username": "ann", "password": PASSWORD})
    expected = {"statusCode": 429, "message": "ThrottlerException: Too Many Requests"}
    assert (answer.status_code, answer.json()) == (429, expected)
    assert 1 <= int(answer.headers["retry-after"]) <= 3600
