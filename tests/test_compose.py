"""docker-compose.yml and the Dockerfile: our services start with exactly the environment of these files.

Docker is not used: the image's command runs as a process, and the containers' addresses and folders are
mapped to local ones.
"""

import json
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml
from pydantic import BaseModel, Field
from sqlalchemy import make_url

from tests.conftest import Machine
from tests.support.server_process import ROOT, free_port, serving

LOGIN = {"username": "ann", "password": "correct horse battery staple"}
PORTS = ("3001", "9090", "9091")


class EnvFile(BaseModel):
    path: str
    required: bool


class Health(BaseModel):
    test: list[str]


class Service(BaseModel):
    image: str
    build: str | None = None
    restart: str | None = None
    profiles: list[str] = []
    command: list[str] | None = None
    env_file: list[EnvFile] = []
    environment: dict[str, str] = {}
    ports: list[str] = []
    healthcheck: Health | None = None
    networks: dict[str, dict[str, str]] = {}


class Pool(BaseModel):
    subnet: str
    gateway: str
    ip_range: str


class Ipam(BaseModel):
    config: list[Pool]


class Network(BaseModel):
    ipam: Ipam


class Compose(BaseModel):
    services: dict[str, Service]
    networks: dict[str, Network] = Field(min_length=1)


TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
AS_WRITTEN = Compose.model_validate(yaml.safe_load(TEXT))
OURS = [name for name, service in AS_WRITTEN.services.items() if service.build]


def service(name: str, **variables: str) -> Service:
    """Returns a service as docker reads it, with these variables in `.env` or the shell."""
    one = AS_WRITTEN.services[name]
    pattern = re.compile(r"\$\{(\w+):-(.*?)\}")
    environment = {
        key: pattern.sub(lambda found: variables.get(found[1]) or found[2], value)
        for key, value in one.environment.items()
    }
    assert "$" not in "".join(environment.values()), "a notation that this test does not know"
    return one.model_copy(update={"environment": environment})


class Image(NamedTuple):
    """The settings of the Dockerfile's last stage."""

    environment: dict[str, str]
    command: list[str]
    healthcheck: list[str]
    links: list[list[str]]


def image() -> Image:
    lines = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    words = [line.split(maxsplit=1) for line in last if line and not line.startswith("#")]
    environment = [pair.split("=", 1) for name, rest in words if name == "ENV" for pair in shlex.split(rest)]
    (command,) = (json.loads(rest) for name, rest in words if name == "CMD")
    (health,) = (json.loads(rest.split("CMD", 1)[1]) for name, rest in words if name == "HEALTHCHECK")
    links = [shlex.split(rest) for name, rest in words if name == "RUN" and rest.startswith("ln ")]
    return Image(dict(environment), command, health, links)


class Container(NamedTuple):
    """One of our services as a process. `here` maps the container's addresses and folders to local ones."""

    folder: Path
    environment: dict[str, str]
    here: Mapping[str, str]

    def mapped(self, words: list[str]) -> list[str]:
        return [_mapped(word, self.here) for word in words]

    def run(self, words: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.mapped(words),
            env=self.environment,
            cwd=self.folder,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
        )

    @contextmanager
    def up(self, of: Service, url: str) -> Iterator[None]:
        """Start the service, and check that its health check succeeds."""
        command = self.mapped(of.command or image().command)
        with serving(command, url, environment=self.environment, folder=self.folder):
            check = of.healthcheck.test[1:] if of.healthcheck else image().healthcheck
            assert self.run(check).returncode == 0
            yield


def container(folder: Path, of: Service, here: Mapping[str, str], env_file: Mapping[str, str]) -> Container:
    """Returns a container whose files are laid out in `folder` as in the Dockerfile. Its volume is
    `folder`/volume."""
    volume = folder / "volume"
    volume.mkdir(parents=True)
    here = {
        **here,
        "/data": str(volume),
        "/venv/bin": str(Path(sys.executable).parent),
        "$PATH": "/usr/bin:/bin",
    }
    images, composes = (
        {name: _mapped(value, here) for name, value in given.items()}
        for given in (image().environment, of.environment)
    )
    made = Container(folder, {**images, **env_file, **composes}, here)
    for name in ("alembic.ini", "alembic", "app"):
        (folder / name).symlink_to(ROOT / name)
    for link in image().links:
        assert made.run(link).returncode == 0
    return made


def _mapped(text: str, here: Mapping[str, str]) -> str:
    """Replaces all names in one pass, so that no replacement is replaced again."""
    pattern = "|".join(rf"(?<!\w){re.escape(name)}\b" for name in here)
    return re.sub(pattern, lambda found: here[found[0]], text)


def add_user(one: Container, name: str) -> None:
    """Adds a user with the command from the head of docker-compose.yml."""
    documented = re.search(rf"docker compose exec {name} (python -m app\.cli users add) ann", TEXT)
    assert documented
    done = one.run([*documented[1].split(), LOGIN["username"], "--password-stdin"], LOGIN["password"])
    assert (done.stdout, done.stderr) == ("Added ann.\n", "")


