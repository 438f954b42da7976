"""Pictures on their way to Cloud Storage: Google's own client against the emulated store."""

import asyncio
import inspect
import socket
from types import ModuleType
from typing import Any

import google.api_core.exceptions
import google.auth.exceptions
import google.cloud.storage.exceptions
import httpx
import pytest
import requests.exceptions
import urllib3.exceptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.contract.pictures import Picture
from app.emulator.trouble import Kind
from app.storage.gcs import Gcs, translated
from tests.cloud_storage import CloudStorage
from tests.storage.conftest import BUCKET, WORKERS, drawn

pytestmark = pytest.mark.anyio

NAME = "images/generated/text-to-image/20260101_000000_imagen4_text-to-image_0f ü~.png"
INSERT = "objects.insert"


def stored(store: CloudStorage, bucket: str = BUCKET) -> dict[str, bytes]:
    """What is in a bucket: names and bytes."""
    names = [resource["name"] for resource in store.objects.list(bucket)]
    objects = {name: store.objects.get(bucket, name) for name in names}
    return {name: found.data for name, found in objects.items() if found}


async def test_save_answers_with_a_url_that_shows_the_picture(store: CloudStorage, gcs: Gcs) -> None:
    red = drawn("red")
    url = await gcs.save(NAME, red)
    assert url == (
        f"{store.url}/public/{BUCKET}/images/generated/text-to-image/"
        "20260101_000000_imagen4_text-to-image_0f%20%C3%BC~.png"
    )
    async with httpx.AsyncClient() as browser:
        seen = await browser.get(url)
    assert (seen.status_code, seen.content) == (200, red.data)
    assert seen.headers["content-type"] == "image/png"
    assert seen.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_save_is_one_request_and_nothing_behind_our_back(store: CloudStorage, gcs: Gcs) -> None:
    await gcs.save(NAME, drawn("red"))
    (call,) = store.calls.list()
    assert (call.method, call.status) == (INSERT, 200)
    assert {key: call.body[key] for key in ("bucket", "uploadType", "ifGenerationMatch")} == {
        "bucket": BUCKET,
        "uploadType": "multipart",
        "ifGenerationMatch": "0",
    }
    assert set(call.body["resource"]) == {"name", "cacheControl", "contentType", "crc32c"}


async def test_save_takes_another_bucket(store: CloudStorage, gcs: Gcs) -> None:
    url = await gcs.save("a.png", drawn("red"), bucket="their-bucket")
    assert url == f"{store.url}/public/their-bucket/a.png"
    assert (stored(store), stored(store, "their-bucket")) == ({}, {"a.png": drawn("red").data})


async def test_save_takes_a_picture_that_needs_a_resumable_upload(store: CloudStorage, gcs: Gcs) -> None:
    large = Picture(drawn("red").data.ljust(9 * 1024 * 1024, b"\0"), "image/png", (8, 8))
    await gcs.save(NAME, large)
    assert stored(store) == {NAME: large.data}
    assert store.statuses() == [(INSERT, 200), (INSERT, 200)]


async def test_save_again_keeps_the_first(store: CloudStorage, gcs: Gcs) -> None:
    assert await gcs.save(NAME, drawn("red")) == await gcs.save(NAME, drawn("blue"), again=True)
    assert stored(store) == {NAME: drawn("red").data}
    assert store.statuses() == [(INSERT, 200), (INSERT, 412)]


async def test_a_name_that_is_taken_at_a_first_try_is_no_success(store: CloudStorage, gcs: Gcs) -> None:
    await gcs.save(NAME, drawn("red"))
    with pytest.raises(UpstreamFailed):
        await gcs.save(NAME, drawn("blue"))


