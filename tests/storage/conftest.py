"""An emulated Cloud Storage and the gateway's client of it."""

from collections.abc import AsyncIterator, Iterator
from io import BytesIO

import pytest
from PIL import Image

from app.contract.pictures import Picture, picture
from app.storage.gcs import Gcs
from tests.cloud_storage import CloudStorage, cloud_storage

BUCKET = "our-bucket"
WORKERS = 8


def drawn(colour: str) -> Picture:
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return picture(file.getvalue())


@pytest.fixture(scope="session")
def running_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStorage]:
    with cloud_storage(tmp_path_factory.mktemp("cloud") / "data") as running:
        yield running


@pytest.fixture
def store(running_store: CloudStorage) -> CloudStorage:
    return running_store.empty()


@pytest.fixture
async def gcs(store: CloudStorage) -> AsyncIterator[Gcs]:
    gcs = Gcs(
        project="our-project",
        bucket=BUCKET,
        public_base_url=f"{store.url}/public/",
        endpoint=store.url,
        workers=WORKERS,
        timeout_seconds=20,
    )
    yield gcs
    await gcs.aclose()
