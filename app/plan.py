"""Checks the configuration before the gateway starts."""

from dataclasses import dataclass

from app import process
from app.contract.models import Catalogue, load_catalogue
from app.contract.prices import Prices, load_prices
from app.providers.vendors import check_served
from app.providers.vertex.credentials import Credentials, NoCredentials, find
from app.settings import Settings

_FILES_OF_A_CALL = 5
"""Open files per call: its caller, vendor, upload and temporary file, and one caller that waits."""
_OTHER_FILES = 250
"""Open files for databases, libraries, logins and all other requests."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The checked configuration. `google` is None if Google itself is not called."""

    settings: Settings
    catalogue: Catalogue
    prices: Prices
    google: Credentials | None


def plan(settings: Settings) -> Plan:
    """Read and check the files that the settings name. Blocks. Raises SystemExit for the first mistake."""
    variable = "MODELS_FILE"
    try:
        catalogue = load_catalogue(settings.models_file)
        check_served(catalogue)
        variable = "PRICES_FILE"
        prices = load_prices(catalogue, settings.prices_file)
    except (OSError, ValueError) as exc:
        raise SystemExit(f"The configuration is wrong:\n  {variable}: {exc}") from None
    _check_files(settings.max_calls)
    return Plan(settings, catalogue, prices, _google(settings))


def _check_files(max_calls: int) -> None:
    """Raise the limit of open files as far as allowed. Raises SystemExit if MAX_CALLS needs more."""
    allowed = process.open_files()
    fit = (allowed - _OTHER_FILES) // _FILES_OF_A_CALL
    if max_calls > fit:
        needed = max_calls * _FILES_OF_A_CALL + _OTHER_FILES
        raise SystemExit(
            f"The configuration is wrong:\n  MAX_CALLS: {max_calls} calls need {needed} open files, and the "
            f"system allows {allowed}, which is enough for {max(fit, 0)}. Lower MAX_CALLS, or raise the hard "
            "limit of open files (ulimit -Hn)"
        )


def _google(settings: Settings) -> Credentials | None:
    if settings.cloud == "emulator" or (settings.vertex_endpoint and settings.storage_emulator_host):
        return None
    try:
        return find(settings.google_application_credentials)
    except NoCredentials as exc:
        raise SystemExit(f"The configuration is wrong:\n  {exc}") from None
