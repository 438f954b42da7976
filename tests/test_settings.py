"""Settings: `.env.example` tells the truth, and a wrong or missing variable is named."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.main import create_app
from app.settings import EXAMPLE_SECRET, Settings, read_settings

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
        pytest.param({"anthropic_api_key": None}, "ANTHROPIC_API_KEY", id="no key for Claude"),
    ],
)
def test_live_refuses_and_names_the_variable(change: dict[str, str | None], named: str) -> None:
    given = {name: value for name, value in (LIVE | change).items() if value is not None}
    with pytest.raises(ValidationError, match=named):
        Settings.model_validate(given)


def test_live_names_everything_it_lacks_at_once() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(cloud="live")
    assert all(name in str(refused.value) for name in ("JWT_SECRET", "GOOGLE_CLOUD_PROJECT", "GCS_BUCKET"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_limit": "sixty"},
        {"login_rate_limit": "x"},
        {"redis_url": "foo"},
        {"database_url": "mysql://x"},
        {"jwks_url": "foo"},
        {"gcs_bucket": "Bad_Bucket!"},
        {"request_timeout_seconds": "soon"},
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


def test_a_models_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="MODELS_FILE"):
        create_app(Settings(models_file=tmp_path / "nope.toml"))


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
