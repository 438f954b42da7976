"""An emulated Cloud Storage, the gateway's client for it, and pictures to upload."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from app.pictures.blob import Blobs
from app.pictures.picture import Picture
from app.pictures.pieces import PIECE_BYTES
from app.pictures.work_folder import WorkFolder
from app.providers.transport import Transport
from app.storage.gcs import Gcs
from tests.support.cloud_storage import CloudStorage, cloud_storage

BUCKET = "our-bucket"

Draw = Callable[..., Picture]


def png(colour: str, size: int = 0) -> bytes:
    """Returns a PNG in this colour, padded with zeros to `size` bytes."""
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue().ljust(size, b"\0")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[WorkFolder]:
    """A work folder that keeps blobs of up to a million bytes in memory."""
    with WorkFolder(tmp_path / "work", blob_memory_bytes=1_000_000) as work:
        yield work


@pytest.fixture
def blobs(work: WorkFolder) -> Iterator[Blobs]:
    with work.blobs() as blobs:
        yield blobs


@pytest.fixture
def drawn(blobs: Blobs) -> Draw:
    """Makes pictures in a colour, of at least `size` bytes."""

    def draw(colour: str, size: int = 0) -> Picture:
        return Picture(blobs.of(png(colour, size)), "image/png", (8, 8))

    return draw


@pytest.fixture(scope="session")
def running_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStorage]:
    with cloud_storage(tmp_path_factory.mktemp("cloud") / "data") as running:
        yield running


@pytest.fixture
def store(running_store: CloudStorage) -> CloudStorage:
    return running_store.empty()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.aclose()


@pytest.fixture
def gcs(store: CloudStorage, transport: Transport) -> Gcs:
    return client(transport, store.url)


def client(transport: Transport, endpoint: str, *, timeout_seconds: float = 20) -> Gcs:
    return Gcs(
        transport=transport,
        project="our-project",
        bucket=BUCKET,
        public_base_url=f"{endpoint}/public/",
        endpoint=endpoint,
        timeout_seconds=timeout_seconds,
    )


@asynccontextmanager
async def sink(*, bytes_per_second: float = math.inf) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that discards uploads. Yields its URL, and a list that collects the heads of requests."""
    heads: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                left = int(found[1]) if found else 0
                while left:
                    piece = await reader.read(min(left, PIECE_BYTES))
                    left -= len(piece)
                    await asyncio.sleep(len(piece) / bytes_per_second)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                )
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
