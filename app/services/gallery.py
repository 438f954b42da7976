"""Stores finished pictures: on the spool as soon as they are whole, and from there in a bucket."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from app.contract.errors import StorageDown
from app.contract.ledger import StoredPicture
from app.contract.models import Model, Operation
from app.logs import causes
from app.pictures.blob import Blob, Blobs
from app.pictures.picture import EXTENSIONS, Picture
from app.pictures.room import NoRoom
from app.ports import Call, Place, Spool, Storage
from app.services.made import FoundPicture, Stored

log = structlog.get_logger()

_CHECK_SECONDS = 1.0
"""How long a check of the spool stays valid."""
_STOP_SECONDS = 2.0
"""How long the end of the process waits for uploads of pictures that are safe on the spool."""
_AGAIN_SECONDS = 5.0
"""The pause before a picture is tried again that neither the bucket nor the spool has taken."""


@dataclass(slots=True)
class _Landed:
    """A picture that has landed: its place, and its number among the pictures of its call.

    `path` is its file on the spool, or None if the spool did not take it. A `hidden` picture is not stored,
    only the finished picture that replaces it.
    """

    picture: Picture
    place: Place
    number: int
    at: datetime
    path: Path | None = None
    hidden: bool = False

    @property
    def bucket(self) -> str:
        return self.place.bucket

    @property
    def name(self) -> str:
        return f"{self.place.stem}{self.number}.{EXTENSIONS[self.picture.mime_type]}"


class Landing:
    """Stores the pictures of one request as they arrive. Implements `app.ports.Landing`.

    A context manager. Pictures that have landed, and that `Gallery.store` has not taken by the end of the
    `with` block, are uploaded later.
    """

    def __init__(self, gallery: "Gallery", operation: Operation, call: Call, uri: str | None) -> None:
        self.blobs = gallery.spool.blobs(call.blobs)
        self.call = call
        self._gallery = gallery
        self._operation = operation
        self._bucket, self._folder = gallery.destination(operation, uri)
        self._landed: dict[Blob, _Landed] = {}
        self._counts: Counter[Place] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in list(self._landed.values()):
            if not one.hidden:
                log.warning("a picture that is in no answer is stored", bucket=one.bucket, object=one.name)
                self._gallery.upload_later(*self.take(one.picture), self.call)
        self.blobs.close()

    def place(self, model: Model, call_id: str, /) -> Place:
        now = datetime.now(UTC)
        stem = f"{self._folder}{now:%Y%m%d_%H%M%S}_{model.short}_{self._operation}_{call_id}-"
        return Place(self._bucket, stem, call_id)

    async def land(self, picture: Picture, place: Place, /, *, later: bool = False) -> None:
        one = _Landed(picture, place, self._counts[place], datetime.now(UTC), hidden=later)
        self._counts[place] += 1
        await self._land(one)

    async def replace(self, raw: Picture, picture: Picture, /) -> None:
        old = self._landed[raw.blob]
        await self._land(_Landed(picture, old.place, old.number, old.at))
        self.discard(raw)

    async def _land(self, one: _Landed) -> None:
        self._landed[one.picture.blob] = one
        if not one.hidden:
            await self._gallery.put_on_spool(one)

    def discard(self, picture: Picture, /) -> None:
        if (one := self._landed.pop(picture.blob, None)) and one.path:
            self._gallery.spool.remove(one.path)
        picture.blob.close()

    def take(self, picture: Picture) -> tuple[_Landed, Blobs]:
        """Take out a picture for its upload. Returns it, and the scope that owns its blob from now on."""
        blobs, one = self.blobs.another(), self._landed.pop(picture.blob)
        blobs.take(picture.blob)
        self.call.wish.stored(
            StoredPicture(one.place.call_id, one.number, one.bucket, one.name, picture.mime_type)
        )
        return one, blobs


class Gallery:
    """Stores pictures in `bucket`, or under the `gs://` URI that a caller named.

    A caller waits at most `wait_seconds` for storage, and not beyond `call.store_by`. A picture that is not
    in the bucket by then is uploaded from the spool, and its URL will work later. `retry_after`, in seconds,
    is passed to StorageDown.
    """

    def __init__(
        self, storage: Storage, spool: Spool, bucket: str, *, wait_seconds: float = 10, retry_after: int = 15
    ) -> None:
        self.spool = spool
        self._storage = storage
        self._bucket = bucket
        self._wait_seconds = wait_seconds
        self._retry_after = retry_after
        self._storing: dict[asyncio.Task[bool], _Landed] = {}
        self._closing = asyncio.Event()
        self._checked = -_CHECK_SECONDS

    async def check(self) -> None:
        """Call this before paying. Raises StorageDown if the spool is full or not writable."""
        if time.monotonic() - self._checked < _CHECK_SECONDS:
            return
        try:
            await self.spool.ready()
        except OSError as exc:
            log.warning(
                "the spool is full or not writable: requests that store pictures are refused",
                folder=exc.filename,
                cause=causes(exc),
            )
            raise StorageDown(retry_after=self._retry_after) from exc
        self._checked = time.monotonic()

    def landing(self, operation: Operation, call: Call, uri: str | None = None) -> Landing:
        """Returns the landing for a request's pictures. Use it as a context manager."""
        return Landing(self, operation, call, uri)

    async def store(self, pictures: tuple[Picture, ...], landing: Landing) -> tuple[Stored, ...]:
        """Upload pictures that have landed. They are paid for: the uploads go on if this is cancelled.

        Returns what callers read about each picture. Raises StorageDown, with the pending pictures, if none
        is in the bucket in time.
        """
        taken = [landing.take(picture) for picture in pictures]
        uploads = [self._start(one, blobs, landing.call) for one, blobs in taken]
        left = landing.call.store_by - asyncio.get_running_loop().time()
        patience = self._wait_seconds if landing.call.progress.left else min(self._wait_seconds, max(left, 0))
        await asyncio.wait(uploads, timeout=patience)
        stored = tuple(
            Stored(
                one.bucket,
                one.name,
                self._storage.url(one.name, bucket=one.bucket),
                one.picture.mime_type,
                one.at,
                pending=not upload.done() or upload.cancelled() or not upload.result(),
            )
            for (one, _), upload in zip(taken, uploads, strict=True)
        )
        for one in stored:
            if one.pending:
                log.warning("a picture is not in the bucket yet", bucket=one.bucket, object=one.name)
        if all(one.pending for one in stored):
            raise StorageDown(tuple(one.image for one in stored), retry_after=self._retry_after)
        return stored

    def recovered(self, found: Sequence[FoundPicture]) -> tuple[Stored, ...]:
        """Returns what callers read about found pictures, without those in the private store.

        Raises StorageDown if none of them is in its bucket.
        """
        stored = tuple(
            Stored(
                one.call.bucket or "",
                one.name,
                self._storage.url(one.name, bucket=one.call.bucket or ""),
                one.row.mime_type,
                datetime.fromtimestamp((one.call.sent_at or one.call.created_at) / 1000, UTC),
                one.pending,
            )
            for one in found
            if not one.picture
        )
        if stored and all(one.pending for one in stored):
            raise StorageDown(tuple(one.image for one in stored), retry_after=self._retry_after)
        return stored

    def cancel_spooled_uploads(self) -> None:
        """Cancel the uploads of pictures that are on the spool, which keeps them for another process."""
        for upload, one in self._storing.items():
            if one.path:
                upload.cancel()

    async def aclose(self) -> None:
        """Wait for uploads under way: at most 2 s for pictures on the spool, without a limit for others."""
        self._closing.set()
        if self._storing:
            await asyncio.wait(self._storing, timeout=min(self._wait_seconds, _STOP_SECONDS))
        self.cancel_spooled_uploads()
        if self._storing:
            await asyncio.wait(self._storing)

    async def put_on_spool(self, one: _Landed) -> None:
        """Put a picture on the spool. If the spool is full, log that; `one.path` stays None."""
        try:
            one.path = await self.spool.land(one.picture.blob, one.bucket, one.name)
        except NoRoom as exc:
            log.error("the spool does not take a paid picture", object=one.name, reason=str(exc))

    def upload_later(self, one: _Landed, blobs: Blobs, call: Call) -> None:
        """Start the upload of a picture that no caller waits for. `blobs` is its scope."""
        if one.path:
            self.spool.release(one.path)
            blobs.close()
        else:
            self._start(one, blobs, call)

    async def _upload(self, one: _Landed, blobs: Blobs, call: Call) -> bool:
        """Returns True when the bucket has the picture, and False when the spool will upload it.

        Tries the bucket and the spool again until one has taken the picture, or the process ends. Closes
        `blobs`.
        """
        again = False
        with blobs:
            while not await self._saved(one, call, again=again):
                if not one.path:
                    await self.put_on_spool(one)
                if one.path:
                    self.spool.release(one.path)
                    return False
                if self._closing.is_set():
                    log.error("a paid picture is lost", bucket=one.bucket, object=one.name)
                    return False
                await self._pause()
                again = True
        return True

    async def _pause(self) -> None:
        """Return after a while, or at once if the process ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_SECONDS):
                await self._closing.wait()

    async def _saved(self, one: _Landed, call: Call, *, again: bool) -> bool:
        try:
            await self._storage.save(
                one.name, one.picture, bucket=one.bucket, again=again, trouble=call.trouble
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, the picture is kept
            log.warning(
                "a picture could not be uploaded",
                bucket=one.bucket,
                object=one.name,
                cause=causes(exc),
                vendor_code=getattr(exc, "vendor_code", None),
            )
            return False
        if one.path:
            self.spool.remove(one.path)
        return True

    def _start(self, one: _Landed, blobs: Blobs, call: Call) -> "asyncio.Task[bool]":
        """Start an upload that is not cancelled with the request."""
        upload = asyncio.create_task(self._upload(one, blobs, call))
        self._storing[upload] = one
        upload.add_done_callback(self._storing.pop)
        return upload

    def destination(self, operation: Operation, uri: str | None) -> tuple[str, str]:
        """Returns the bucket and the folder for `uri`, or the gateway's own. The folder ends with a slash."""
        if uri is None:
            return self._bucket, f"images/generated/{operation}/"
        bucket, _, folder = uri.removeprefix("gs://").partition("/")
        return bucket, folder.rstrip("/") + "/" if folder else ""
