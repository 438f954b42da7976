"""The six image operations: check, make with whichever model serves, store, answer."""

import asyncio
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from pydantic import BaseModel

from app.contract.errors import GatewayError, InvalidRequest, UpstreamUnavailable
from app.contract.image import (
    Filtered,
    ImageRequest,
    ImageUpscale,
    Prediction,
    Predictions,
    StoredImage,
    StoredImages,
    TextToImage,
)
from app.contract.models import Catalogue, Model
from app.contract.pictures import EXTENSIONS, GcsUri, Picture
from app.ports import Generation, Provider, Spool, Storage
from app.services.budget import Budget
from app.services.chain import Chain

log = structlog.get_logger()

_SAMPLE_BYTES = 3_000_000
"""What one sample of a megapixel holds until it is stored (performance.md)."""


_GCS_URI = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\x00-\x1f\x7f]{0,900})?")


@dataclass(frozen=True, slots=True)
class Stored:
    """One picture in its place."""

    picture: Picture
    bucket: str
    name: str
    url: str
    generated_at: datetime


@dataclass(frozen=True, slots=True)
class Images:
    """`allowed_prefixes`: the `gs://` prefixes that callers may read from and store under."""

    provider: Provider[ImageRequest]
    storage: Storage
    spool: Spool
    chain: Chain
    budget: Budget
    catalogue: Catalogue
    bucket: str
    allowed_prefixes: tuple[str, ...]
    _storing: set[asyncio.Task[tuple[Stored, ...]]] = field(default_factory=set)

    async def make(self, request: ImageRequest) -> StoredImages | Predictions:
        """Make the pictures of one request, and store them when it asks for URLs."""
        self._check_uris(request)
        named = self._named(request)
        async with self.budget.hold(_weight(request)):
            model, generation = await self.chain.run(named, lambda model: self.provider.run(request, model))
            requested = None if model.id == named else named
            filtered = tuple(Filtered.of(block) for block in generation.filtered) or None
            if request.storage_uri is None and request.response_format == "b64_json":
                predictions = tuple(
                    Prediction(bytes_base64_encoded=picture.base64, mime_type=picture.mime_type)
                    for picture in generation.pictures
                )
                return Predictions(
                    predictions=predictions, model=model.id, requested_model=requested, filtered=filtered
                )
            stored = await self._store(request, model, generation)
        if request.response_format == "url":
            images = tuple(_image(one) for one in stored)
            return StoredImages(model=model.id, requested_model=requested, images=images, filtered=filtered)
        predictions = tuple(_prediction(one) for one in stored)
        return Predictions(
            predictions=predictions, model=model.id, requested_model=requested, filtered=filtered
        )

    async def aclose(self) -> None:
        """Wait for pictures that are still being stored."""
        await asyncio.gather(*self._storing, return_exceptions=True)

    def _named(self, request: ImageRequest) -> str:
        model = request.model if isinstance(request, TextToImage) else None
        return model or self.catalogue.defaults[request.operation]

    def _check_uris(self, request: ImageRequest) -> None:
        named = [("storageUri", request.storage_uri)] if request.storage_uri is not None else []
        for name, uri in [*named, *_gcs_uris(request)]:
            under = any(f"{uri}/".startswith(prefix) for prefix in self.allowed_prefixes)
            if not under or not _GCS_URI.fullmatch(uri):
                raise InvalidRequest([f"{name} must be a gs:// URI under one of the allowed prefixes"])

    async def _store(self, request: ImageRequest, model: Model, generation: Generation) -> tuple[Stored, ...]:
        """Store all pictures at once. They are paid for: once begun, it goes on when the caller has left."""
        task = asyncio.create_task(self._save_all(request, model, generation.pictures))
        self._storing.add(task)
        task.add_done_callback(self._stored)
        return await asyncio.shield(task)

    def _stored(self, task: asyncio.Task[tuple[Stored, ...]]) -> None:
        self._storing.discard(task)
        if not task.cancelled():
            task.exception()  # a caller who has left does not ask for it; the failure is logged already

    async def _save_all(
        self, request: ImageRequest, model: Model, pictures: tuple[Picture, ...]
    ) -> tuple[Stored, ...]:
        saved = await asyncio.gather(
            *(self._save(request, model, picture) for picture in pictures), return_exceptions=True
        )
        if failures := [one for one in saved if isinstance(one, BaseException)]:
            raise failures[0]
        return tuple(one for one in saved if isinstance(one, Stored))

    async def _save(self, request: ImageRequest, model: Model, picture: Picture) -> Stored:
        now = datetime.now(UTC)
        filename = (
            f"{now:%Y%m%d_%H%M%S}_{model.short}_{request.operation}_{secrets.token_hex(12)}"
            f".{EXTENSIONS[picture.mime_type]}"
        )
        bucket, folder = self._place(request)
        name = folder + filename
        try:
            url = await self.storage.save(name, picture, bucket=bucket)
        except GatewayError as exc:
            log.exception("upload failed, picture goes to the spool", bucket=bucket, object=name)
            await self.spool.keep(name, picture, bucket)
            raise UpstreamUnavailable from exc
        return Stored(picture, bucket, name, url, now)

    def _place(self, request: ImageRequest) -> tuple[str, str]:
        """Bucket and folder: under `storageUri`, or our own."""
        if request.storage_uri is None:
            return self.bucket, f"images/generated/{request.operation}/"
        bucket, _, folder = request.storage_uri.removeprefix("gs://").partition("/")
        return bucket, folder.rstrip("/") + "/" if folder else ""


def _weight(request: ImageRequest) -> int:
    """Bytes the call may hold: its answer's pictures; an upscaled one grows with its pixels."""
    if isinstance(request, ImageUpscale) and isinstance(request.image, Picture):
        width, height = request.image.size
        return 3 * width * height * int(request.upscale_factor[1:]) ** 2
    return _SAMPLE_BYTES * request.sample_count


def _gcs_uris(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and URI of every picture that is given as `gs://`."""
    if isinstance(value, GcsUri):
        yield path, value.uri
    elif isinstance(value, tuple):
        for index, element in enumerate(value):
            yield from _gcs_uris(element, f"{path}.{index}")
    elif isinstance(value, BaseModel):
        for name, declared in type(value).model_fields.items():
            inner = declared.alias or name
            yield from _gcs_uris(getattr(value, name), f"{path}.{inner}" if path else inner)


def _image(stored: Stored) -> StoredImage:
    generated_at = stored.generated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return StoredImage(
        url=stored.url,
        filename=stored.name.rpartition("/")[2],
        mime_type=stored.picture.mime_type,
        generated_at=generated_at,
    )


def _prediction(stored: Stored) -> Prediction:
    return Prediction(
        gcs_uri=f"gs://{stored.bucket}/{stored.name}", url=stored.url, mime_type=stored.picture.mime_type
    )