@pytest.mark.parametrize(
    ("kind", "arg", "first_try"),
    [
        pytest.param("drop", None, None, id="stored, answer lost"),
        pytest.param("storage-down", None, 503, id="503"),
        pytest.param("500", None, 500, id="500"),
        pytest.param("429", None, 429, id="429"),
        pytest.param("answer", {"status": 408, "body": {}}, 408, id="408"),
        pytest.param("answer", {"status": 502, "body": {}}, 502, id="502"),
        pytest.param("answer", {"status": 504, "body": {}}, 504, id="504"),
    ],
)
@pytest.mark.parametrize("size", [pytest.param(0, id="small"), pytest.param(9 * 1024 * 1024, id="large")])
async def test_save_tries_again_and_stores_once(
    store: CloudStorage, gcs: Gcs, kind: Kind, arg: Any, first_try: int | None, size: int
) -> None:
    red = Picture(drawn("red").data.ljust(size, b"\0"), "image/png", (8, 8))
    store.troubles.set(kind, vendor="gcs", times=1, arg=arg)
    url = await gcs.save(NAME, red)
    assert stored(store) == {NAME: red.data}
    assert store.statuses()[0] == (INSERT, first_try)
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(url)).content == red.data


async def test_a_large_upload_whose_last_answer_is_lost_is_stored_once(store: CloudStorage, gcs: Gcs) -> None:
    large = Picture(drawn("red").data.ljust(9 * 1024 * 1024, b"\0"), "image/png", (8, 8))
    store.troubles.set("slow", vendor="gcs", times=1, arg=0)  # the start of the upload
    store.troubles.set("drop", vendor="gcs", times=1)  # its end
    await gcs.save(NAME, large)
    assert stored(store) == {NAME: large.data}
    assert store.statuses() == [(INSERT, 200), (INSERT, None), (INSERT, 412)]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409])
async def test_save_gives_up_at_once_when_another_try_is_of_no_use(
    store: CloudStorage, gcs: Gcs, status: int
) -> None:
    store.troubles.set("answer", vendor="gcs", arg={"status": status, "body": {"error": {"code": status}}})
    with pytest.raises(UpstreamFailed) as caught:
        await gcs.save(NAME, drawn("red"))
    assert caught.value.message == ""
    assert isinstance(caught.value.__cause__, GoogleAPICallError | GoogleAuthError)
    assert store.statuses() == [(INSERT, status)]


@pytest.mark.parametrize("kind", ["storage-down", "hang"])
async def test_save_gives_up_when_its_time_is_over(store: CloudStorage, kind: Kind) -> None:
    hasty = Gcs(
        project="p", bucket=BUCKET, public_base_url="", endpoint=store.url, workers=1, timeout_seconds=0.5
    )
    store.troubles.set(kind, vendor="gcs")
    with pytest.raises(UpstreamUnavailable) as caught:
        await hasty.save(NAME, drawn("red"))
    assert caught.value.message == ""
    assert caught.value.__cause__ is not None
    assert stored(store) == {}
    await hasty.aclose()


async def test_save_without_a_store_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    lonely = Gcs(
        project="p", bucket=BUCKET, public_base_url="", endpoint=endpoint, workers=1, timeout_seconds=0.5
    )
    with pytest.raises(UpstreamUnavailable) as caught:
        await lonely.save(NAME, drawn("red"))
    assert isinstance(caught.value.__cause__, UpstreamUnavailable)
    assert isinstance(caught.value.__cause__.__cause__, requests.exceptions.ConnectionError)
    with pytest.raises(UpstreamUnavailable):
        await lonely.ready()
    await lonely.aclose()


async def test_a_cancelled_save_ends_at_once_and_is_not_tried_again(store: CloudStorage, gcs: Gcs) -> None:
    store.troubles.set("storage-down", vendor="gcs", times=1)
    saving = asyncio.create_task(gcs.save(NAME, drawn("red")))
    await asyncio.to_thread(store.calls.wait_for, lambda calls: any(call.finished for call in calls))
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await gcs.save("another.png", drawn("blue"))
    assert stored(store) == {"another.png": drawn("blue").data}


async def test_uploads_do_not_wait_for_each_other(store: CloudStorage, gcs: Gcs) -> None:
    def all_under_way(calls: Any) -> bool:
        return len(calls) == WORKERS and not any(call.finished for call in calls)

    store.troubles.set("hang", vendor="gcs")
    saving = [asyncio.create_task(gcs.save(f"{n}.png", drawn("red"))) for n in range(WORKERS)]
    await asyncio.to_thread(store.calls.wait_for, all_under_way)
    for task in saving:
        task.cancel()
    await asyncio.wait(saving)


