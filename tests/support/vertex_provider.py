"""The Vertex provider as the services use it, against the emulator over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pybase64
from PIL import Image

from app.contract.image import ImageRequest, TextToImage
from app.contract.models import Model, load_catalogue
from app.contract.reading import Contract, read
from app.emulator.server import Emulator
from app.pictures.blob import Blobs
from app.pictures.picture import Picture
from app.pictures.work_folder import WorkFolder
from app.ports import Call, Generation
from app.providers.transport import Transport
from app.providers.vertex.address import Addresses
from app.providers.vertex.client import Vertex
from app.services.admission import Admission
from tests.support.fake_wish import NotedWish

T = TypeVar("T", bound=Contract)
Json = dict[str, Any]

CATALOGUE = load_catalogue()
IMAGEN = CATALOGUE["imagen-4.0-generate-001"]
GEMINI = CATALOGUE["gemini-2.5-flash-image"]


@dataclass(frozen=True)
class Caller:
    """Calls the provider. Its pictures are readable until `blobs` is closed."""

    vertex: Vertex
    blobs: Blobs

    def read(self, contract: type[T], body: Json) -> T:
        return read(contract, deepcopy(body), CATALOGUE, self.blobs)  # `read` puts blobs into the body

    def text_to_image(self, **fields: Any) -> TextToImage:
        return self.read(TextToImage, {"prompt": "a cat", **fields})

    async def run(
        self, request: ImageRequest, model: Model, *, seconds: float = 20, trouble: str | None = None
    ) -> Generation:
        ends = asyncio.get_running_loop().time() + seconds
        call = Call(
            "tester",
            "request-1",
            answer_by=ends,
            store_by=ends,
            ends=ends,
            blobs=self.blobs,
            wish=NotedWish(),
            trouble=trouble,
        )
        return await self.vertex.run(request, model, call)


@asynccontextmanager
async def calling(emulator: Emulator | None = None, **settings: Any) -> AsyncIterator[Caller]:
    """Yields a caller of Vertex. `settings` are arguments of Vertex and Addresses."""
    transport = settings.pop("transport", None) or Transport()
    if emulator:
        settings["endpoint"] = emulator.http_url
    defaults = {"pause_seconds": 0.01, "admission": Admission(100, 100)}
    where = {name: settings.pop(name) for name in ("location", "endpoint") if name in settings}
    vertex = Vertex(transport=transport, addresses=Addresses("demo", **where), **{**defaults, **settings})
    with scope() as blobs:
        try:
            yield Caller(vertex, blobs)
        finally:
            await transport.aclose()


@contextmanager
def scope() -> Iterator[Blobs]:
    with (
        TemporaryDirectory() as folder,
        WorkFolder(Path(folder) / "work", blob_memory_bytes=100_000) as work,
        work.blobs() as blobs,
    ):
        yield blobs


def without(model: Model, *capabilities: str) -> Model:
    """Returns the model without these capabilities."""
    kept = tuple(one for one in model.capabilities if one not in capabilities)
    return model.model_copy(update={"capabilities": kept})


def data(picture: Picture) -> bytes:
    return b"".join(picture.blob.pieces())


def opened(picture: Picture) -> Image.Image:
    return Image.open(BytesIO(data(picture)))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> str:
    file = BytesIO()
    image.save(file, format, **options)
    return pybase64.b64encode_as_string(file.getvalue())
