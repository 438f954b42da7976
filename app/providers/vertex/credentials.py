"""Google's credentials, looked up once before the gateway starts."""

import warnings
from pathlib import Path

import google.auth
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

__all__ = ["Credentials", "NoCredentials", "find"]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


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
