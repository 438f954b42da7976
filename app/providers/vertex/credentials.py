"""Google's credentials: looked up once before the gateway starts, and the tokens they give."""

import asyncio
import warnings
from pathlib import Path

import google.auth
import structlog
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.logs import causes
from app.providers.failures import RETRY_AFTER_SECONDS

__all__ = ["Bearer", "Credentials", "NoCredentials", "find"]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

log = structlog.get_logger()


class NoCredentials(Exception):
    """The text is one sentence for the operator. It never shows the content of a key file."""


def find(file: Path | None) -> Credentials:
    """Returns the credentials of the key file or, if it is None, Google's default credentials.

    Blocks. Raises NoCredentials.
    """
    if file is None:
        return _machines()
    try:
        with warnings.catch_warnings():
            # It warns about files from untrusted sources; this file is the operator's.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = google.auth.load_credentials_from_file(str(file), scopes=_SCOPES)  # type: ignore[no-untyped-call]
    except DefaultCredentialsError as exc:
        raise NoCredentials(f"GOOGLE_APPLICATION_CREDENTIALS: {exc.args[0]}") from exc
    except (GoogleAuthError, OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise NoCredentials(f"GOOGLE_APPLICATION_CREDENTIALS: {file} cannot be read as a key file") from exc
    credentials: Credentials = found[0]
    return credentials


def _machines() -> Credentials:
    try:
        credentials, _project = google.auth.default(scopes=_SCOPES)
    except GoogleAuthError as exc:
        raise NoCredentials(
            "Google's credentials are missing: set GOOGLE_APPLICATION_CREDENTIALS to a service account's key "
            "file, or give the machine an identity (workload identity, gcloud auth application-default login)"
        ) from exc
    return credentials


class Bearer:
    """Makes headers with a token. The token is refreshed in a thread, one refresh at a time.

    A token that is about to expire stays in use while the next one is fetched.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._refreshing: asyncio.Task[Exception | None] | None = None

    async def headers(self) -> dict[str, str]:
        """Returns the headers that authorize a call.

        Waits only if there is no usable token. Raises UpstreamUnavailable if trying later can help, else
        UpstreamFailed.
        """
        state = self._credentials.token_state
        if state is not TokenState.FRESH:
            refreshing = self._refresh()
            if state is TokenState.INVALID and (failure := await asyncio.shield(refreshing)):
                raise _meaning(failure) from failure
        headers: dict[str, str] = {}
        self._credentials.apply(headers)  # type: ignore[no-untyped-call]
        return headers

    def _refresh(self) -> asyncio.Task[Exception | None]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(asyncio.to_thread(_refreshed, self._credentials))
        return self._refreshing


def _refreshed(credentials: Credentials) -> Exception | None:
    """Fetch a token; blocks. Returns the exception if there is none."""
    from google.auth.transport.requests import Request  # takes its time

    try:
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    except Exception as exc:  # noqa: BLE001 - each kind of credentials has libraries and errors of its own
        log.warning("no new token from Google", cause=causes(exc))
        return exc
    return None


def _meaning(failure: Exception) -> UpstreamFailed | UpstreamUnavailable:
    """Returns the error for callers. google-auth does not mark failures to connect as retryable."""
    unreachable = TransportError in (type(failure), type(failure.__cause__))
    error: UpstreamFailed | UpstreamUnavailable = UpstreamFailed("Google gave no token")
    if unreachable or getattr(failure, "retryable", False):
        error = UpstreamUnavailable(retry_after=RETRY_AFTER_SECONDS)
    error.vendor_code = type(failure).__name__
    return error
