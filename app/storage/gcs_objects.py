"""Lists, downloads and deletes objects of Cloud Storage, with Google's own client.

The client blocks, so it has its own threads. It is imported on first use: an idle gateway need not spend
its memory.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.pictures.blob import Blob, Blobs

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

T = TypeVar("T")

_threads = ThreadPoolExecutor(4, thread_name_prefix="gcs")

_MOST_NAMES = 64
_PAGE = 200
"""The number of names that one `sweep` looks at."""
_SILENCE_SECONDS = 3.0
"""A request is cancelled when nothing has moved for this long."""
_PAUSE_SECONDS, _AGAIN_SECONDS = 0.2, 5.0
"""A request that can be tried again is repeated, first after this pause, for this long."""


class GcsObjects:
    """The objects of all buckets. `endpoint` and `google` are as in `Gcs`.

    Each method but `client` raises UpstreamUnavailable if it can be tried again later, also when
    `timeout_seconds` are over, and UpstreamFailed if not.
    """

    def __init__(
        self, *, project: str, endpoint: str | None, google: "Credentials | None", timeout_seconds: float
    ) -> None:
        self._project = project
        self._endpoint = endpoint
        self._google = google
        self._timeout_seconds = timeout_seconds

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Yields Google's client. Its methods block, and raise its exceptions."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        with Client(
            project=self._project,
            credentials=AnonymousCredentials() if self._endpoint else self._google,  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": self._endpoint} if self._endpoint else None,
        ) as client:
            # It would ask for the bucket's metadata (storage.buckets.get), for traces that are not used:
            client._bucket_metadata_cache = None
            client._http.hooks["response"].append(_read_if_error)
            yield client

    async def held(self, bucket: str, permissions: Sequence[str]) -> set[str]:
        """Returns those of the permissions that the account has. Asking needs none."""

        def ask(client: Any) -> set[str]:
            return set(client.bucket(bucket).test_iam_permissions(permissions, **_patience()))

        return await self._run(ask)

    async def names(self, bucket: str, stem: str) -> list[str]:
        """Returns the names that begin with the stem, in order, at most 64. Needs storage.objects.list."""
        return await self._run(lambda client: _names(client, bucket, stem))

    async def download(self, bucket: str, names: Sequence[str], blobs: Blobs) -> dict[str, Blob]:
        """Returns whole blobs of those objects that exist. Needs storage.objects.get. Raises NoRoom too.

        If it raises, close `blobs`: that ends the thread, too.
        """

        def load(client: Any) -> dict[str, Blob]:
            from google.api_core.exceptions import NotFound

            found = {}
            for name in self._in_time(names):
                blob = blobs.new()
                # One GET, in pieces of 8 KiB, with a checksum: open("rb") makes a GET per chunk, without one.
                try:
                    client.bucket(bucket).blob(name).download_to_file(blob, **_patience())
                except NotFound:
                    blob.close()
                    continue
                blob.seal()
                found[name] = blob
            return found

        return await self._run(load)

    async def delete(self, bucket: str, stem: str) -> None:
        """Delete what `names` returns. Needs storage.objects.list and storage.objects.delete."""

        def delete(client: Any) -> None:
            for name in self._in_time(_names(client, bucket, stem)):
                _delete(client, bucket, name)

        await self._run(delete)

    async def sweep(
        self,
        bucket: str,
        prefix: str,
        wanted: Callable[[str], bool],
        older_than_seconds: float,
        page: str | None,
    ) -> tuple[int, str | None]:
        """Look at 200 names that begin with the prefix, and delete the wanted ones that are old.

        `page` is where they begin, None the beginning. Returns the number that was deleted, and the next
        page. Needs storage.objects.list and storage.objects.delete.
        """

        def sweep(client: Any) -> tuple[int, str | None]:
            listed = client.list_blobs(
                bucket,
                prefix=prefix,
                max_results=_PAGE,
                page_token=page,
                fields="items(name,timeCreated),nextPageToken",
                **_patience(),
            )
            before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
            old = [one for one in listed if one.time_created < before and wanted(one.name)]
            for one in self._in_time(old):
                _delete(client, bucket, one.name)
            return len(old), listed.next_page_token

        return await self._run(sweep)

    async def _run(self, work: Callable[[Any], T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(_threads, copy_context().run, self._translated, work)
        except TimeoutError as exc:
            raise UpstreamUnavailable from exc

    def _translated(self, work: Callable[[Any], T]) -> T:
        from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption

        try:
            with self.client() as client:
                return work(client)
        except GoogleAPICallError as exc:
            passing = exc.code is None or exc.code in (408, 429) or exc.code >= 500
            error: UpstreamUnavailable | UpstreamFailed = (
                UpstreamUnavailable() if passing else UpstreamFailed()
            )
            error.vendor_code = str(int(exc.code)) if exc.code else None
            raise error from exc
        except (GoogleAPIError, GoogleAuthError, DataCorruption, OSError) as exc:  # requests raises OSError
            raise UpstreamUnavailable from exc

    def _in_time(self, items: Iterable[T]) -> Iterator[T]:
        """Raises TimeoutError between two items when the time is up: the thread must end soon."""
        until = time.monotonic() + self._timeout_seconds
        for item in items:
            if time.monotonic() > until:
                raise TimeoutError
            yield item


def _read_if_error(response: Any, **_: Any) -> None:
    """Free the connection: a refused download would hold it until it is garbage-collected."""
    if response.status_code >= 400:
        _ = response.content


def _patience() -> dict[str, Any]:
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=_PAUSE_SECONDS).with_timeout(_AGAIN_SECONDS)
    return {"timeout": _SILENCE_SECONDS, "retry": retry}


def _names(client: Any, bucket: str, stem: str) -> list[str]:
    fields = "items(name),nextPageToken"
    found = client.list_blobs(bucket, prefix=stem, max_results=_MOST_NAMES, fields=fields, **_patience())
    return [one.name for one in found]


def _delete(client: Any, bucket: str, name: str) -> None:
    from google.api_core.exceptions import NotFound

    with suppress(NotFound):
        client.bucket(bucket).blob(name).delete(**_patience())
