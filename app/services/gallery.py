"""Where finished pictures are stored: in a bucket, or on the spool while storage is down."""

import asyncio
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from app.contract.errors import UpstreamUnavailable
from app.contract.models import Model, Operation
from app.contract.pictures import EXTENSIONS, Picture
from app.ports import Spool, Storage

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stored:
    """One picture in its place."""

    picture: Picture
    bucket: str
    name: str
    url: str
    generated_at: datetime


@dataclass(frozen=True, slots=True)
class Gallery:
    """Stores pictures in `bucket`, or under the `gs://` URI that a caller named."""

    storage: Storage
    spool: Spool
    bucket: str
    _storing: set[asyncio.Task[tuple[Stored, ...]]] = field(default_factory=set)

    async def store(
        self, pictures: tuple[Picture, ...], operation: Operation, model: Model, uri: str | None = None
    ) -> tuple[Stored, ...]:
        """Store all pictures at once. They are paid for: once begun, it goes on when the caller has left.

        Raises UpstreamUnavailable when a picture had to be left on the spool.
        """
        task = asyncio.create_task(self._save_all(pictures, operation, model, uri))
        self._storing.add(task)
        task.add_done_callback(self._stored)
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Wait for pictures that are still being stored."""
        await asyncio.gather(*self._storing, return_exceptions=True)

    def _stored(self, task: asyncio.Task[tuple[Stored, ...]]) -> None:
        self._storing.discard(task)
        if not task.cancelled():
            task.exception()  # a caller who has left does not ask for it; the failure is logged already

    async def _save_all(
        self, pictures: tuple[Picture, ...], operation: Operation, model: Model, uri: str | None
    ) -> tuple[Stored, ...]:
        saved = await asyncio.gather(
            *(self._save(picture, operation, model, uri) for picture in pictures), return_exceptions=True
        )
        if failures := [one for one in saved if isinstance(one, BaseException)]:
            raise failures[0]
        return tuple(one for one in saved if isinstance(one, Stored))

    async def _save(self, picture: Picture, operation: Operation, model: Model, uri: str | None) -> Stored:
        now = datetime.now(UTC)
        filename = (
            f"{now:%Y%m%d_%H%M%S}_{model.short}_{operation}_{secrets.token_hex(12)}"
            f".{EXTENSIONS[picture.mime_type]}"
        )
        bucket, folder = self._place(operation, uri)
        name = folder + filename
        try:
            url = await self.storage.save(name, picture, bucket=bucket)
        except Exception as exc:  # whatever it was, the picture is paid for
            log.exception("upload failed, picture goes to the spool", bucket=bucket, object=name)
            await self.spool.keep(name, picture, bucket)
            raise UpstreamUnavailable from exc
        return Stored(picture, bucket, name, url, now)

    def _place(self, operation: Operation, uri: str | None) -> tuple[str, str]:
        """Bucket and folder."""
        if uri is None:
            return self.bucket, f"images/generated/{operation}/"
        bucket, _, folder = uri.removeprefix("gs://").partition("/")
        return bucket, folder.rstrip("/") + "/" if folder else ""
