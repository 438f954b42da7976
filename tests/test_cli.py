"""The operator's commands, on a real database."""

import asyncio
import getpass
import io
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import cli
from app.db import User, open_database
from app.services.keys import Key, Keys, now
from app.services.passwords import Passwords
from app.services.users import Users
from tests.support.accounts import PASSWORD

Result = tuple[int, str, str]
Run = Callable[..., Result]

CHANGED = "Changed the password of ann: older tokens stop working within 30 seconds.\n"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with one line of standard input; gives exit status, stdout and stderr."""

    def run(*arguments: str, line: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{line}\n"))
        status = cli.main(arguments)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def ann(run: Run, migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated)
    assert run("users", "add", "Ann", "--password-stdin", line=PASSWORD) == (0, "Added ann.\n", "")


def stored(database_url: str) -> User:
    async def look_up() -> User:
        users = Users(open_database(database_url))
        (user,) = await users.all()
        await users.aclose()
        return user

    return asyncio.run(look_up())


def has_password(user: User, password: str) -> bool:
    passwords = Passwords(threads=1)
    right = asyncio.run(passwords.verify(user.password_hash, password))
    passwords.close()
    return right


@pytest.mark.usefixtures("ann")
def test_added_user_can_log_in(migrated: str) -> None:
    user = stored(migrated)
    assert (user.username, user.disabled) == ("ann", False)
    assert has_password(user, PASSWORD)


@pytest.mark.usefixtures("ann")
def test_list(run: Run, migrated: str) -> None:
    user = stored(migrated)
    run("users", "disable", "ann")
    line = f"ann\tdisabled\t{user.created_at:%Y-%m-%d}\t{user.id}\n"
    assert run("users", "list") == (0, line, "")


@pytest.mark.usefixtures("ann")
def test_disable_and_enable(run: Run, migrated: str) -> None:
    disabled = (0, "Disabled Ann: tokens stop working within 30 seconds.\n", "")
    assert run("users", "disable", "Ann") == disabled
    assert stored(migrated).disabled
    assert run("users", "enable", "ann") == (0, "Enabled ann.\n", "")
    assert not stored(migrated).disabled


@pytest.mark.usefixtures("ann")
def test_delete(run: Run) -> None:
    deleted = (0, "Deleted Ann: tokens stop working within 30 seconds.\n", "")
    assert run("users", "delete", "Ann") == deleted
    assert run("users", "list") == (0, "", "")
    assert run("users", "delete", "Ann") == (1, "", "There is no user Ann.\n")


@pytest.mark.usefixtures("ann")
def test_passwd(run: Run, migrated: str) -> None:
    new = "another long password"
    assert run("users", "passwd", "ann", "--password-stdin", line=new) == (
        0,
        CHANGED,
        "",
    )
    assert has_password(stored(migrated), new)


@pytest.mark.usefixtures("ann")
def test_password_is_asked_twice_without_echo(
    run: Run, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["a long password", "another long password", "a third password", "a third password"])
    monkeypatch.setattr(getpass, "getpass", lambda _: next(answers))
    assert run("users", "passwd", "ann") == (1, "", "The two passwords differ.\n")
    assert has_password(stored(migrated), PASSWORD)
    assert run("users", "passwd", "ann") == (0, CHANGED, "")
    assert has_password(stored(migrated), "a third password")


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize(
    ("arguments", "line", "said"),
    [
        pytest.param(("users", "add", "ANN"), PASSWORD, "A user ann exists already.", id="taken"),
        pytest.param(
            ("users", "add", "bob"), "short", "A password has 12 to 1024 characters.", id="short password"
        ),
        pytest.param(
            ("users", "add", "bob"), "x" * 1025, "A password has 12 to 1024 characters.", id="long password"
        ),
        pytest.param(("users", "add", "bob"), "", "A password has 12 to 1024 characters.", id="no password"),
        pytest.param(
            ("users", "add", "b b"),
            PASSWORD,
            "A username has 1 to 128 visible characters and no spaces.",
            id="blank in the name",
        ),
        pytest.param(("users", "passwd", "bob"), PASSWORD, "There is no user bob.", id="password of nobody"),
    ],
)
def test_refused(run: Run, arguments: tuple[str, ...], line: str, said: str) -> None:
    assert run(*arguments, "--password-stdin", line=line) == (1, "", f"{said}\n")


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("users", "disable", "bob"), "There is no user bob.", id="disable nobody"),
        pytest.param(("users", "enable", "bob"), "There is no user bob.", id="enable nobody"),
        pytest.param(("users", "delete", "bob"), "There is no user bob.", id="delete nobody"),
        pytest.param(("users", "disable", "b b"), "There is no user b b.", id="impossible name"),
    ],
)
def test_refused_without_a_password(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert run(*arguments) == (1, "", f"{said}\n")


def test_database_without_tables(run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    status, out, err = run("users", "add", "ann", "--password-stdin", line=PASSWORD)
    assert (status, out) == (1, "")
    assert err.startswith("The database does not answer, or `migrate` was not run: ")
    assert "argon2" not in err
    assert run("migrate") == (0, "", "")
    assert run("users", "add", "ann", "--password-stdin", line=PASSWORD) == (0, "Added ann.\n", "")


@pytest.mark.parametrize("arguments", [("migrate",), ("users", "list")])
def test_database_down(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:hunter2@127.0.0.1:1/nothing")
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("The database does not answer, or `migrate` was not run: ")
    assert "hunter2" not in err


@pytest.mark.usefixtures("ann")
def test_only_the_database_is_needed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `users` commands work without a bucket, key or secret, or with wrong ones."""
    for name, value in {"CLOUD": "live", "JWT_SECRET": "short", "GCS_BUCKET": "Bad!", "PORT": "x"}.items():
        monkeypatch.setenv(name, value)
    status, out, err = run("users", "list")
    assert (status, out.split("\t")[:2], err) == (0, ["ann", "active"], "")


