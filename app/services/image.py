"""The six image operations: check, make with whichever model serves, store, answer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from app.contract.answer import Filtered, Prediction, Predictions, StoredImages
from app.contract.errors import InvalidRequest
from app.contract.image import (
    ImageRequest,
    ImageUpscale,
    TextToImage,
)
from app.contract.models import Catalogue
from app.contract.pictures import GcsUri, Picture
from app.ports import Provider
from app.services.budget import Budget
from app.services.chain import Chain
from app.services.gallery import Gallery, Stored

_SAMPLE_BYTES = 3_000_000
"""What one sample of a megapixel holds until it is stored (performance.md)."""


_GCS_URI = re.compile(
    r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/(?!\.well-known/acme-challenge)[^\x00-\x1f\x7f]*)?"
)
_MAX_URI_BYTES = 900
"""With a file's name behind it, an object's name may have 1024 bytes."""


@dataclass(frozen=True, slots=True)
class Images:
    """`allowed_prefixes`: the `gs://` prefixes that callers may read from and store under."""

    provider: Provider[ImageRequest]
    gallery: Gallery
    chain: Chain
    budget: Budget
    catalogue: Catalogue
    allowed_prefixes: tuple[str, ...]

    async def make(self, request: ImageRequest) -> StoredImages | Predictions:
        """Make the pictures of one request, and store them when it asks for URLs."""
        self._check_uris(request)
        named = self._named(request)
        to_store = request.response_format == "url" or request.storage_uri is not None
        async with self.budget.hold(_weight(request)):
            if to_store:
                await self.gallery.check()  # not before the queue: there may be minutes between
            model, generation = await self.chain.run(named, lambda model: self.provider.run(request, model))
            stored: tuple[Stored, ...] = ()
            if to_store:  # within the budget: the pictures are in memory until they are stored or spooled
                stored = await self.gallery.store(
                    generation.pictures, request.operation, model, request.storage_uri
                )
        requested = None if model.id == named else named
        filtered = tuple(Filtered.of(block) for block in generation.filtered) or None
        if not to_store:
            predictions = tuple(
                Prediction(bytes_base64_encoded=picture, mime_type=picture.mime_type)
                for picture in generation.pictures
            )
            return Predictions(
                predictions=predictions,
                model=model.id,
                requested_model=requested,
                filtered=filtered,
                mask_applied=generation.mask_applied,
            )
        arrived = [one for one in stored if not one.pending]
        pending = tuple(one.image for one in stored if one.pending) or None
        if request.response_format == "url":
            return StoredImages(
                model=model.id,
                requested_model=requested,
                images=tuple(one.image for one in arrived),
                filtered=filtered,
                pending=pending,
                mask_applied=generation.mask_applied,
            )
        return Predictions(
            predictions=tuple(_prediction(one) for one in arrived),
            model=model.id,
            requested_model=requested,
            filtered=filtered,
            pending=pending,
            mask_applied=generation.mask_applied,
        )

    def _named(self, request: ImageRequest) -> str:
        model = request.model if isinstance(request, TextToImage) else None
        return model or self.catalogue.defaults[request.operation]

    def _check_uris(self, request: ImageRequest) -> None:
        folder = [("storageUri", f"{request.storage_uri}/")] if request.storage_uri is not None else []
        for name, uri in [*folder, *_gcs_uris(request)]:
            legal = _GCS_URI.fullmatch(uri) and len(uri.encode()) <= _MAX_URI_BYTES
            if not legal or not uri.startswith(self.allowed_prefixes):
                raise InvalidRequest([f"{name} must be a gs:// URI under one of the allowed prefixes"])


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


def _prediction(stored: Stored) -> Prediction:
    return Prediction(
        gcs_uri=f"gs://{stored.bucket}/{stored.name}", url=stored.url, mime_type=stored.mime_type
    )
