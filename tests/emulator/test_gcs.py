"""The emulated Cloud Storage, tested with Google's own client, and with raw requests that it never sends."""

import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import google_crc32c
import httpx
import pytest
from google.api_core import exceptions as api_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from app.emulator.gcs.objects import Objects, Refused
from app.emulator.trouble import Kind
from tests.support.cloud_storage import CloudStorage, cloud_storage

BUCKET = "our-bucket"
MEDIA = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=a.png"
RESUMABLE = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&name=a.png"
KIB_256 = 256 * 1024


@pytest.fixture(scope="module")
def running_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStorage]:
    with cloud_storage(tmp_path_factory.mktemp("cloud") / "data") as running:
        yield running


@pytest.fixture
def store(running_store: CloudStorage) -> CloudStorage:
    return running_store.empty()


@pytest.fixture
def bucket(store: CloudStorage) -> Iterator[Any]:
    with storage.Client(
        project="p",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": store.url},
    ) as client:
        client._bucket_metadata_cache = None
        yield client.bucket(BUCKET)


@pytest.fixture
def http(store: CloudStorage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=store.url) as client:
        yield client


def error(code: int, reason: str, message: str, **where: str) -> Any:
    detail = {"message": message, "domain": "global", "reason": reason, **where}
    return {"error": {"code": code, "message": message, "errors": [detail]}}


PRECONDITION = error(
    412,
    "conditionNotMet",
    "At least one of the pre-conditions you specified did not hold.",
    locationType="header",
    location="If-Match",
)


def multipart(resource: bytes, data: bytes) -> dict[str, Any]:
    first = b"--b\r\ncontent-type: application/json\r\n\r\n" + resource
    return {
        "content": first + b"\r\n--b\r\ncontent-type: image/png\r\n\r\n" + data + b"\r\n--b--",
        "headers": {"content-type": 'multipart/related; boundary="b"'},
    }


# Google's own client


@pytest.mark.parametrize(
    ("size", "chunk_size"),
    [
        pytest.param(1000, None, id="multipart"),
        pytest.param(0, None, id="empty"),
        pytest.param(9 * 1024 * 1024, None, id="resumable"),
        pytest.param(2 * KIB_256 + 1, KIB_256, id="resumable in chunks"),
    ],
)
def test_what_the_client_uploads_comes_back_whole(bucket: Any, size: int, chunk_size: int | None) -> None:
    data = Random(7).randbytes(size)
    blob = bucket.blob("images/ü ~ %2F+?#.png", chunk_size=chunk_size)
    blob.cache_control = "public, max-age=60"
    with (
        blob.open("wb", content_type="image/png", if_generation_match=0)
        if chunk_size
        else _Upload(blob) as file
    ):
        file.write(data)

    again = bucket.get_blob(blob.name)
    assert again.download_as_bytes() == data
    assert again.download_as_bytes(start=10, end=19) == data[10:20] if size else True
    assert (again.content_type, again.cache_control, again.size) == ("image/png", "public, max-age=60", size)
    assert again.md5_hash == base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    assert again.crc32c == base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
    assert blob.media_link is None or blob.download_as_bytes() == data


class _Upload:
    """Uploads with the requests that the client makes for bytes in memory."""

    def __init__(self, blob: Any) -> None:
        self._blob = blob

    def __enter__(self) -> "_Upload":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, data: bytes) -> None:
        self._blob.upload_from_string(data, "image/png", if_generation_match=0, checksum="crc32c", retry=None)


def test_the_client_lists_by_prefix_and_page(bucket: Any) -> None:
    for name in ("b", "a/2", "ä", "a/1", "a/3"):
        bucket.blob(name).upload_from_string(b"x")

    def names(**wanted: Any) -> list[str]:
        return [blob.name for blob in bucket.list_blobs(**wanted)]

    assert names() == ["a/1", "a/2", "a/3", "b", "ä"]
    assert names(prefix="a/", page_size=2) == ["a/1", "a/2", "a/3"]
    assert names(max_results=4) == ["a/1", "a/2", "a/3", "b"]
    assert names(prefix="nothing") == []


def test_the_client_gets_412_for_a_failed_precondition(bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"first", if_generation_match=0)
    with pytest.raises(api_exceptions.PreconditionFailed):
        bucket.blob("a").upload_from_string(b"second", if_generation_match=0)
    with pytest.raises(api_exceptions.PreconditionFailed):
        bucket.blob("a").upload_from_string(b"x" * 9 * 1024 * 1024, if_generation_match=0)
    assert bucket.blob("a").download_as_bytes() == b"first"


