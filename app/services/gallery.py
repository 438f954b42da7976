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
from app.services.made import Found, Stored

log = structlog.get_logger()

_CHECK_SECONDS = 1.0
"""How long a check of the spool stays valid."""
_STOP_SECONDS = 2.0
"""How long the end of the process waits for uploads of pictures that are safe on the spool."""
_AGAIN_SECONDS = 5.0
"""After this pause a picture is uploaded again that neither the bucket nor the spool has taken."""


@dataclass(slots=True)
class _Named:
    """A picture with its place and its number among the pictures of its call.

    `path` is its file on the spool, or None if the spool did not take it. A `hidden` picture must not be
    stored, only the one that is made from it.
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
    """Receives the pictures of one request that are to be stored (`app.ports.Landing`). A context manager.

    A picture that has landed and is not stored at the end stays on the spool, which uploads it later.
    """

    def __init__(self, gallery: "Gallery", operation: Operation, call: Call, uri: str | None) -> None:
        self.blobs = gallery.spool.blobs(call.blobs)
        self.call = call
        self._gallery = gallery
        self._operation = operation
        self._bucket, self._folder = gallery.place(operation, uri)
        self._named: dict[Blob, _Named] = {}
        self._landed: Counter[Place] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in list(self._named.values()):
            if not one.hidden:
                log.warning("a picture that is in no answer is stored", bucket=one.bucket, object=one.name)
                self._gallery.go_on(*self.take(one.picture), self.call)
        self.blobs.close()

    def place(self, model: Model, call_id: str, /) -> Place:
        now = datetime.now(UTC)
        stem = f"{self._folder}{now:%Y%m%d_%H%M%S}_{model.short}_{self._operation}_{call_id}-"
        return Place(self._bucket, stem, call_id)

    async def land(self, picture: Picture, place: Place, /, *, later: bool = False) -> None:
        one = _Named(picture, place, self._landed[place], datetime.now(UTC), hidden=later)
        self._landed[place] += 1
        await self._land(one)

    async def replace(self, raw: Picture, picture: Picture, /) -> None:
        old = self._named[raw.blob]
        await self._land(_Named(picture, old.place, old.number, old.at))
        self.discard(raw)

    async def _land(self, one: _Named) -> None:
        self._named[one.picture.blob] = one
        if not one.hidden:
            await self._gallery.land(one)

    def discard(self, picture: Picture, /) -> None:
        if (one := self._named.pop(picture.blob, None)) and one.path:
            self._gallery.spool.remove(one.path)
        picture.blob.close()

    def take(self, picture: Picture) -> tuple[_Named, Blobs]:
        """Hand over a picture that has landed. Returns it with a scope of its own, for its upload."""
        blobs, one = self.blobs.another(), self._named.pop(picture.blob)
        blobs.take(picture.blob)
        self.call.wish.stored(
            StoredPicture(one.place.call_id, one.number, one.bucket, one.name, picture.mime_type)
        )
        return one, blobs


class Gallery:
    """Stores pictures in `bucket`, or under the `gs://` URI that a caller named.

    A caller waits at most `wait_seconds` for storage, and not beyond `call.store_by`. A picture that is not
    in the bucket by then is on the spool, and its URL will work later. `retry_after` is that of StorageDown,
    in seconds.
    """

    def __init__(
        self, storage: Storage, spool: Spool, bucket: str, *, wait_seconds: float = 10, retry_after: int = 15
    ) -> None:
        self.spool = spool
        self._storage = storage
        self._bucket = bucket
        self._wait_seconds = wait_seconds
        self._retry_after = retry_after
        self._storing: dict[asyncio.Task[bool], _Named] = {}
        self._closing = asyncio.Event()
        self._checked = -_CHECK_SECONDS

    async def check(self) -> None:
        """Call this before paying. Raises StorageDown if the spool could not keep a picture."""
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
        """Returns the landing of a request's pictures. The caller closes it."""
        return Landing(self, operation, call, uri)

    async def store(self, pictures: tuple[Picture, ...], landing: Landing) -> tuple[Stored, ...]:
        """Upload pictures that have landed. They are paid for, so this goes on if the caller leaves.

        Raises StorageDown with the pending pictures if none could be stored in time.
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

    def found(self, found: Sequence[Found]) -> tuple[Stored, ...]:
        """Returns the pictures that are not private. Raises StorageDown if none of them is in its bucket."""
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

    def hurry(self) -> None:
        """Give up the uploads of pictures that are safe on the spool."""
        for upload, one in self._storing.items():
            if one.path:
                upload.cancel()

    async def aclose(self) -> None:
        """Wait until pictures are stored: at most 2 s for those on the spool, for others to the end."""
        self._closing.set()
        if self._storing:
            await asyncio.wait(self._storing, timeout=min(self._wait_seconds, _STOP_SECONDS))
        self.hurry()
        if self._storing:
            await asyncio.wait(self._storing)

    async def land(self, one: _Named) -> None:
        """Put a picture on the spool. If the spool is full, the picture stays where it is."""
        try:
            one.path = await self.spool.land(one.picture.blob, one.bucket, one.name)
        except NoRoom as exc:
            log.error("the spool does not take a paid picture", object=one.name, reason=str(exc))

    def go_on(self, one: _Named, blobs: Blobs, call: Call) -> None:
        """Store a picture that no caller waits for. `blobs` is its scope."""
        if one.path:
            self.spool.release(one.path)
            blobs.close()
        else:
            self._start(one, blobs, call)

    async def _upload(self, one: _Named, blobs: Blobs, call: Call) -> bool:
        """Returns True when the bucket has the picture, and False when the spool will upload it.

        Tries both again until one of them has taken it, or the process ends. Closes `blobs`.
        """
        again = False
        with blobs:
            while not await self._saved(one, call, again=again):
                if not one.path:
                    await self.land(one)
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

    async def _saved(self, one: _Named, call: Call, *, again: bool) -> bool:
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

    def _start(self, one: _Named, blobs: Blobs, call: Call) -> "asyncio.Task[bool]":
        """Start an upload that goes on if the caller leaves."""
        upload = asyncio.create_task(self._upload(one, blobs, call))
        self._storing[upload] = one
        upload.add_done_callback(self._storing.pop)
        return upload

    def place(self, operation: Operation, uri: str | None) -> tuple[str, str]:
        """Returns bucket and folder."""
        if uri is None:
            return self._bucket, f"images/generated/{operation}/"
        bucket, _, folder = uri.removeprefix("gs://").partition("/")
        return bucket, folder.rstrip("/") + "/" if folder else ""