def picture(url: str) -> str:
    """Log in and make a picture. Returns its URL."""
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health/ready").json()["status"] == "ok"
        token = client.post("/api/v1/auth/login", json=LOGIN).json()["access_token"]
        answer = client.post(
            "/api/v1/image/text-to-image",
            json={"prompt": "A lighthouse"},
            headers={"Authorization": f"Bearer {token}"},
        )
    assert answer.status_code == 200
    return str(answer.json()["images"][0]["url"])


def test_our_services_are_those_that_are_started_here() -> None:
    assert OURS == ["gateway", "replica", "emulator"]


@pytest.mark.parametrize("copied", [False, True], ids=["no .env", "the example as .env"])
def test_the_gateway_starts_and_takes_users(tmp_path: Path, copied: bool) -> None:
    """All its files are on the volume."""
    gateway = service("gateway")
    assert gateway.env_file == [EnvFile(path=".env", required=False)]
    example = re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    one = container(tmp_path / "srv", gateway, {"3001": port}, dict(example) if copied else {})
    with one.up(gateway, f"{url}/health"):
        add_user(one, "gateway")
        assert picture(url).startswith(f"http://localhost:{port}/storage/image-gateway/images/generated/")
    kept = {file.name for file in (tmp_path / "srv/volume").iterdir()}
    assert {"gateway.db", "spool", "objects"} <= kept


@pytest.fixture
def postgres(database_url: str) -> str:
    if make_url(database_url).get_backend_name() == "sqlite":
        assert not Machine().ci, "DATABASE_URL does not name a PostgreSQL"
        pytest.skip("DATABASE_URL does not name a PostgreSQL")
    return database_url


@pytest.fixture
def redis(redis_url: str | None) -> str:
    if redis_url is None:
        assert not Machine().ci, "REDIS_URL is not set"
        pytest.skip("REDIS_URL is not set")
    return redis_url


def test_a_replica_and_its_emulator_start(tmp_path: Path, postgres: str, redis: str) -> None:
    password = secrets.token_hex(32)
    ports = {port: str(free_port()) for port in PORTS}
    here = ports | {
        "emulator:9090": f"127.0.0.1:{ports['9090']}",
        "emulator:9091": f"127.0.0.1:{ports['9091']}",
        f"postgresql://gateway:{password}@postgres/gateway": postgres,
        "redis://redis:6379/0": redis,
    }
    services = {
        name: service(name, JWT_SECRET=secrets.token_hex(32), POSTGRES_PASSWORD=password)
        for name in ("emulator", "replica")
    }
    emulator, replica = (container(tmp_path / name, one, here, {}) for name, one in services.items())
    emulated = f"http://127.0.0.1:{ports['9091']}"
    url = f"http://127.0.0.1:{ports['3001']}"
    with (
        emulator.up(services["emulator"], f"{emulated}/__emulator/calls"),
        replica.up(services["replica"], f"{url}/health"),
    ):
        add_user(replica, "replica")
        # The proxy forwards paths under the bucket's name to the emulator.
        made = picture(url)
        assert made.startswith("http://localhost:3080/image-gateway/")
        assert "handle /image-gateway/*" in (ROOT / "docker/Caddyfile").read_text("utf-8")
        stored = httpx.get(made.replace("http://localhost:3080", emulated))
        assert (stored.status_code, stored.headers["content-type"]) == (200, "image/png")


def test_a_replica_without_a_secret_says_so(tmp_path: Path, postgres: str) -> None:
    replica = service("replica", POSTGRES_PASSWORD="x")
    here = {"postgresql://gateway:x@postgres/gateway": postgres, "3001": str(free_port())}
    done = container(tmp_path / "srv", replica, here, {}).run(image().command)
    assert done.returncode == 1
    assert (
        done.stderr == "The configuration is wrong:\n  settings: CLOUD=live needs: JWT_SECRET or JWKS_URL\n"
    )


def test_no_secret_stands_in_the_file() -> None:
    written = {
        name: value
        for one in AS_WRITTEN.services.values()
        for name, value in one.environment.items()
        if re.search("SECRET|PASSWORD|KEY", name) and value != "rehearsal"
    }
    assert written == {"JWT_SECRET": "${JWT_SECRET:-}", "POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:-}"}
    assert ":x@" in service("replica", POSTGRES_PASSWORD="x").environment["DATABASE_URL"]


@pytest.mark.parametrize("name", AS_WRITTEN.services)
def test_every_service_comes_back_and_is_open_to_this_machine_alone(name: str) -> None:
    one = AS_WRITTEN.services[name]
    assert one.restart == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in one.ports)


def test_replicas_believe_the_proxy_and_nobody_else() -> None:
    """Docker does not give the proxy's address to another container."""
    (pool,) = AS_WRITTEN.networks["default"].ipam.config
    proxy = AS_WRITTEN.services["proxy"].networks["default"]["ipv4_address"]
    assert AS_WRITTEN.services["replica"].environment["FORWARDED_ALLOW_IPS"] == proxy
    assert ip_address(proxy) in ip_network(pool.subnet)
    assert ip_address(proxy) not in ip_network(pool.ip_range)
    assert proxy != pool.gateway
