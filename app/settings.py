"""Every knob, read once from the environment. `.env.example` lists the same names."""

from pathlib import Path
from typing import Literal, Self

from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

EXAMPLE_SECRET = "change-me-change-me-change-me-change-me"  # noqa: S105 - refused in live
EXAMPLE_PROJECT = "emulated-project"
EXAMPLE_BUCKET = "image-gateway"
MEBIBYTE = 1024 * 1024


_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}


class Settings(BaseSettings):
    """Field names are the environment's, in lower case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    cloud: Literal["emulator", "live"] = "emulator"
    port: int = 3001
    data_dir: Path = Path("data")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_prompts: bool = False

    jwt_secret: SecretStr = SecretStr(EXAMPLE_SECRET)
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    jwt_expires_seconds: int = Field(3600, gt=0)
    jwks_url: str | None = Field(None, pattern=r"^https?://")
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    login_rate_limit: str = "10/minute"

    database_url: str = "sqlite+aiosqlite:///data/gateway.db"
    redis_url: str | None = Field(None, pattern=r"^rediss?://")
    rate_limit: str = "60/minute"
    cors_origins: str = ""

    request_timeout_seconds: float = Field(120, gt=0)
    retry_pause_seconds: float = Field(1, gt=0)
    body_idle_seconds: float = Field(10, gt=0)
    answer_idle_seconds: float = Field(60, gt=0)
    max_body_bytes: int | None = Field(None, gt=0)
    max_inflight_bytes: int = Field(64 * MEBIBYTE, gt=0)
    max_queued_requests: int = Field(256, ge=0)

    google_cloud_project: str = EXAMPLE_PROJECT
    google_application_credentials: Path | None = None
    vertex_location: str = "us-central1"
    vertex_gemini_location: str = "global"
    vertex_endpoint: str | None = None
    gcs_bucket: str = Field(EXAMPLE_BUCKET, pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")
    gcs_allowed_prefixes: str = ""
    storage_emulator_host: str | None = None
    public_base_url: str = ""
    spool_dir: Path = Path("data/spool")
    spool_seconds: float = Field(15, gt=0)
    spool_min_free_bytes: int = Field(256_000_000, ge=0)
    upload_seconds: float = Field(60, gt=0)
    upload_wait_seconds: float = Field(10, gt=0)

    models_file: Path | None = None
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
        """The emulator runs inside unless another is named for every vendor."""
        named = (
            self.vertex_endpoint,
            self.storage_emulator_host,
            self.aws_endpoint_url_bedrock_runtime,
            self.anthropic_base_url,
        )
        return self.cloud == "emulator" and not all(named)

    @property
    def signing_secret(self) -> str | None:
        """What our own tokens are signed with. The example's secret is everybody's: none at all in live."""
        secret = self.jwt_secret.get_secret_value()
        return None if self.cloud == "live" and secret == EXAMPLE_SECRET else secret

    @property
    def public_url(self) -> str:
        """What the URLs of stored pictures begin with; the bucket and the object's name follow."""
        if self.public_base_url:
            return self.public_base_url.rstrip("/")
        if self.cloud == "live":
            return "https://storage.googleapis.com"
        return f"http://localhost:{self.port}/storage"

    @property
    def allowed_prefixes(self) -> tuple[str, ...]:
        """The `gs://` prefixes that callers may name; our own bucket unless set."""
        named = [
            prefix.strip().rstrip("/") for prefix in self.gcs_allowed_prefixes.split(",") if prefix.strip()
        ]
        return tuple(f"{prefix}/" for prefix in named or [f"gs://{self.gcs_bucket}"])

    @field_validator("*", mode="before")
    @classmethod
    def _empty_means_unset(cls, value: object, info: ValidationInfo) -> object:
        """Compose files pass unset variables as empty ones. An empty rate limit is a limit that is off."""
        if value != "" or info.field_name in ("rate_limit", "login_rate_limit"):
            return value
        return cls.model_fields[info.field_name or ""].get_default()

    @field_validator("database_url")
    @classmethod
    def _async_driver(cls, url: str) -> str:
        """A plain `postgresql://` or `sqlite://` URL means the async driver we ship."""
        scheme, _, rest = url.partition("://")
        driver = _DRIVERS.get(scheme, scheme)
        if driver not in _DRIVERS.values():
            raise ValueError("wants sqlite:///file or postgresql://user:password@host/database")
        return f"{driver}://{rest}"

    @field_validator("rate_limit", "login_rate_limit")
    @classmethod
    def _in_the_notation_of_limits(cls, notation: str) -> str:
        if notation:
            parse_many(notation)
        return notation

    @model_validator(mode="after")
    def _live_is_complete(self) -> Self:
        if self.cloud != "live":
            return self
        missing = []
        if self.signing_secret is None and not self.jwks_url:
            missing.append("JWT_SECRET or JWKS_URL")
        if self.signing_secret is not None and len(self.signing_secret) < 32:
            missing.append("JWT_SECRET of 32 characters or more")
        if self.jwks_url and not (self.jwt_issuer and self.jwt_audience):
            missing.append("JWT_ISSUER and JWT_AUDIENCE beside JWKS_URL")
        if self.google_cloud_project == EXAMPLE_PROJECT:
            missing.append("GOOGLE_CLOUD_PROJECT")
        if self.gcs_bucket == EXAMPLE_BUCKET:
            missing.append("GCS_BUCKET")
        if self.claude_via == "anthropic" and self.anthropic_api_key is None:
            missing.append("ANTHROPIC_API_KEY, or another CLAUDE_VIA")
        if missing:
            raise ValueError("CLOUD=live needs: " + "; ".join(missing))
        return self


def read_settings() -> Settings:
    """Read the environment and `.env`. Raises SystemExit with a line for each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as exc:
        wrong = [
            f"  {str(error['loc'][0]).upper() if error['loc'] else 'settings'}: {error['msg']}"
            for error in exc.errors(include_url=False, include_input=False)
        ]
        raise SystemExit("The configuration is wrong:\n" + "\n".join(wrong)) from None
