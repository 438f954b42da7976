"""Where finished pictures are stored: in a bucket, or on the spool while storage is slow or down."""

import asyncio
import secrets
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from app.contract.answer import StoredImage
from app.contract.errors import StorageDown, UpstreamFailed
from app.contract.models import Model, Operation
from app.logs import causes
from app.pictures.blob import Blobs
from app.pictures.picture import EXTENSIONS, Picture
from app.ports import Call, Spool, Storage

T = TypeVar("T")

log = structlog.get_logger()

_CHECK_SECONDS = 1.0
"""How long a check of the spool stays valid."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored picture. `pending` if it is not in the bucket yet. `name` is the object's name."""

    bucket: str
    name: str
    url: str
    mime_type: str
    generated_at: datetime
    pending: bool

    @property
    def image(self) -> StoredImage:
        """The picture as the API documents show it."""
        generated_at = self.generated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return StoredImage(
            url=self.url,
            filename=self.name.rpartition("/")[2],
            mime_type=self.mime_type,
            generated_at=generated_at,
        )


class Gallery:
    """Stores pictures in `bucket`, or under the `gs://` URI that a caller named.

    A caller waits at most `wait_seconds` for storage, never beyond `call.store_by`. A picture that is not in
    the bucket by then waits on the spool, and its URL will work later. `retry_after` (seconds) goes into
    StorageDown.
    """

    def __init__(
        self, storage: Storage, spool: Spool, bucket: str, *, wait_seconds: float = 10, retry_after: int = 15
    ) -> None:
        self._storage = storage
        self._spool = spool
        self._bucket = bucket
        self._wait_seconds = wait_seconds
        self._retry_after = retry_after
        self._storing: set[asyncio.Task[object]] = set()
        self._checked = -_CHECK_SECONDS

    async def check(self) -> None:
        """Call this before paying. Raises StorageDown if the spool could not keep a picture."""
        if time.monotonic() - self._checked < _CHECK_SECONDS:
            return
        try:
            await self._spool.ready()
        except OSError as exc:
            log.warning(
                "the spool is full or not writable: requests that store pictures are refused",
                cause=causes(exc),
            )
            raise StorageDown(retry_after=self._retry_after) from exc
        self._checked = time.monotonic()

    async def store(
        self,
        pictures: tuple[Picture, ...],
        operation: Operation,
        model: Model,
        call: Call,
        uri: str | None = None,
    ) -> tuple[Stored, ...]:
        """Store all pictures at the same time. They are paid for, so this goes on if the caller leaves.

        The pictures belong to the gallery from now on: each is deleted when it is stored. Raises StorageDown
        with the pending pictures if none could be stored in time.
        """
        storing = [
            self._store(picture, _taken(picture, call), operation, model, call, uri) for picture in pictures
        ]
        stored = await asyncio.shield(self._task(_store_all(storing)))
        if all(one.pending for one in stored):
            raise StorageDown(tuple(one.image for one in stored), retry_after=self._retry_after)
        return stored

    async def aclose(self) -> None:
        """Wait for pictures that are still being stored."""
        while self._storing:
            await asyncio.wait(self._storing)

    async def _store(
        self, picture: Picture, blobs: Blobs, operation: Operation, model: Model, call: Call, uri: str | None
    ) -> Stored:
        """`blobs` holds the picture and nothing else, and is closed when the picture is stored."""
        now = datetime.now(UTC)
        filename = (
            f"{now:%Y%m%d_%H%M%S}_{model.short}_{operation}_{secrets.token_hex(12)}"
            f".{EXTENSIONS[picture.mime_type]}"
        )
        bucket, folder = self._place(operation, uri)
        name = folder + filename
        with ExitStack() as held:
            held.enter_context(blobs)
            upload = self._task(self._storage.save(name, picture, bucket=bucket, trouble=call.trouble))
            left = call.store_by - asyncio.get_running_loop().time()
            await asyncio.wait((upload,), timeout=min(self._wait_seconds, max(left, 0)))
            pending = not upload.done() or upload.exception() is not None
            if pending:
                await self._keep(name, picture, bucket, upload, held)
        url = self._storage.url(name, bucket=bucket)
        return Stored(bucket, name, url, picture.mime_type, now, pending)

    async def _keep(
        self, name: str, picture: Picture, bucket: str, upload: "asyncio.Task[str]", held: ExitStack
    ) -> None:
        """Put the picture on the spool. Raises UpstreamFailed if the spool and the upload have both
        failed. If the upload goes on, it takes over what is `held`."""
        failure = upload.exception() if upload.done() else None
        log.warning(
            "picture goes to the spool",
            bucket=bucket,
            object=name,
            cause=causes(failure) if failure else "slow",
            vendor_code=getattr(failure, "vendor_code", None),
        )
        try:
            await self._spool.keep(name, picture, bucket)
        except UpstreamFailed as exc:
            if upload.done():
                raise
            log.error(
                "the spool does not take the picture: its upload goes on", object=name, cause=causes(exc)
            )
            self._task(self._keep_after(upload, name, picture, bucket, held.pop_all()))
        else:
            upload.cancel()

    async def _keep_after(
        self, upload: "asyncio.Task[str]", name: str, picture: Picture, bucket: str, held: ExitStack
    ) -> None:
        """The caller has the picture's URL: when its upload fails after all, ask the spool once more."""
        with held:
            await asyncio.wait((upload,))
            if not upload.exception():
                return
            try:
                await self._spool.keep(name, picture, bucket)
            except UpstreamFailed:
                log.error("a paid picture is lost", object=name, cause=causes(upload.exception()))

    def _task(self, work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
        """Run the work to its end, also if the caller leaves."""
        task = asyncio.create_task(work)
        self._storing.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[object]") -> None:
        self._storing.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen if the caller has left; the failure is logged already

    def _place(self, operation: Operation, uri: str | None) -> tuple[str, str]:
        """Bucket and folder."""
        if uri is None:
            return self._bucket, f"images/generated/{operation}/"
        bucket, _, folder = uri.removeprefix("gs://").partition("/")
        return bucket, folder.rstrip("/") + "/" if folder else ""


def _taken(picture: Picture, call: Call) -> Blobs:
    """Returns a scope of the picture alone: it shall outlive its request."""
    blobs = call.blobs.another()
    blobs.take(picture.blob)
    return blobs


async def _store_all(storing: list[Coroutine[object, object, Stored]]) -> tuple[Stored, ...]:
    """Returns those that could be stored. Raises the first failure if there are none."""
    outcomes = await asyncio.gather(*storing, return_exceptions=True)
    stored = tuple(one for one in outcomes if isinstance(one, Stored))
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            log.error("a paid picture is lost", cause=causes(outcome))
            if not stored:
                raise outcome
    return stored
