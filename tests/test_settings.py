"""Settings: `.env.example` tells the truth, and a wrong or missing variable is named."""

import base64
import random
import re
import uuid
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.environment import read_database_url, read_settings, replaced
from app.main import create_app
from app.settings import EXAMPLE_SECRET, DatabaseSettings, Settings

EXAMPLE = Path(__file__).parents[1] / ".env.example"
LIVE = {
    "cloud": "live",
    "jwt_secret": "a secret of thirty-two characters",
    "google_cloud_project": "acme-pictures",
    "gcs_bucket": "acme-pictures",
    "anthropic_api_key": "sk-ant-none",
}


def test_example_names_every_setting_in_order() -> None:
    names = re.findall(r"^(\w+)=", EXAMPLE.read_text("utf-8"), re.MULTILINE)
    assert names == [field.upper() for field in Settings.model_fields]


def test_example_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    # conftest's DATABASE_URL and REDIS_URL of a service run are not defaults.
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert Settings(_env_file=EXAMPLE) == Settings()


def test_private_pictures_are_kept_in_the_data_folder_unless_set() -> None:
    assert Settings(data_dir=Path("/data")).private_place == "/data/private"
    for place in ("/mnt/shared", "gs://ours-private", "gs://ours-private/a/b.c/", "gs://image-gateway-2"):
        assert Settings(private_store=place).private_place == place


@pytest.mark.parametrize(
    ("place", "said"),
    [
        pytest.param("gs://ours", "PRIVATE_STORE is in GCS_BUCKET, which", id="bucket"),
        pytest.param("gs://ours/a", "PRIVATE_STORE is in GCS_BUCKET, which", id="in it"),
        pytest.param("gs://inputs/a/b", "overlaps GCS_ALLOWED_PREFIXES", id="under a prefix"),
        pytest.param("gs://inputs", "overlaps GCS_ALLOWED_PREFIXES", id="over a prefix"),
        pytest.param("gs://b/../a", "must be a folder, or gs://bucket", id="dots"),
        pytest.param("gs://", "must be a folder, or gs://bucket", id="no bucket"),
        pytest.param("s3://theirs", "must be a folder, or gs://bucket", id="another store"),
    ],
)
def test_private_pictures_are_kept_where_nobody_else_reads(place: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(gcs_bucket="ours", gcs_allowed_prefixes="gs://ours, gs://inputs/a", private_store=place)


def test_live_starts_with_what_it_needs() -> None:
    assert Settings.model_validate(LIVE).cloud == "live"


def test_live_needs_no_key_of_anthropic_s_when_another_serves_claude() -> None:
    given = {name: value for name, value in LIVE.items() if name != "anthropic_api_key"}
    assert Settings.model_validate(given | {"claude_via": "bedrock"}).claude_via == "bedrock"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"jwt_secret": None}, "JWT_SECRET", id="no secret"),
        pytest.param({"jwt_secret": EXAMPLE_SECRET}, "JWT_SECRET", id="the example's secret"),
        pytest.param({"jwt_secret": "short"}, "JWT_SECRET", id="a short secret"),
        pytest.param({"google_cloud_project": None}, "GOOGLE_CLOUD_PROJECT", id="no project"),
        pytest.param({"gcs_bucket": None}, "GCS_BUCKET", id="no bucket"),
        pytest.param({"gcs_bucket": ""}, "GCS_BUCKET", id="an empty bucket"),
        pytest.param({"anthropic_api_key": None}, "ANTHROPIC_API_KEY", id="no key for Claude"),
    ],
)
def test_live_refuses_and_names_the_variable(change: dict[str, str | None], named: str) -> None:
    given = {name: value for name, value in (LIVE | change).items() if value is not None}
    with pytest.raises(ValidationError, match=named):
        Settings.model_validate(given)


def test_live_takes_the_example_s_names_when_they_are_set() -> None:
    """Only the example secret is refused: with it everybody could sign tokens."""
    settings = Settings.model_validate(
        LIVE | {"gcs_bucket": "image-gateway", "google_cloud_project": "emulated-project"}
    )
    assert (settings.gcs_bucket, settings.google_cloud_project) == ("image-gateway", "emulated-project")