def test_the_client_may_create_and_read_but_neither_replace_nor_delete(bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"first")
    with pytest.raises(api_exceptions.Forbidden, match=r"storage\.objects\.delete"):
        bucket.blob("a").upload_from_string(b"second")
    with pytest.raises(api_exceptions.Forbidden, match=r"storage\.objects\.delete"):
        bucket.blob("a").delete()
    asked = ["storage.objects.create", "storage.objects.delete"]
    assert bucket.test_iam_permissions(asked) == ["storage.objects.create"]
    bucket.reload()
    assert bucket.iam_configuration.uniform_bucket_level_access_enabled


def test_the_client_may_delete_in_a_private_bucket(bucket: Any) -> None:
    private = bucket.client.bucket(f"{BUCKET}-private")
    private.blob("a/1").upload_from_string(b"first")
    private.blob("a/2").upload_from_string(b"second")
    private.blob("a/1").delete()
    assert [blob.name for blob in private.list_blobs(prefix="a/")] == ["a/2"]
    for call in (private.blob("a/1").delete, private.blob("a/1").download_as_bytes):
        with pytest.raises(api_exceptions.NotFound):
            call()
    with pytest.raises(
        api_exceptions.BadRequest, match="The emulator does not delete with ifGenerationMatch"
    ):
        private.blob("a/2").delete(if_generation_match=7)
    asked = ["storage.objects.create", "storage.objects.delete"]
    assert set(private.test_iam_permissions(asked)) == set(asked)


# By hand


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        pytest.param(
            ("GET", f"/storage/v1/b/{BUCKET}/o/none"),
            404,
            error(404, "notFound", f"No such object: {BUCKET}/none"),
            id="no such object",
        ),
        pytest.param(
            ("POST", f"{MEDIA}&predefinedAcl=publicRead"),
            400,
            error(
                400,
                "invalid",
                "Cannot insert legacy ACL for an object when uniform bucket-level access is enabled.",
            ),
            id="an ACL",
        ),
        pytest.param(
            ("GET", "/storage/v1/b/NO/o"),
            400,
            error(400, "invalid", "Invalid bucket name: 'NO'"),
            id="bucket name",
        ),
        pytest.param(
            ("GET", f"/storage/v1/b/{BUCKET}/o?delimiter=/"),
            400,
            error(400, "invalidParameter", "The emulator does not know the parameter delimiter"),
            id="unknown parameter",
        ),
        pytest.param(
            ("GET", f"/storage/v1/b/{BUCKET}/o?pageToken=a"),
            400,
            error(400, "invalid", "Invalid pageToken"),
            id="page token",
        ),
        pytest.param(
            ("GET", f"/storage/v1/b/{BUCKET}/o?maxResults=-1"),
            400,
            error(400, "invalidParameter", "Invalid value for maxResults: '-1'"),
            id="page size",
        ),
        pytest.param(
            ("POST", f"{MEDIA}&ifGenerationMatch=-1"),
            400,
            error(400, "invalidParameter", "Invalid value for ifGenerationMatch: '-1'"),
            id="generation",
        ),
        pytest.param(
            ("POST", f"{MEDIA}&ifGenerationMatch={'7' * 19}"),
            400,
            error(400, "invalidParameter", f"Invalid value for ifGenerationMatch: '{'7' * 19}'"),
            id="endless generation",
        ),
        pytest.param(
            ("POST", f"{MEDIA}&ifGenerationMatch=7"), 412, PRECONDITION, id="replace what is not there"
        ),
        pytest.param(
            ("POST", MEDIA.partition("&")[0]),
            400,
            error(400, "required", "Required", locationType="parameter", location="name"),
            id="no name",
        ),
        pytest.param(
            ("POST", MEDIA.replace("media", "carrier-pigeon")),
            400,
            error(400, "invalidParameter", "Invalid upload type: 'carrier-pigeon'"),
            id="upload type",
        ),
        pytest.param(
            ("POST", MEDIA.replace("media", "multipart")),
            400,
            error(400, "badRequest", "Malformed multipart body."),
            id="not multipart",
        ),
        pytest.param(
            ("PUT", f"{RESUMABLE}&upload_id=none"),
            404,
            error(404, "notFound", "No such upload session."),
            id="unknown upload session",
        ),
    ],
)
def test_a_bad_request_is_refused(
    http: httpx.Client, store: CloudStorage, request_: tuple[str, str], status: int, body: Any
) -> None:
    response = http.request(*request_)
    assert (response.status_code, response.json()) == (status, body)
    assert [call.status for call in store.calls.list()] == [status]
    assert store.objects.list(BUCKET) == []


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(b"{", id="broken JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(rb'{"name": "\ud800"}', id="lone surrogate"),
        pytest.param(b'{"name": 7}', id="name is a number"),
        pytest.param(rb'{"name": "a\nb"}', id="line break"),
        pytest.param(b'{"name": ".."}', id="dots"),
        pytest.param(b'{"name": "%b"}' % (b"x" * 1025), id="too long"),
        pytest.param(b'{"name": "a", "contentType": ["image/png"]}', id="type is a list"),
        pytest.param(rb'{"name": "a", "cacheControl": "no\r\nSet-Cookie: a"}', id="header injection"),
        pytest.param(b'{"name": "a", "crc32c": "AAAAAA=="}', id="crc32c"),
        pytest.param(b'{"name": "a", "md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}', id="md5"),
        pytest.param(b'{"name": "a", "acl": []}', id="acl"),
        pytest.param(b'{"name": "a", "kmsKeyName": "k"}', id="unknown field"),
    ],
)
def test_a_bad_resource_is_refused(http: httpx.Client, store: CloudStorage, resource: bytes) -> None:
    response = http.post(MEDIA.replace("media&name=a.png", "multipart"), **multipart(resource, b"data"))
    assert (response.status_code, response.json()["error"]["code"]) == (400, 400)
    assert store.objects.list(BUCKET) == []
    assert http.get("/storage/v1/b/our-bucket").status_code == 200


def test_preconditions_have_googles_statuses(http: httpx.Client) -> None:
    upload = multipart(json.dumps({"name": "a", "contentType": "image/webp"}).encode(), b"--b\r\n\r\n--b-")
    first = http.post(f"{MEDIA.replace('media', 'multipart')}&ifGenerationMatch=0", **upload)
    assert (first.status_code, first.json()["contentType"], first.json()["size"]) == (200, "image/webp", "11")
    second = http.post(f"{MEDIA.replace('media', 'multipart')}&ifGenerationMatch=0", **upload)
    assert (second.status_code, second.json()) == (412, PRECONDITION)


def test_a_resumable_upload_goes_on_where_it_stopped(http: httpx.Client, store: CloudStorage) -> None:
    data = Random(7).randbytes(KIB_256 + 10)
    session = http.post(RESUMABLE, json={}, headers={"x-upload-content-type": "image/png"}).headers[
        "location"
    ]

    def put(content: bytes, content_range: str) -> tuple[int, str | None]:
        response = http.put(session, content=content, headers={"content-range": content_range})
        return response.status_code, response.headers.get("range")

    assert put(b"", "bytes */*") == (308, None)
    assert put(data[:10], "bytes 0-9/*")[0] == 400  # no multiple of 256 KiB
    assert put(data[1:], f"bytes 1-{KIB_256 + 9}/{KIB_256 + 10}")[0] == 400  # leaves a hole
    assert put(data[:9], f"bytes 0-{KIB_256 + 9}/{KIB_256 + 10}")[0] == 400  # says another length
    assert put(data, "bytes of data")[0] == 400
    assert put(data[:KIB_256], f"bytes 0-{KIB_256 - 1}/*") == (308, f"bytes=0-{KIB_256 - 1}")
    assert put(data[:KIB_256], f"bytes 0-{KIB_256 - 1}/*") == (308, f"bytes=0-{KIB_256 - 1}")  # once more
    assert store.objects.get(BUCKET, "a.png") is None
    assert put(data[KIB_256:], f"bytes {KIB_256}-{KIB_256 + 9}/{KIB_256 + 10}") == (200, None)
    assert put(b"", f"bytes */{KIB_256 + 10}") == (200, None)  # the answer was lost
    stored = store.objects.get(BUCKET, "a.png")
    assert stored is not None
    assert (stored.data, stored.resource["contentType"]) == (data, "image/png")


def test_stored_objects_are_public(http: httpx.Client, store: CloudStorage) -> None:
    wanted = {"name": "images/a b.png", "contentType": "image/png", "cacheControl": "public, max-age=9"}
    resource = store.objects.put(BUCKET, wanted, b"0123456789").resource
    url = f"/public/{BUCKET}/images/a%20b.png"

    got = http.get(url)
    assert (got.status_code, got.content) == (200, b"0123456789")
    said = {
        name: value for name, value in got.headers.items() if name not in ("date", "server", "last-modified")
    }
    assert said == {
        "content-type": "image/png",
        "content-length": "10",
        "cache-control": "public, max-age=9",
        "accept-ranges": "bytes",
        "etag": f'"{hashlib.md5(b"0123456789", usedforsecurity=False).hexdigest()}"',
        "x-goog-generation": resource["generation"],
        "x-goog-metageneration": "1",
        "x-goog-storage-class": "STANDARD",
        "x-goog-stored-content-encoding": "identity",
        "x-goog-stored-content-length": "10",
        "x-goog-hash": f"crc32c={resource['crc32c']},md5={resource['md5Hash']}",
        "x-content-type-options": "nosniff",
    }
    head = http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")
    part = http.get(url, headers={"range": "bytes=2-3"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"23", "bytes 2-3/10")
    assert http.get(url, headers={"range": "bytes=10-"}).status_code == 416
    assert http.get(url, headers={"range": f"bytes={'7' * 5000}-"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["our-bucket/none", "our-bucket/", "our-bucket", "NO/none", "a/%00", "a/%0D%0A"]
)
def test_a_missing_object_is_a_404_in_xml(http: httpx.Client, path: str) -> None:
    response = http.get(f"/public/{path}")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/xml")
    assert response.text == (
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code>"
        "<Message>The specified key does not exist.</Message></Error>"
    )


# Trouble

UNAVAILABLE = "We encountered an internal error. Please try again."


@pytest.mark.parametrize(
    ("kind", "arg", "status", "body"),
    [
        pytest.param("storage-down", None, 503, error(503, "backendError", UNAVAILABLE), id="storage-down"),
        pytest.param("503", None, 503, error(503, "backendError", UNAVAILABLE), id="503"),
        pytest.param("500", None, 500, error(500, "backendError", UNAVAILABLE), id="500"),
        pytest.param(
            "429",
            None,
            429,
            error(429, "rateLimitExceeded", "The rate of requests is too high. Please reduce it."),
            id="429",
        ),
        pytest.param("answer", {"status": 418, "body": {"tea": 1}}, 418, {"tea": 1}, id="answer"),
    ],
)
def test_a_trouble_stores_nothing(
    http: httpx.Client, store: CloudStorage, kind: Kind, arg: Any, status: int, body: Any
) -> None:
    store.troubles.set(kind, vendor="gcs", times=1, arg=arg)
    response = http.post(MEDIA, content=b"data")
    assert (response.status_code, response.json()) == (status, body)
    assert store.objects.list(BUCKET) == []
    store.troubles.clear()
    assert http.post(MEDIA, content=b"data").status_code == 200


def test_a_dropped_upload_is_stored(http: httpx.Client, store: CloudStorage) -> None:
    store.troubles.set("drop", vendor="gcs", times=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        http.post(MEDIA, content=b"data")
    assert [resource["name"] for resource in store.objects.list(BUCKET)] == ["a.png"]
    assert store.statuses() == [("objects.insert", None)]


# The folder

HOSTILE = [
    pytest.param("../../escaped", id="parent"),
    pytest.param("/etc/passwd", id="absolute"),
    pytest.param("..\\..\\escaped", id="backslashes"),
    pytest.param("a/../../../escaped", id="parent inside"),
    pytest.param("a\0b", id="NUL"),
    pytest.param("x" * 1024, id="as long as can be"),
    pytest.param("n/" * 512, id="deep"),
    pytest.param("CON", id="device"),
    pytest.param(".aside", id="our own"),
    pytest.param("\u202egnp.a", id="right to left"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / "deep" / "data"
    objects = Objects(data_dir)
    objects.put(BUCKET, {"name": name}, b"data")
    stored = objects.get(BUCKET, name)
    assert stored is not None
    assert (stored.resource["name"], stored.data) == (name, b"data")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.parent for path in files] == [data_dir / "objects" / BUCKET]


@pytest.mark.parametrize("bucket", ["..", ".aside", "a/../b", "a\0b", "", "x" * 64, "-ab", "Ab1"])
def test_a_bucket_never_leaves_the_folder(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(Refused):
        Objects(tmp_path).put(bucket, {"name": "a"}, b"data")
    assert list(tmp_path.iterdir()) == []


def test_of_many_writers_of_a_name_exactly_one_succeeds(tmp_path: Path) -> None:
    def put(number: int) -> int:
        try:
            Objects(tmp_path).put(BUCKET, {"name": "a"}, b"%d" % number * 10_000, if_generation_match=0)
        except Refused as refused:
            return refused.status
        return 200

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(put, range(40)))
    assert sorted(statuses) == [200] + [412] * 39
    winner = statuses.index(200)
    stored = Objects(tmp_path).get(BUCKET, "a")
    assert stored is not None
    assert stored.data == b"%d" % winner * 10_000