def test_a_wrong_database_url_is_named_and_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://ann:hunter2@db/gateway")
    with pytest.raises(SystemExit) as refusal:
        run("users", "list")
    assert "DATABASE_URL" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_password_is_not_an_argument(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("users", "add", "ann", "--password", PASSWORD)
    capsys.readouterr()


def test_as_a_process(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    root = Path(__file__).parents[1]
    commands = [["migrate"], ["users", "add", "ann", "--password-stdin"], ["users", "list"]]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *command],
            input=PASSWORD,
            cwd=root,
            text=True,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ann\tactive\t")


# ── API keys ─────────────────────────────────────────────────────────────────────────────────────────────


def key_of(database_url: str, secret: str) -> Key | None:
    async def look_up() -> Key | None:
        engine = open_database(database_url)
        try:
            return await Keys(engine).find(secret)
        finally:
            await engine.dispose()

    return asyncio.run(look_up())


@pytest.mark.usefixtures("ann")
def test_added_key_is_printed_once_and_alone(run: Run, migrated: str) -> None:
    model = "imagen-4.0-generate-001"
    limits = ("--operations", "text-to-image, gen", "--models", f"{model},{model}", "--expires", "90d")
    before = now()
    status, out, err = run("keys", "add", "ci", "--user", "Ann", *limits)
    told = "Added ci. This is the only time that the key is shown:\n"
    assert (status, err, re.fullmatch(r"igw_[0-9a-f]{64}\n", out) is not None) == (0, told, True)
    key = key_of(migrated, out.strip())
    assert key
    assert key.expires_at
    assert 0 <= key.expires_at - before - 90 * 86_400_000 < 60_000
    operations = frozenset({"text-to-image", "text2img", "img2img"})
    user = stored(migrated)
    assert key == Key("ci", user.id, operations, frozenset({model}), key.expires_at)


@pytest.mark.usefixtures("ann")
def test_keys_are_listed_and_revoked(run: Run, migrated: str) -> None:
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    _, out, _ = run("keys", "add", "b", "--user", "ann")
    run("keys", "add", "a", "--user", "ann", "--operations", "gen", "--expires", "9999d")
    assert run("keys", "revoke", "b") == (0, "Revoked b: it stops working within a minute.\n", "")
    assert key_of(migrated, out.strip()) is None
    until = f"{datetime.now(UTC) + timedelta(days=9999):%Y-%m-%d}"
    assert run("keys", "list") == (
        0,
        f"a\tactive\t{day}\tann\ttext2img,img2img\tall models\tuntil {until}\n"
        f"b\trevoked\t{day}\tann\tall operations\tall models\tno expiry\n",
        "",
    )
    assert run("keys", "revoke", "c") == (1, "", "There is no key c.\n")


OPERATIONS = (
    "gen, text-to-image, image-upscale, image-edit, image-customize, virtual-try-on, product-recontext"
)


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        pytest.param("a b", (), "A key's name has 1 to 64 of the characters", id="blank in the name"),
        pytest.param("x" * 65, (), "A key's name has 1 to 64 of the characters", id="long name"),
        pytest.param("ci", ("--user", "bob"), "There is no user bob.", id="nobody's"),
        pytest.param(
            "ci",
            ("--operations", "gen,paint"),
            f"There is no operation 'paint'. There are: {OPERATIONS}, text2img, img2img.",
            id="unknown operation",
        ),
        pytest.param("ci", ("--operations", ""), "There is no operation ''.", id="no operation"),
        pytest.param("ci", ("--models", "dall-e"), "There is no model 'dall-e'.", id="unknown model"),
        pytest.param("ci", ("--expires", "soon"), "--expires takes days or hours", id="no time"),
        pytest.param("ci", ("--expires", "0d"), "--expires takes days or hours", id="at once"),
        pytest.param("taken", (), "There is a key taken already, or there was", id="taken"),
    ],
)
def test_refused_key(run: Run, name: str, options: tuple[str, ...], said: str) -> None:
    assert run("keys", "add", "taken", "--user", "ann")[0] == 0
    status, out, err = run("keys", "add", name, "--user", "ann", *options)
    assert (status, out) == (1, "")
    assert err.startswith(said)
    assert err.count("\n") == 1
