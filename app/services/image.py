"""Serves the six image operations: checks the request, makes the pictures, and stores them on request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel

from app.contract import gcs
from app.contract.errors import InvalidRequest
from app.contract.image import ImageRequest, TextToImage
from app.contract.models import Catalogue, Model
from app.contract.references import ImageEdit
from app.pictures.picture import GcsUri
from app.ports import Call, Generation, Provider
from app.services.chain import Chain
from app.services.gallery import Gallery
from app.services.made import FoundPicture, Made, Stored


@dataclass(frozen=True, slots=True)
class Images:
    """Makes the pictures of the six image operations.

    `providers` make the pictures, by vendor. `allowed_prefixes` are the `gs://` prefixes that callers may
    read from and store under.
    """

    providers: Mapping[str, Provider[ImageRequest]]
    gallery: Gallery
    chain: Chain
    catalogue: Catalogue
    allowed_prefixes: tuple[str, ...]

    async def make(self, request: ImageRequest, call: Call) -> Made:
        """Make the pictures for a request, and store them if it asks for URLs. Raises `contract.errors`."""
        self._check_uris(request)
        named = self._named(request)
        to_store = request.response_format == "url" or request.storage_uri is not None
        call.progress.keeps_pictures = to_store or call.landing is not None

        async def run(model: Model) -> Generation:
            return await self.providers[model.vendor].run(request, model, call)

        if not to_store:
            call.blobs.check()
            model, generation = await self.chain.run(named, run, rehearsed=call.trouble)
            stored: tuple[Stored, ...] = ()
        else:
            await self.gallery.check()
            with self.gallery.landing(request.operation, call, request.storage_uri) as landing:
                call = replace(call, landing=landing)
                model, generation = await self.chain.run(named, run, rehearsed=call.trouble)
                stored = await self.gallery.store(generation.pictures, landing)
        return Made(
            model,
            named,
            generation.pictures,
            stored,
            generation.filtered,
            generation.failed,
            generation.mask_applied,
        )

    async def recovered(self, request: ImageRequest, found: Sequence[FoundPicture], call: Call) -> Made:
        """Returns the result for an interrupted request, from its found pictures. Raises StorageDown."""
        model = self.catalogue[found[0].call.model]
        masked = request if isinstance(request, ImageEdit) and model.family == "gemini" else None
        return Made(
            model,
            self._named(request),
            tuple(one.picture for one in found if one.picture),
            self.gallery.recovered(found),
            mask_applied=masked.mask_applied if masked else None,
        )

    def _named(self, request: ImageRequest) -> str:
        model = request.model if isinstance(request, TextToImage) else None
        return model or self.catalogue.defaults[request.operation]

    def _check_uris(self, request: ImageRequest) -> None:
        folder = [("storageUri", f"{request.storage_uri}/")] if request.storage_uri is not None else []
        for name, uri in [*folder, *_gcs_uris(request)]:
            legal = gcs.URI.fullmatch(uri) and len(uri.encode()) <= gcs.MAX_URI_BYTES
            if not legal or not uri.startswith(self.allowed_prefixes):
                raise InvalidRequest([f"{name} must be a gs:// URI under one of the allowed prefixes"])


def _gcs_uris(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted path and the URI of every picture that is a `gs://` URI."""
    if isinstance(value, GcsUri):
        yield path, value.uri
    elif isinstance(value, tuple):
        for index, element in enumerate(value):
            yield from _gcs_uris(element, f"{path}.{index}")
    elif isinstance(value, BaseModel):
        for name, declared in type(value).model_fields.items():
            inner = declared.alias or name
            yield from _gcs_uris(getattr(value, name), f"{path}.{inner}" if path else inner)
