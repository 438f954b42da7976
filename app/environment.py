"""Reads the settings from the environment and `.env`, and explains what is wrong with them."""

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from app.settings import DatabaseSettings, FromEnvironment, PriceSettings, Settings

AnySettings = TypeVar("AnySettings", bound=FromEnvironment)


def read_settings() -> Settings:
    """Read the environment and `.env`. Raises SystemExit with a line for each variable that is wrong."""
    return _read(Settings)


def read_database_url() -> str:
    """Read DATABASE_URL alone. Raises SystemExit like `read_settings`."""
    return _read(DatabaseSettings).database_url


def read_price_settings() -> PriceSettings:
    """Read MODELS_FILE and PRICES_FILE alone. Raises SystemExit like `read_settings`."""
    return _read(PriceSettings)


_REPLACED = {
    "max_inflight_bytes": "MAX_CALLS bounds the calls under way",
    "max_queued_requests": "MAX_CALLS and MAX_CALLS_PER_USER also limit the calls that wait",
}


def replaced() -> dict[str, str]:
    """Returns the variables of earlier versions that are still set, and what has replaced each of them."""
    given = {**DotEnvSettingsSource(Settings).env_vars, **EnvSettingsSource(Settings).env_vars}
    return {name.upper(): instead for name, instead in _REPLACED.items() if given.get(name)}


def _read(kind: type[AnySettings]) -> AnySettings:
    wrong = _misspelt(kind)
    try:
        settings = kind()
    except ValidationError as exc:
        wrong += [
            f"{str(error['loc'][0]).upper() if error['loc'] else 'settings'}: "
            + error["msg"].removeprefix("Value error, ")
            for error in exc.errors(include_url=False, include_input=False)
        ]
    if wrong:
        raise SystemExit("\n  ".join(["The configuration is wrong:", *wrong]))
    return settings


def _misspelt(kind: type[FromEnvironment]) -> list[str]:
    """Returns a line for each variable in `.env` that differs from a setting by one or two typing errors.

    Other variables in the file belong to other programs, and so do names with another first letter
    (AWS_BUCKET). The process's environment is not checked.
    """
    lines = []
    for unknown in DotEnvSettingsSource(kind).env_vars.keys() - Settings.model_fields.keys():
        alike = [
            name
            for name in kind.model_fields
            if name[0] == unknown[:1] and abs(len(name) - len(unknown)) <= 2
        ]
        nearest = min(alike, key=lambda name: _typing_errors(unknown, name), default=None)
        if nearest and _typing_errors(unknown, nearest) <= (2 if len(nearest) > 5 else 1):
            question = f"Did you mean {nearest.upper()}?"
            lines.append(f"{unknown.upper()}: .env has it, but there is no such setting. {question}")
    return sorted(lines)


def _typing_errors(a: str, b: str) -> int:
    """Returns how many letters must be added, dropped, changed or swapped with a neighbour to turn `a` into
    `b`."""
    away = {(i, -1): i + 1 for i in range(-1, len(a))} | {(-1, j): j + 1 for j in range(len(b))}
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            away[i, j] = min(away[i - 1, j] + 1, away[i, j - 1] + 1, away[i - 1, j - 1] + (x != y))
            if i and j and (x, a[i - 1]) == (b[j - 1], y):
                away[i, j] = min(away[i, j], away[i - 2, j - 2] + 1)
    return away[len(a) - 1, len(b) - 1]
