"""Pictures in Google Cloud Storage: upload once, answer with the public URL."""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from typing import TypeVar
from urllib.parse import quote

import requests.exceptions
import structlog
import urllib3.exceptions
from google.api_core import exceptions as api_exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.adapters import HTTPAdapter

from app.contract.errors import GatewayError, UpstreamFailed, UpstreamUnavailable
from app.contract.pictures import Picture
from app.logs import causes
from app.ports import rehearsed

log = structlog.get_logger()

T = TypeVar("T")

_CACHE_CONTROL = "public, max-age=31536000, immutable"  # a name is never used twice
_SILENCE_SECONDS = 10.0
"""A connection on which nothing moves for so long is given up; the upload is tried again on another."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0


class Gcs:
    """A bucket, by Google's own client in threads of its own.

    `endpoint` is an emulator's address with scheme, called without credentials; None is Google, called with
    `credentials`. `timeout_seconds` bounds one `save` with all its retries. The account needs
    storage.objects.create and nothing else; the bucket itself makes what is in it public.
    """

    def __init__(
        self,
        *,
        project: str,
        bucket: str,
        public_base_url: str,
        endpoint: str | None,
        workers: int,
        timeout_seconds: float,
        credentials: Credentials | None = None,
    ) -> None:
        self._bucket = bucket
        self._public_base_url = public_base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="gcs")
        self._connect = partial(_connect, project, endpoint, credentials, workers)
        self._client = self._connect()

    async def save(
        self, name: str, picture: Picture, /, *, bucket: str | None = None, again: bool = False
    ) -> str:
        """Store the picture under the object name and return its public URL.

        Tries again while Cloud Storage is unavailable and time remains: an upload costs nothing, the
        picture does. Raises UpstreamUnavailable and UpstreamFailed.
        """
        bucket = bucket or self._bucket
        failure: UpstreamUnavailable | None = None
        pause = _FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    try:
                        upload = partial(self._upload, bucket, name, picture, rehearsed.get(), again=again)
                        await self._run(upload)
                    except UpstreamUnavailable as exc:
                        failure, again = exc, True
                        log.warning(
                            "retrying an upload",
                            object=name,
                            cause=causes(exc),
                            vendor_code=exc.vendor_code,
                        )
                    else:
                        return self.url(name, bucket=bucket)
                    await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads retries, no secret
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except TimeoutError as exc:
            raise UpstreamUnavailable from failure or exc

    def url(self, name: str, /, *, bucket: str) -> str:
        return f"{self._public_base_url}/{bucket}/{quote(name, safe='/~')}"

    async def ready(self) -> None:
        """Return when the bucket takes new objects from us. Asking needs no permission."""
        permission = "storage.objects.create"
        bucket = self._client.bucket(self._bucket)
        async with asyncio.timeout(_SILENCE_SECONDS):
            held = await self._run(
                lambda: bucket.test_iam_permissions([permission], timeout=_SILENCE_SECONDS, retry=None)
            )
        if permission not in held:
            raise UpstreamFailed(f"{permission} is not granted")

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _upload(self, bucket: str, name: str, picture: Picture, trouble: str | None, *, again: bool) -> None:
        """One try, in a thread. Over 8 MiB the client makes it a resumable upload: two requests.

        A taken name means `again` that an earlier try, whose answer was lost, had landed. At a first try it
        cannot be taken: then a policy of the bucket's has refused the picture.
        """
        client = self._connect({"X-Trouble": trouble}) if trouble else self._client
        blob = client.bucket(bucket).blob(name)
        blob.cache_control = _CACHE_CONTROL
        try:
            blob.upload_from_string(
                picture.data,
                content_type=picture.mime_type,
                if_generation_match=0,
                checksum="crc32c",
                timeout=min(_SILENCE_SECONDS, self._timeout_seconds),
                retry=None,  # `save` tries again, without a thread that sleeps
            )
        except api_exceptions.PreconditionFailed as exc:
            if not again or "conditionNotMet" not in exc.message:
                raise
        finally:
            if trouble:
                client.close()

    async def _run(self, work: Callable[[], T]) -> T:
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _connect(
    project: str,
    endpoint: str | None,
    credentials: Credentials | None,
    workers: int,
    extra_headers: dict[str, str] | None = None,
) -> storage.Client:
    client = storage.Client(
        project=project,
        credentials=AnonymousCredentials() if endpoint else credentials,  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": endpoint} if endpoint else None,
        extra_headers=extra_headers or {},
    )
    # Google's documented way to a pool that has a connection for every thread:
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=workers))
    # Asks for the bucket's metadata (storage.buckets.get) behind our back, for traces that nobody reads:
    client._bucket_metadata_cache = None
    return client


_FOREIGN = (
    api_exceptions.GoogleAPIError,
    auth_exceptions.GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    urllib3.exceptions.HTTPError,
    HTTPException,
    OSError,  # all of requests' are
)
"""Every way in which the client, its transport and its credentials fail."""

_PASSING = (
    api_exceptions.RetryError,
    api_exceptions.ServerError,
    api_exceptions.TooManyRequests,
    auth_exceptions.TransportError,
    auth_exceptions.TimeoutError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.RetryError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
    HTTPException,
    ConnectionError,
    TimeoutError,
)
"""Those that may be gone the next time."""


@contextmanager
def translated() -> Iterator[None]:
    """Foreign exceptions in, ours out: UpstreamUnavailable for those that may pass, else UpstreamFailed."""
    try:
        yield
    except _FOREIGN as exc:
        error = _translate(exc)
        status = getattr(exc, "code", None)
        error.vendor_code = str(int(status)) if isinstance(status, int) else type(exc).__name__
        raise error from exc


def _translate(exc: Exception) -> GatewayError:
    request_timeout = (
        isinstance(exc, api_exceptions.GoogleAPICallError) and exc.code == 408
    )  # has no class of its own
    retryable = isinstance(exc, auth_exceptions.GoogleAuthError) and exc.retryable
    return (
        UpstreamUnavailable()
        if isinstance(exc, _PASSING) or request_timeout or retryable
        else UpstreamFailed()
    )