async def test_many_pictures_at_once_all_arrive(store: CloudStorage, gcs: Gcs) -> None:
    pictures = {f"{n}.png": drawn(f"rgb({n}, 0, 0)") for n in range(5 * WORKERS)}
    urls = await asyncio.gather(*(gcs.save(name, picture) for name, picture in pictures.items()))
    assert len(set(urls)) == len(pictures)
    assert stored(store) == {name: picture.data for name, picture in pictures.items()}


async def test_ready_asks_for_the_one_permission_it_needs(store: CloudStorage, gcs: Gcs) -> None:
    await gcs.ready()
    (call,) = store.calls.list()
    assert (call.method, call.body["permissions"]) == ("buckets.testIamPermissions", "storage.objects.create")


@pytest.mark.parametrize(
    ("arg", "error"),
    [
        pytest.param({"status": 200, "body": {"permissions": []}}, UpstreamFailed, id="not granted"),
        pytest.param({"status": 404, "body": {"error": {"code": 404}}}, UpstreamFailed, id="no such bucket"),
        pytest.param({"status": 503, "body": {}}, UpstreamUnavailable, id="down"),
    ],
)
async def test_ready_raises(store: CloudStorage, gcs: Gcs, arg: Any, error: type[Exception]) -> None:
    store.troubles.set("answer", vendor="gcs", arg=arg)
    with pytest.raises(error):
        await gcs.ready()
    assert len(store.calls.list()) == 1


# Every exception of the client, its transport and its credentials

PASSING = {
    "google.api_core.exceptions": {
        *("BadGateway", "DataLoss", "DeadlineExceeded", "GatewayTimeout", "InternalServerError"),
        *("MethodNotImplemented", "ResourceExhausted", "RetryError", "ServerError", "ServiceUnavailable"),
        *("TooManyRequests", "Unknown"),
    },
    "google.auth.exceptions": {"TimeoutError", "TransportError"},
    "google.cloud.storage.exceptions": set(),
    "requests.exceptions": {
        *("ChunkedEncodingError", "ConnectTimeout", "ConnectionError", "ContentDecodingError", "ProxyError"),
        *("ReadTimeout", "RetryError", "SSLError", "Timeout"),
    },
    "urllib3.exceptions": {
        *(
            "ConnectTimeoutError",
            "IncompleteRead",
            "InvalidChunkLength",
            "NameResolutionError",
        ),
        *("NewConnectionError", "ProtocolError", "ReadTimeoutError", "ResponseNotChunked", "TimeoutError"),
    },
}
NEVER_RAISED_BY_A_CALL = {
    "AsyncRestUnsupportedParameterError",  # gRPC's sister transport
    "InvalidPathError",  # of a download to a folder
    "ProxySchemeUnsupported",  # while a proxy is configured
}


def exceptions(module: ModuleType) -> list[type[Exception]]:
    return [
        found
        for name, found in inspect.getmembers(module, inspect.isclass)
        if found.__module__ == module.__name__
        and issubclass(found, Exception)
        and not issubclass(found, Warning)
        and name not in NEVER_RAISED_BY_A_CALL
    ]


@pytest.mark.parametrize(
    "module",
    [
        google.api_core.exceptions,
        google.auth.exceptions,
        google.cloud.storage.exceptions,
        requests.exceptions,
        urllib3.exceptions,
    ],
    ids=lambda module: module.__name__,
)
def test_every_exception_becomes_one_of_ours(module: ModuleType) -> None:
    passing = set()
    for foreign in exceptions(module):
        with pytest.raises((UpstreamUnavailable, UpstreamFailed)) as caught, translated():
            raise an(foreign)
        assert isinstance(caught.value.__cause__, foreign)
        if isinstance(caught.value, UpstreamUnavailable):
            passing.add(foreign.__name__)
    assert passing == PASSING[module.__name__]


def an(foreign: type[Exception]) -> Exception:
    try:
        return foreign("for a test")
    except TypeError:  # wants more than a text, which makes no difference here
        return foreign.__new__(foreign)


def test_a_refresh_that_may_be_tried_again_is_unavailable() -> None:
    refresh = google.auth.exceptions.RefreshError("for a test", retryable=True)  # type: ignore[no-untyped-call]
    with pytest.raises(UpstreamUnavailable), translated():
        raise refresh


def test_what_is_not_theirs_passes_through() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError
