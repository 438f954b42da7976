"""The demo user is added once, keeps its password, and cannot log in to a live gateway."""

import asyncio
import re
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from app.db import open_database
from app.emulator.server import Emulator
from app.services.demo import Demo, demo_user
from app.services.passwords import Passwords
from app.services.users import Users
from app.settings import EMULATED_ADDRESSES
from tests.api.conftest import SECRET
from tests.support.gateway_thread import gateway

pytestmark = pytest.mark.anyio


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(threads=1)
    yield passwords
    passwords.close()


@pytest.fixture
async def users(migrated: str) -> AsyncIterator[Users]:
    users = Users(open_database(migrated))
    yield users
    await users.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "folder"


async def matches(passwords: Passwords, demo: Demo) -> bool:
    assert demo.user is not None
    assert demo.password is not None
    return await passwords.verify(demo.user.password_hash, demo.password)


async def test_the_password_is_chosen_once_and_told_at_every_start(
    users: Users, passwords: Passwords, folder: Path
) -> None:
    first = await demo_user(users, passwords, folder)
    assert re.fullmatch("[a-z]{16}", first.password or "")
    assert await matches(passwords, first)
    (file,) = folder.iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("demo-password", 0o600)
    again = await demo_user(users, passwords, folder)
    assert again.password == first.password
    assert [user.username for user in await users.all()] == ["demo"]


async def test_several_processes_at_once_choose_one_password(
    users: Users, passwords: Passwords, folder: Path
) -> None:
    demos = await asyncio.gather(*(demo_user(users, passwords, folder) for _ in range(8)))
    assert len({demo.password for demo in demos}) == 1
    assert await matches(passwords, demos[0])


async def test_two_machines_with_one_database_tell_no_wrong_password(
    users: Users, passwords: Passwords, tmp_path: Path
) -> None:
    demos = await asyncio.gather(*(demo_user(users, passwords, tmp_path / name) for name in "ab"))
    right = [demo for demo in demos if demo.password is not None]
    assert len(right) == 1
    assert await matches(passwords, right[0])


async def test_a_changed_password_stays(users: Users, passwords: Passwords, folder: Path) -> None:
    await demo_user(users, passwords, folder)
    changed = await passwords.hash("a password of their own")
    await users.set_password_hash("demo", changed)
    found = await demo_user(users, passwords, folder)
    assert found.user is not None
    assert (found.user.password_hash, found.password) == (changed, None)


async def test_a_disabled_demo_stays_disabled(users: Users, passwords: Passwords, folder: Path) -> None:
    await demo_user(users, passwords, folder)
    await users.set_disabled("demo", True)
    assert await demo_user(users, passwords, folder) == Demo(None, None)


async def test_an_older_user_of_that_name_is_left_alone(
    users: Users, passwords: Passwords, folder: Path
) -> None:
    await users.add("demo", await passwords.hash("somebody's own password"))
    assert (await demo_user(users, passwords, folder)).password is None
    assert not folder.exists()


async def test_a_new_database_gets_the_kept_password(
    users: Users, passwords: Passwords, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "demo-password").write_text("kept from another day\n")
    demo = await demo_user(users, passwords, folder)
    assert demo.password == "kept from another day"
    assert await matches(passwords, demo)


def greeting(told: str) -> dict[str, str]:
    return dict(re.findall(r"^(Docs|Username|Password|Token) +(\S+)$", told, re.MULTILINE))


def test_what_the_start_tells_works_as_it_stands(
    tmp_path: Path, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"data_dir": tmp_path, "spool_dir": tmp_path / "spool", "database_url": database_url}
    with gateway(**settings) as url:
        told = greeting(capfd.readouterr().out)
        assert told.keys() == {"Docs", "Username", "Password", "Token"}
        login = {"username": told["Username"], "password": told["Password"]}
        logged_in = httpx.post(f"{url}/api/v1/auth/login", json=login)
        profiles = [
            httpx.get(f"{url}/api/v1/auth/profile", headers={"Authorization": f"Bearer {token}"}).json()
            for token in (told["Token"], logged_in.json()["access_token"])
        ]
    assert profiles[0]["username"] == profiles[1]["username"] == "demo"
    with gateway(**settings):
        assert greeting(capfd.readouterr().out)["Password"] == told["Password"]


def test_a_live_gateway_does_without_demo(
    tmp_path: Path,
    database_url: str,
    emulator: Emulator,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it runs on the database and the secret of a gateway on its emulator."""
    settings = {
        "data_dir": tmp_path,
        "spool_dir": tmp_path / "spool",
        "database_url": database_url,
        "jwt_secret": SECRET,
        **dict.fromkeys(EMULATED_ADDRESSES, emulator.http_url),
    }
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # without them the SDKs ask the network
        monkeypatch.setenv(name, "none")
    live = {
        "cloud": "live",
        "google_cloud_project": "acme",
        "gcs_bucket": "acme",
        "anthropic_api_key": "none",
    }
    with gateway(**settings):
        told = greeting(capfd.readouterr().out)
    login = {"username": told["Username"], "password": told["Password"]}
    with gateway(**settings, **live) as url:
        refused = [
            httpx.post(f"{url}/api/v1/auth/login", json=login).status_code,
            httpx.get(
                f"{url}/api/v1/auth/profile", headers={"Authorization": f"Bearer {told['Token']}"}
            ).status_code,
        ]
    assert refused == [401, 401]
    assert greeting(capfd.readouterr().out) == {}
