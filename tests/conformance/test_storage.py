"""What every storage promises: `app.ports.Storage`, and `Buckets` for reading back.

The stores of the ledger have their suite in tests/storage/test_ledger.py, which runs on each of them.
"""

import pytest

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.pictures.blob import Blobs
from app.pictures.picture import Picture
from app.providers.transport import Transport
from app.storage.gcs import Gcs
from tests.storage.conftest import BUCKET, Draw, client
from tests.support.cloud_storage import CloudStorage

pytestmark = pytest.mark.anyio

NAME = "images/0f ü~/a.png"
OTHER = "another-bucket"


def data(picture: Picture) -> bytes:
    return b"".join(picture.blob.pieces())


@pytest.fixture
def picture(drawn: Draw) -> Picture:
    return drawn("red")


async def test_what_is_saved_is_found_and_fetched(gcs: Gcs, picture: Picture, blobs: Blobs) -> None:
    url = await gcs.save(NAME, picture)
    assert url == gcs.url(NAME, bucket=BUCKET)
    assert await gcs.names(BUCKET, "images/0f") == [NAME]
    assert data(await gcs.fetch(NAME, blobs, bucket=BUCKET)) == data(picture)


async def test_each_bucket_has_its_own_names(gcs: Gcs, picture: Picture) -> None:
    await gcs.save(NAME, picture, bucket=OTHER)
    assert await gcs.names(BUCKET, "images/") == []
    assert await gcs.names(OTHER, "images/") == [NAME]


async def test_a_name_is_taken_once(gcs: Gcs, picture: Picture) -> None:
    url = await gcs.save(NAME, picture)
    with pytest.raises(UpstreamFailed):
        await gcs.save(NAME, picture)
    assert await gcs.save(NAME, picture, again=True) == url


async def test_an_object_that_is_missing_is_a_failure(gcs: Gcs, blobs: Blobs) -> None:
    with pytest.raises(UpstreamFailed):
        await gcs.fetch(NAME, blobs, bucket=BUCKET)


async def test_a_store_that_is_down_can_be_asked_again(
    store: CloudStorage, transport: Transport, picture: Picture
) -> None:
    impatient = client(transport, store.url, timeout_seconds=0.5)
    with pytest.raises(UpstreamUnavailable):
        await impatient.save(NAME, picture, trouble="storage-down=30")
    assert await impatient.names(BUCKET, "images/") == []