def test_a_copied_example_does_not_name_a_bucket_in_live() -> None:
    with pytest.raises(ValidationError, match="GOOGLE_CLOUD_PROJECT; GCS_BUCKET;"):
        Settings(_env_file=EXAMPLE, cloud="live")


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        pytest.param(EXAMPLE_SECRET, "not the example's", id="the example"),
        pytest.param(f"  {EXAMPLE_SECRET}\n", "not the example's", id="the example and blanks"),
        pytest.param(f"{EXAMPLE_SECRET}1", "not the example's", id="the example and a digit"),
        pytest.param("short" + 40 * " ", "of 32 characters", id="blanks do not count"),
        pytest.param(64 * "x", "hard to guess", id="one letter"),
        pytest.param(63 * "x" + "y", "hard to guess", id="one letter and another"),
        pytest.param(20 * "ab", "hard to guess", id="two letters in turn"),
        pytest.param("ab" + 10 * "aabba" + "abba", "hard to guess", id="two letters"),
        pytest.param(4 * "password", "hard to guess", id="a word repeated"),
        pytest.param("1234567890" * 3 + "12", "hard to guess", id="digits in turn"),
        pytest.param(2 * "0123456789abcdef", "hard to guess", id="sixteen characters repeated"),
        pytest.param("abcdefghijklmnopqrstuvwxyz012345", "hard to guess", id="the alphabet"),
        pytest.param("zyxwvutsrqponmlkjihgfedcba9876543210", "hard to guess", id="the alphabet backwards"),
    ],
)
def test_live_refuses_a_weak_secret_without_telling_it(secret: str, said: str) -> None:
    with pytest.raises(ValidationError, match=f"CLOUD=live needs: a JWT_SECRET .*{said}") as refused:
        Settings.model_validate(LIVE | {"jwt_secret": secret})
    assert secret.strip() not in str(refused.value)
    provider = {"jwks_url": "https://id.example.com/keys", "jwt_issuer": "i", "jwt_audience": "a"}
    if secret != EXAMPLE_SECRET:  # with a provider, live ignores the example secret
        with pytest.raises(ValidationError, match=said):
            Settings.model_validate({**LIVE, **provider, "jwt_secret": secret})
    assert Settings(jwt_secret=secret).signing_secret == secret


def test_live_takes_what_generators_make() -> None:
    dice = random.Random(8)
    for _ in range(200):
        raw = dice.randbytes(16)
        for secret in (raw.hex(), str(uuid.UUID(bytes=raw)), base64.b64encode(raw + raw[:8]).decode()):
            Settings.model_validate(LIVE | {"jwt_secret": secret})


