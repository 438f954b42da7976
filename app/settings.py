"""All settings, their defaults and their rules. `environment.py` reads them. `.env.example` lists them."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.contract import gcs
from app.contract.budgets import read_budget
from app.contract.ledger import Limit
from app.setting_types import BudgetText, DatabaseUrl, Endpoint, Origins, Proxies, RateLimitText, split

EXAMPLE_SECRET = "change-me-change-me-change-me-change-me"  # noqa: S105 - refused in live
EXAMPLE_PROJECT = "emulated-project"
EXAMPLE_BUCKET = "image-gateway"
EMULATED_ADDRESSES = (
    "vertex_endpoint",
    "storage_emulator_host",
    "aws_endpoint_url_bedrock_runtime",
    "anthropic_base_url",
)
"""One setting for each vendor. If CLOUD=emulator, those that are not set take the emulator's address."""
MEBIBYTE = 1024 * 1024


_SQLITE = "sqlite+aiosqlite:///data/gateway.db"


class FromEnvironment(BaseSettings):
    """The base of all settings. A field is read from the environment variable with its name in upper case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_unset(cls, given: dict[str, object]) -> dict[str, object]:
        """Ignore empty variables, which Compose passes for unset ones. An empty rate limit turns it off."""
        return {name: value for name, value in given.items() if value != "" or name.endswith("rate_limit")}


class DatabaseSettings(FromEnvironment):
    """The settings of commands on the database, which also run where the gateway is not configured."""

    database_url: DatabaseUrl = _SQLITE


class PriceSettings(FromEnvironment):
    """The settings of the `prices` command, which also runs where the gateway is not configured."""

    models_file: Path | None = None
    prices_file: Path | None = None


class Settings(FromEnvironment):
    """The settings of the gateway."""

    cloud: Literal["emulator", "live"] = "emulator"
    port: int = 3001
    data_dir: Path = Path("data")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    log_prompts: bool = False

    jwt_secret: SecretStr = SecretStr(EXAMPLE_SECRET)
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    jwt_expires_seconds: int = Field(3600, gt=0)
    jwks_url: str | None = Field(None, pattern=r"^https?://")
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    login_rate_limit: RateLimitText = "10/minute"
    login_account_rate_limit: RateLimitText = "100/minute"
    login_address_rate_limit: RateLimitText = "100/minute"

    database_url: DatabaseUrl = _SQLITE
    redis_url: str | None = Field(None, pattern=r"^rediss?://")
    rate_limit: RateLimitText = "60/minute"
    cors_origins: Origins = ""
    forwarded_allow_ips: Proxies = ""

    request_timeout_seconds: float = Field(120, gt=0)
    call_seconds: float = Field(600, gt=0)
    idempotency_seconds: float = Field(86_400, gt=0)
    require_idempotency_key: bool = False
    retry_pause_seconds: float = Field(1, gt=0)
    body_idle_seconds: float = Field(10, gt=0)
    answer_idle_seconds: float = Field(60, gt=0)
    max_body_bytes: int | None = Field(None, gt=0)
    max_calls: int = Field(2000, gt=0)
    max_calls_per_user: int = Field(250, gt=0)
    min_call_seconds: float = Field(5, ge=0)
    work_bytes: int = Field(4 * 1024 * MEBIBYTE, gt=0)

    google_cloud_project: str = EXAMPLE_PROJECT
    google_application_credentials: Path | None = None
    vertex_location: str = "us-central1"
    vertex_gemini_location: str = "global"
    vertex_endpoint: Endpoint | None = None
    gcs_bucket: str = Field(EXAMPLE_BUCKET, pattern=f"^{gcs.BUCKET}$")
    gcs_allowed_prefixes: str = ""
    storage_emulator_host: str | None = None
    public_base_url: str = ""
    spool_dir: Path = Path("data/spool")
    spool_seconds: float = Field(15, gt=0)
    spool_min_free_bytes: int = Field(256_000_000, ge=0)
    spool_fsync: bool = False
    upload_seconds: float = Field(60, gt=0)
    upload_wait_seconds: float = Field(10, gt=0)
    private_store: str | None = None

    models_file: Path | None = None
    prices_file: Path | None = None
    budget: BudgetText = ""
    receipt_days: int = Field(400, gt=0, le=36_500)
    retired_models: Literal["follow", "refuse"] = "follow"

    aws_endpoint_url_bedrock_runtime: str | None = None
    anthropic_api_key: SecretStr | None = None
    anthropic_base_url: str | None = None
    claude_via: Literal["anthropic", "bedrock", "vertex"] = "anthropic"
    claude_bedrock_version: str | None = None
    aws_region: str = "us-east-1"
    cloud_ml_region: str = "global"

    @property
    def embeds_emulator(self) -> bool:
        """Whether this process runs the emulator: with CLOUD=emulator, unless all vendors have an address."""
        return self.cloud == "emulator" and not all(getattr(self, name) for name in EMULATED_ADDRESSES)

    @property
    def answer_seconds(self) -> float:
        """Seconds from the start of a request until vendors must be done and its pictures are stored."""
        return self.request_timeout_seconds * 0.9

    @property
    def store_seconds(self) -> float:
        """Seconds from the start of a request until its pictures must be stored and the response is sent."""
        return self.request_timeout_seconds * 0.98

    @property
    def rewrite_seconds(self) -> float:
        """Seconds that the rewrite of a prompt may take."""
        return self.request_timeout_seconds / 6

    @property
    def min_seconds(self) -> float:
        """Seconds that a call must have left to be sent: MIN_CALL_SECONDS, at most a quarter of its time."""
        return min(self.min_call_seconds, self.request_timeout_seconds / 4)

    @property
    def longest_call_seconds(self) -> float:
        """Seconds that a call may take if its pictures are stored. Never less than the caller's time."""
        return max(self.call_seconds, self.request_timeout_seconds)

    @property
    def has_example_secret(self) -> bool:
        """Whether JWT_SECRET is the published example, so that anybody can make tokens."""
        return self.jwt_secret.get_secret_value() == EXAMPLE_SECRET

    @property
    def signing_secret(self) -> str | None:
        """The secret that signs the gateway's own tokens. None if CLOUD=live has only the example secret."""
        without = self.cloud == "live" and self.has_example_secret
        return None if without else self.jwt_secret.get_secret_value()

    @property
    def public_url(self) -> str:
        """The beginning of the URLs of stored pictures. The bucket and the object's name follow."""
        if self.public_base_url:
            return self.public_base_url.rstrip("/")
        if self.cloud == "live":
            return "https://storage.googleapis.com"
        return f"http://localhost:{self.port}/storage"

    @property
    def budget_limits(self) -> tuple[Limit, ...]:
        """The limits for callers without limits of their own in that unit."""
        return read_budget(self.budget)

    @property
    def allowed_origins(self) -> list[str]:
        """The web origins from which browsers may call."""
        return split(self.cors_origins)

    @property
    def allowed_prefixes(self) -> tuple[str, ...]:
        """The `gs://` prefixes that callers may name. The default is the gateway's own bucket."""
        named = [prefix.rstrip("/") for prefix in split(self.gcs_allowed_prefixes)]
        return tuple(f"{prefix}/" for prefix in named or [f"gs://{self.gcs_bucket}"])

    @property
    def private_place(self) -> str:
        """The folder of private pictures, or `gs://bucket/prefix`."""
        return self.private_store or str(self.data_dir / "private")

    @field_validator("private_store")
    @classmethod
    def _is_a_place(cls, place: str | None) -> str | None:
        if place and "://" in place and not gcs.FOLDER.fullmatch(place):
            raise ValueError(
                "must be a folder, or gs://bucket/prefix with letters, digits and ._- in the prefix"
            )
        return place

    @model_validator(mode="after")
    def _private_is_not_public(self) -> Self:
        place = f"{self.private_place.rstrip('/')}/"
        if place.startswith(f"gs://{self.gcs_bucket}/"):
            raise ValueError(
                "PRIVATE_STORE is in GCS_BUCKET, which everybody can read: name another bucket, or a folder"
            )
        if any(place.startswith(prefix) or prefix.startswith(place) for prefix in self.allowed_prefixes):
            raise ValueError(
                "PRIVATE_STORE overlaps GCS_ALLOWED_PREFIXES, which callers may name: name another bucket or "
                "prefix, or a folder"
            )
        return self

    @model_validator(mode="after")
    def _live_is_complete(self) -> Self:
        if self.cloud != "live":
            return self
        missing = []
        if "jwt_secret" in self.model_fields_set and (self.signing_secret or not self.jwks_url):
            missing += _weaknesses(self.jwt_secret.get_secret_value())
        elif not self.jwks_url:
            missing.append("JWT_SECRET or JWKS_URL")
        if self.jwks_url and not (self.jwt_issuer and self.jwt_audience):
            missing.append("JWT_ISSUER and JWT_AUDIENCE beside JWKS_URL")
        missing += [
            name.upper()
            for name in ("google_cloud_project", "gcs_bucket")
            if name not in self.model_fields_set
        ]
        if self.claude_via == "anthropic" and self.anthropic_api_key is None:
            missing.append("ANTHROPIC_API_KEY, or another CLAUDE_VIA")
        if missing:
            raise ValueError("CLOUD=live needs: " + "; ".join(missing))
        return self


def _weaknesses(secret: str) -> list[str]:
    """Returns what a secret lacks, as phrases for an error. The list is empty for a generated secret."""
    secret = secret.strip()
    if len(secret) < 32:
        return ["a JWT_SECRET of 32 characters or more"]
    if EXAMPLE_SECRET in secret:
        return ["a JWT_SECRET that is not the example's"]
    period = next(n for n in range(1, len(secret) + 1) if secret[n:] == secret[:-n])
    steps = Counter(ord(b) - ord(a) for a, b in pairwise(secret))  # abc… has only steps of 1, aaa… only of 0
    if period <= 16 or max(steps.values()) > len(secret) / 2 or len(set(secret)) < 8:
        return ["a JWT_SECRET that is hard to guess: openssl rand -hex 32"]
    return []
