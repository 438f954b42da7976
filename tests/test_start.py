"""`python -m uvicorn app.main:app`, as an operator starts it."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app import process
from tests.support.gateway_thread import gateway
from tests.support.server_process import ROOT, UVICORN, bare, free_port, serving

LIVE = {
    "CLOUD": "live",
    "JWT_SECRET": "8fd2a1c6e04b97f35d6a1be2c97043fd",
    "GOOGLE_CLOUD_PROJECT": "acme-pictures",
    "GCS_BUCKET": "acme-pictures",
    "ANTHROPIC_API_KEY": "none",
}
SERVICE_ACCOUNT = {
    "type": "service_account",
    "client_email": "gateway@acme.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
    "private_key": "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
}


def refusal(folder: Path, environment: dict[str, str]) -> str:
    """Returns the error text of a gateway that does not start with this environment."""
    done = subprocess.run(
        UVICORN, env=bare(folder) | environment, cwd=folder, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_missing_google_credentials_are_one_sentence(tmp_path: Path) -> None:
    assert refusal(tmp_path, LIVE) == (
        "The configuration is wrong:\n  Google's credentials are missing: set GOOGLE_APPLICATION_CREDENTIALS "
        "to a service account's key file, or give the machine an identity (workload identity, gcloud auth "
        "application-default login)\n"
    )


def test_a_key_file_that_only_env_names_is_found(tmp_path: Path) -> None:
    """Also for storage, whose client by itself looks only in the process's environment."""
    user = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    (tmp_path / "key.json").write_text(json.dumps(user), "utf-8")
    variables = LIVE | {"GOOGLE_APPLICATION_CREDENTIALS": "key.json"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    with serving([*UVICORN, f"--port={port}"], url, environment=bare(tmp_path), folder=tmp_path) as gateway:
        assert gateway.process.poll() is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="no file"),
        pytest.param(b"", id="empty"),
        pytest.param(b"hunter2", id="not JSON"),
        pytest.param(b"\xff\xfe\x00hunter2", id="not text"),
        pytest.param(b'["hunter2"]', id="a list"),
        pytest.param(b'{"private_key": "hunter2"}', id="no type"),
        pytest.param(b'{"type": "service_account"}', id="nothing but the type"),
        pytest.param(json.dumps(SERVICE_ACCOUNT).encode(), id="a broken key"),
        pytest.param(b'{"type": "external_account", "audience": 7}', id="a broken federation"),
    ],
)
def test_a_bad_key_file_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_bytes(content)
    said = refusal(tmp_path, LIVE | {"GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    first, sentence = said.splitlines()
    assert first == "The configuration is wrong:"
    assert sentence.startswith("  GOOGLE_APPLICATION_CREDENTIALS: ")
    assert str(file) in sentence
    assert "hunter2" not in sentence


def test_a_folder_is_no_key_file(tmp_path: Path) -> None:
    said = refusal(tmp_path, LIVE | {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path)})
    assert said.splitlines()[1:] == [
        f"  GOOGLE_APPLICATION_CREDENTIALS: {tmp_path} cannot be read as a key file"
    ]


def test_more_calls_than_open_files_allow_are_one_sentence(tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -n 2000 && exec "$@"', "sh", *UVICORN]
    done = subprocess.run(
        command, env=bare(tmp_path), cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "The configuration is wrong:\n  MAX_CALLS: 2000 calls need 10250 open files, and the system allows "
        "2000, which is enough for 350. Lower MAX_CALLS, or raise the hard limit of open files (ulimit -Hn)\n"
    )


async def fetch_all(port: int, count: int) -> set[bytes]:
    """Open so many connections at once, then send a request on each. Returns the status lines."""
    connections = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(count)))
    for _, writer in connections:
        writer.write(b"GET /health HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
    answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    return {answer.partition(b"\r\n")[0] for answer in answers}


def test_a_thousand_connections_at_once_and_settings_of_yesterday(tmp_path: Path) -> None:
    """With the soft limit of a login shell, and the settings of the version before."""
    assert process.open_files() > 1100
    (tmp_path / ".env").write_text("MAX_INFLIGHT_BYTES=67108864\nMAX_QUEUED_REQUESTS=256\n")
    port = free_port()
    command = ["sh", "-c", 'ulimit -Sn 1024 && exec "$@"', "sh", *UVICORN, f"--port={port}"]
    url = f"http://127.0.0.1:{port}/health"
    with serving(command, url, environment=bare(tmp_path), folder=tmp_path) as running:
        assert asyncio.run(fetch_all(port, 1000)) == {b"HTTP/1.1 200 OK"}
        assert running.says("warning", "MAX_INFLIGHT_BYTES", "MAX_CALLS bounds")
        assert running.says("warning", "MAX_QUEUED_REQUESTS", "MAX_CALLS_PER_USER")


def test_an_emulator_that_others_can_reach_is_warned_of_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    command = [*UVICORN, "--host=0.0.0.0", f"--port={port}"]
    url = f"http://127.0.0.1:{port}/health"
    with serving(command, url, environment=bare(tmp_path), folder=tmp_path) as running:
        assert running.says(f"0.0.0.0:{port}", "warning", "CLOUD=emulator can be reached from other machines")
    said = running.log.read_text("utf-8")
    assert said.count("CLOUD=emulator") == 1


def test_addresses_that_others_can_reach() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)),
        socket.create_server(("::1", 0), family=socket.AF_INET6),
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.socket() as unused,
        socket.socket(socket.AF_INET6) as mapped,
    ):
        mapped.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        mapped.bind(("::ffff:127.0.0.1", 0))
        mapped.listen()
        datagrams.bind(("0.0.0.0", 0))  # noqa: S104
        unused.bind(("0.0.0.0", 0))  # noqa: S104
        assert process.open_to_others() == []
        with socket.create_server(("0.0.0.0", 0)) as four:  # noqa: S104
            port = four.getsockname()[1]
            assert process.open_to_others() == [f"0.0.0.0:{port}"]
            four.settimeout(5)
            with socket.create_connection(("127.0.0.1", port)), four.accept()[0]:
                assert process.open_to_others() == [f"0.0.0.0:{port}"]
        with socket.create_server(("::", 0), family=socket.AF_INET6) as six:
            assert process.open_to_others() == [f"[::]:{six.getsockname()[1]}"]
    assert process.open_to_others() == []