def test_live_names_everything_it_lacks_at_once() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(cloud="live")
    assert all(name in str(refused.value) for name in ("JWT_SECRET", "GOOGLE_CLOUD_PROJECT", "GCS_BUCKET"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_limit": "sixty"},
        {"login_rate_limit": "x"},
        {"login_account_rate_limit": "x"},
        {"login_address_rate_limit": "x"},
        {"redis_url": "foo"},
        {"database_url": "mysql://x"},
        {"jwks_url": "foo"},
        {"gcs_bucket": "Bad_Bucket!"},
        {"cors_origins": "app.example.com"},
        {"request_timeout_seconds": "soon"},
        {"budget": "5 USD"},
        {"receipt_days": "0"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_value_ends_the_start_with_its_name(
    wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = wrong
    monkeypatch.setenv(name.upper(), wrong[name])
    with pytest.raises(SystemExit, match=f"(?s)wrong:.*  {name.upper()}: "):
        read_settings()


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.env` in the working folder."""
    monkeypatch.chdir(tmp_path)
    for kind in (Settings, DatabaseSettings):
        monkeypatch.setitem(kind.model_config, "env_file", ".env")
    return tmp_path / ".env"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("GCS_BUKET", "GCS_BUCKET"),
        ("CORS_ORIGIN", "CORS_ORIGINS"),
        ("cors_origin", "CORS_ORIGINS"),
        ("JWT_SERCET", "JWT_SECRET"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("PROT", "PORT"),
        ("REDIS_URI", "REDIS_URL"),
        ("AWS_REGOIN", "AWS_REGION"),
        ("ANTHROPIC_API_KEYS", "ANTHROPIC_API_KEY"),
        ("GOOGLE_APPLICATION_CREDENTIAL", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("RATE_LIMITS", "RATE_LIMIT"),
    ],
)
def test_a_misspelt_variable_in_env_is_named_with_the_right_one(dotenv: Path, wrong: str, right: str) -> None:
    dotenv.write_text(f"{wrong}=x\nPORT=http\n")
    with pytest.raises(SystemExit) as refused:
        read_settings()
    first, misspelt, bad_value = str(refused.value).splitlines()
    assert first == "The configuration is wrong:"
    assert misspelt == f"  {wrong.upper()}: .env has it, but there is no such setting. Did you mean {right}?"
    assert bad_value.startswith("  PORT: ")


# fmt: off
OTHERS = [
    "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK", "AWS_EC2_METADATA_DISABLED",
    "AWS_ENDPOINT_URL_BEDROCK", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME",
    "AWS_REGION_NAME", "GCLOUD_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT", "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON", "GOOGLE_API_KEY", "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL", "ANTHROPIC_VERTEX_PROJECT_ID",
    "ANTHROPIC_MODEL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "MALLOC_ARENA_MAX",
    "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "WEB_CONCURRENCY", "UVICORN_HOST",
    "UVICORN_PORT", "UVICORN_WORKERS", "POSTGRES_PASSWORD", "POSTGRES_USER", "PGHOST", "HOST", "HOME",
    "PATH", "LANG", "TZ", "USER", "DEBUG", "PYTHONPATH", "COMPOSE_PROJECT_NAME", "S3_REGION", "REDIS_PORT",
    "DB_URL", "SMTP_PORT", "AWS_BUCKET", "OSS_BUCKET", "COS_BUCKET", "GCS_REGION", "POOL_DIR", "A",
]
# fmt: on


def test_other_variables_in_env_are_left_alone(dotenv: Path) -> None:
    dotenv.write_text("\n".join(f"{name}=x" for name in OTHERS) + "\nGCS_BUCKET=ours\n")
    assert read_settings().gcs_bucket == "ours"


def test_a_misspelt_variable_of_the_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCS_BUKET", "x")
    read_settings()


def test_the_command_line_asks_for_the_database_alone(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    dotenv.write_text("CLOUD=live\nPORT=http\nGCS_BUKET=x\nDATABASE_URL=postgres://db/gateway\n")
    assert read_database_url() == "postgresql+asyncpg://db/gateway"
    dotenv.write_text("DATABASE_ULR=postgres://db/gateway\n")
    with pytest.raises(SystemExit, match=r"DATABASE_ULR: .* DATABASE_URL\?"):
        read_database_url()


def test_variables_of_earlier_versions_are_named(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert replaced() == {}
    dotenv.write_text("MAX_INFLIGHT_BYTES=1\n")
    monkeypatch.setenv("MAX_QUEUED_REQUESTS", "0")
    read_settings()
    assert list(replaced()) == ["MAX_INFLIGHT_BYTES", "MAX_QUEUED_REQUESTS"]
    monkeypatch.setenv("MAX_QUEUED_REQUESTS", "")
    assert list(replaced()) == ["MAX_INFLIGHT_BYTES"]


@pytest.mark.parametrize(("timeout", "seconds"), [(120, 5), (20, 5), (8, 2)])
def test_a_call_needs_seconds_but_never_more_than_a_quarter(timeout: float, seconds: float) -> None:
    assert Settings(request_timeout_seconds=timeout).min_seconds == seconds


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ("", []),
        ("*", ["*"]),
        (
            " https://app.example.com ,http://localhost:5173,",
            ["https://app.example.com", "http://localhost:5173"],
        ),
        ("capacitor://localhost,http://[::1]:3000", ["capacitor://localhost", "http://[::1]:3000"]),
    ],
)
def test_origins(given: str, allowed: list[str]) -> None:
    assert Settings(cors_origins=given).allowed_origins == allowed


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com/",
        "https://app.example.com/app",
        "https://app.example.com?x",
        "https://",
        "app.example.com",
        "app.example.com:8080",
        "//app.example.com",
        "https://App.example.com",
        "https://*.example.com",
        "https://ann:secret@app.example.com",
        "null",
        "*",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(cors_origins=f"https://good.example.com,{origin}")
    (error,) = refused.value.errors()
    assert (error["loc"], error["msg"].count(f"{origin} is not an origin.")) == (("cors_origins",), 1)


@pytest.mark.parametrize("proxies", ["10.0.0.7", "10.0.0.7,fd00::7", "10.1.0.0/24, 10.0.0.7", ""])
def test_proxies(proxies: str) -> None:
    assert Settings(forwarded_allow_ips=proxies).forwarded_allow_ips == proxies


@pytest.mark.parametrize("proxy", ["*", "0.0.0.0/0", "::/0", "10.0.0.7/8", "proxy", "10.0.0.7:80", "10.0.0"])
def test_a_proxy_is_named_by_its_address(proxy: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(forwarded_allow_ips=f"10.0.0.7,{proxy}")
    (error,) = refused.value.errors()
    assert (error["loc"], error["msg"].count(f"{proxy} is not the address of a proxy.")) == (
        ("forwarded_allow_ips",),
        1,
    )


@pytest.mark.parametrize(
    "name", ["rate_limit", "login_rate_limit", "login_account_rate_limit", "login_address_rate_limit"]
)
def test_an_empty_rate_limit_is_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), "")
    assert getattr(Settings(), name) == ""


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="MODELS_FILE"):
        create_app(Settings(models_file=tmp_path / "nope.toml"))
    with pytest.raises(SystemExit, match="PRICES_FILE"):
        create_app(Settings(prices_file=tmp_path / "nope.toml"))


def test_live_does_not_sign_with_the_example_s_secret() -> None:
    provider = {"jwks_url": "https://id.example.com/keys", "jwt_issuer": "i", "jwt_audience": "a"}
    given = {**LIVE, "jwt_secret": EXAMPLE_SECRET, **provider}
    assert Settings.model_validate(given).signing_secret is None


def test_a_refusal_keeps_the_secret() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"cloud": "live", "jwt_secret": "hunter2"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOUD", "gcp"),
        ("PORT", "http"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_EXPIRES_SECONDS", "0"),
        ("MAX_BODY_BYTES", "64MB"),
        ("MAX_CALLS", "0"),
        ("MAX_CALLS_PER_USER", "0"),
        ("MIN_CALL_SECONDS", "-1"),
        ("RETIRED_MODELS", "maybe"),
        ("CLAUDE_VIA", "carrier pigeon"),
    ],
)
def test_a_value_that_makes_no_sense_names_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert [error["loc"] for error in refused.value.errors()] == [(name.lower(),)]


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@db/gateway", "postgresql+asyncpg://u:p@db/gateway"),
        ("postgresql://u:p@db/gateway", "postgresql+asyncpg://u:p@db/gateway"),
        ("postgresql+asyncpg://u:p@db/gateway", "postgresql+asyncpg://u:p@db/gateway"),
        ("sqlite:///gateway.db", "sqlite+aiosqlite:///gateway.db"),
    ],
)
def test_database_url_takes_the_driver_we_ship(given: str, used: str) -> None:
    assert Settings(database_url=given).database_url == used


VERTEX = "must be http://host:port or https://host:port, without a path"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("http://vertex:8080", "http://vertex:8080"),
        ("http://vertex:8080/", "http://vertex:8080"),
        ("https://vertex.example.com", "https://vertex.example.com"),
        ("https://vertex.example.com:8443", "https://vertex.example.com:8443"),
        ("", None),
    ],
)
def test_the_endpoint_of_vertex_is_a_url(given: str, used: str | None) -> None:
    assert Settings(vertex_endpoint=given).vertex_endpoint == used


@pytest.mark.parametrize(
    "wrong",
    [
        "http://vertex:8080/v1",
        "vertex:8080/v1",
        "https://vertex.example.com?key=x",
        "https://vertex.example.com#x",
        "https://ann:hunter2@vertex.example.com",
        "grpc://vertex:8080",
        "http://",
        "http:///",
        "//vertex:8080",
        "two words",
        "http://vertex:http",
        "http://[::1",
        "http://:8080",
    ],
)
def test_an_endpoint_of_vertex_that_is_none_is_one_sentence(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERTEX_ENDPOINT", wrong)
    with pytest.raises(SystemExit) as refused:
        read_settings()
    assert str(refused.value) == f"The configuration is wrong:\n  VERTEX_ENDPOINT: {VERTEX}"
