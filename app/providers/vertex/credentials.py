"""Google's credentials: found once, before the gateway starts."""

import warnings
from pathlib import Path

import google.auth
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

__all__ = ["Credentials", "NoCredentials", "find"]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


class NoCredentials(Exception):
    """The text is for the operator: one sentence, which never shows what is in a key file."""


def find(file: Path | None) -> Credentials:
    """Read the key file or, without one, look where Google's libraries look. Blocks. Raises NoCredentials."""
    if file is None:
        return _machines()
    try:
        with warnings.catch_warnings():
            # It warns of files from strangers; this one is the operator's.
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