def test_a_login_on_the_emulator_opens_nothing_in_live(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same users under the same secret."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")  # without them the SDKs ask the network
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    nowhere = "http://127.0.0.1:1"
    settings = {name.lower(): value for name, value in LIVE.items()} | {
        "database_url": database_url,
        "vertex_endpoint": "127.0.0.1:1",
        "storage_emulator_host": nowhere,
        "aws_endpoint_url_bedrock_runtime": nowhere,
        "anthropic_base_url": nowhere,
        "spool_dir": tmp_path / "spool",
    }
    login = {"username": "ann", "password": "correct horse battery staple"}
    with gateway(**settings | {"cloud": "emulator"}) as rehearsal, gateway(**settings) as live:
        add_user(tmp_path, database_url, **login)
        statuses = [
            profile(url, httpx.post(f"{issuer}/api/v1/auth/login", json=login).json()["access_token"])
            for issuer in (rehearsal, live)
            for url in (rehearsal, live)
        ]
    assert statuses == [200, 401, 200, 200]


def profile(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{url}/api/v1/auth/profile", headers=headers).status_code


def add_user(folder: Path, database_url: str, username: str, password: str) -> None:
    command = [sys.executable, "-m", "app.cli", "users", "add", username, "--password-stdin"]
    environment = bare(folder) | {"DATABASE_URL": database_url}
    subprocess.run(command, env=environment, input=password.encode(), cwd=ROOT, check=True)


def test_a_start_loads_what_every_gateway_needs() -> None:
    """The rest is loaded by the first who needs it: PostgreSQL's driver, vendors' packages, the emulator."""
    others = {"anthropic", "asyncpg", "boto3", "grpc", "httpx", "google.cloud.storage", "app.emulator.server"}
    program = f"import sys, app.main; print(sorted({others} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
