"""Cloud Storage, rehearsed: the JSON API over objects kept on disk, and their public read.

The account that calls may create objects and nobody may change or delete one; everybody may read. That is how
the gateway's bucket is to be set up. Every legal bucket name exists.
"""

import hashlib
import json
import os
import re
import secrets
import tempfile
import threading
import time
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google_crc32c
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from app.emulator.calls import Calls, Json
from app.emulator.exchange import exchange
from app.emulator.trouble import Trouble, Troubles

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_NUMBER = re.compile(r"[0-9]{1,18}")
_MAX_NAME_BYTES = 1024
_MAX_PAGE = 1000
_CHUNK = 256 * 1024
"""Every chunk of a resumable upload but the last is a multiple of this."""
_MAX_SESSIONS = 256
_PARAMETERS = frozenset(
    {
        *(
            "alt",
            "fields",
            "generation",
            "ifGenerationMatch",
            "maxResults",
            "name",
            "pageToken",
            "permissions",
        ),
        *("predefinedAcl", "prefix", "prettyPrint", "projection", "uploadType", "upload_id"),
    }
)
_FIELDS = frozenset({"cacheControl", "contentType", "crc32c", "md5Hash", "name"})
"""What the emulator understands (or may ignore without harm); anything else is refused, not overlooked."""


class Refused(Exception):
    """What the real service would answer with an error."""

    def __init__(self, status: int, reason: str, message: str, **where: str) -> None:
        super().__init__(message)
        self.status = status
        self._detail = {"message": message, "domain": "global", "reason": reason, **where}

    def response(self) -> Response:
        error = {"code": self.status, "message": self._detail["message"], "errors": [self._detail]}
        return JSONResponse({"error": error}, self.status)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object: the API's resource (all values as in its JSON) and the bytes."""

    resource: Json
    data: bytes = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What a download says about it."""
        resource = self.resource
        kept = {"Cache-Control": resource["cacheControl"]} if "cacheControl" in resource else {}
        return kept | {
            "Content-Type": resource["contentType"],
            "ETag": f'"{b64decode(resource["md5Hash"]).hex()}"',
            "Last-Modified": _http_date(resource["updated"]),
            "X-Goog-Generation": resource["generation"],
            "X-Goog-Metageneration": resource["metageneration"],
            "X-Goog-Storage-Class": resource["storageClass"],
            "X-Goog-Stored-Content-Encoding": "identity",
            "X-Goog-Stored-Content-Length": resource["size"],
            "X-Goog-Hash": f"crc32c={resource['crc32c']},md5={resource['md5Hash']}",
        }


class Objects:
    """Objects on disk under `data_dir/objects`, one file each: a line of JSON (the resource), then the bytes.

    A file is written aside and then linked to its place, which fails when there is one: several processes can
    share the folder, and of two writers of a name exactly one succeeds. Names are kept as their hash, so that
    none leads out of the folder. All methods touch the disk: call them off the event loop.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "objects"

    def put(
        self, bucket: str, wanted: Json, data: bytes, *, if_generation_match: int | None = None
    ) -> StoredObject:
        """Create an object.

        `wanted` is as in the API: name, contentType, cacheControl, and crc32c or md5Hash to be checked.
        Raises Refused: 400 for what is not legal or has another checksum, 412 for the precondition, 403 when
        the name is taken (replacing needs the permission to delete).
        """
        name = wanted.get("name")
        path = self._path(bucket, name)
        stored = StoredObject(_resource(bucket, wanted, data), data)
        if if_generation_match and not path.exists():
            raise _precondition_failed()
        try:
            self._link(path, stored)
        except FileExistsError:
            current = _read_resource(path)["generation"]
            if if_generation_match is not None and str(if_generation_match) != current:
                raise _precondition_failed() from None
            raise _not_granted("storage.objects.delete", f"{bucket}/{name}") from None
        return stored

    def get(self, bucket: str, name: str) -> StoredObject | None:
        """The object, or None when there is none. Raises Refused for a name that cannot be."""
        try:
            return _read(self._path(bucket, name))
        except FileNotFoundError:
            return None

    def list(self, bucket: str, prefix: str = "") -> list[Json]:
        """The resources of a bucket whose names begin with `prefix`, in the order of their names' bytes."""
        _check_bucket(bucket)
        resources = (_read_resource(path) for path in (self._root / bucket).glob("*"))
        found = [resource for resource in resources if resource["name"].startswith(prefix)]
        return sorted(found, key=lambda resource: resource["name"].encode())

    def _path(self, bucket: str, name: Any) -> Path:
        _check_bucket(bucket)
        return self._root / bucket / hashlib.sha256(_legal(name)).hexdigest()

    def _link(self, path: Path, stored: StoredObject) -> None:
        aside = self._root / ".aside"  # no bucket's name begins with a dot
        aside.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=aside) as file:
            file.write(json.dumps(stored.resource).encode() + b"\n")
            file.write(stored.data)
            file.flush()
            os.link(file.name, path)


def _read(path: Path) -> StoredObject:
    with path.open("rb") as file:
        return StoredObject(json.loads(file.readline()), file.read())


def _read_resource(path: Path) -> Json:
    with path.open("rb") as file:
        resource: Json = json.loads(file.readline())
    return resource


def _check_bucket(bucket: str) -> None:
    if not _BUCKET.fullmatch(bucket):
        raise Refused(400, "invalid", f"Invalid bucket name: '{bucket}'")


def _legal(name: Any) -> bytes:
    """The name's bytes. Raises Refused when Cloud Storage would not take it."""
    if not name:
        raise Refused(400, "required", "Required", locationType="parameter", location="name")
    try:
        encoded: bytes = name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise Refused(400, "invalid", "Invalid value for field: name") from None
    if len(encoded) > _MAX_NAME_BYTES:
        raise Refused(400, "invalid", "The maximum object length is 1024 characters.")
    if name in (".", "..") or {"\r", "\n"} & set(name) or name.startswith(".well-known/acme-challenge/"):
        raise Refused(400, "invalid", "Disallowed unicode characters present in object name.")
    return encoded


def _resource(bucket: str, wanted: Json, data: bytes) -> Json:
    """What Cloud Storage would say about a new object. Raises Refused for what it would not take."""
    if "acl" in wanted:
        raise _acl_refused()
    if unknown := sorted(set(wanted) - _FIELDS):
        raise Refused(400, "invalid", f"The emulator does not know the field {unknown[0]}")
    name, generation = wanted["name"], str(time.time_ns() // 1000)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    resource = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{generation}",
        "name": name,
        "bucket": bucket,
        "generation": generation,
        "metageneration": "1",
        "contentType": _text(wanted, "contentType") or "application/octet-stream",
        "storageClass": "STANDARD",
        "size": str(len(data)),
        "md5Hash": b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        "crc32c": b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode(),
        "etag": b64encode(generation.encode()).decode(),
        "timeCreated": now,
        "updated": now,
        "timeStorageClassUpdated": now,
    }
    if cache_control := _text(wanted, "cacheControl"):
        resource["cacheControl"] = cache_control
    for key, called in (("crc32c", "CRC32C"), ("md5Hash", "MD5 hash")):
        if (given := _text(wanted, key)) and given != resource[key]:
            message = f'Provided {called} "{given}" doesn\'t match calculated {called} "{resource[key]}".'
            raise Refused(400, "invalid", message)
    return resource


def _text(wanted: Json, key: str) -> str:
    """A text field of the resource that may go into a header."""
    value = wanted.get(key) or ""
    if not isinstance(value, str) or not value.isprintable() or not value.isascii():
        raise Refused(400, "invalid", f"Invalid value for field: {key}")
    return value


def _http_date(timestamp: str) -> str:
    return datetime.fromisoformat(timestamp).strftime("%a, %d %b %Y %H:%M:%S GMT")


def _precondition_failed() -> Refused:
    message = "At least one of the pre-conditions you specified did not hold."
    return Refused(412, "conditionNotMet", message, locationType="header", location="If-Match")


def _not_granted(permission: str, what: str) -> Refused:
    message = (
        f"The caller does not have {permission} access to the Google Cloud Storage object. "
        f"Permission '{permission}' denied on resource '{what}' (or it may not exist)."
    )
    return Refused(403, "forbidden", message)


def _acl_refused() -> Refused:
    message = "Cannot insert legacy ACL for an object when uniform bucket-level access is enabled."
    return Refused(400, "invalid", message)


def _not_found(bucket: str, name: str) -> Refused:
    return Refused(404, "notFound", f"No such object: {bucket}/{name}")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, read: `resource` and `media` are what an upload carries."""

    bucket: str
    name: str
    query: QueryParams
    headers: Headers
    resource: Json
    media: bytes

    def number(self, parameter: str) -> int | None:
        """A parameter of the query that is a number when it is given. Raises Refused."""
        value = self.query.get(parameter)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            raise Refused(400, "invalidParameter", f"Invalid value for {parameter}: '{value}'")
        return int(value)

    def as_json(self) -> Json:
        body: Json = {"bucket": self.bucket, "name": self.name, **self.query}
        if self.resource:
            body["resource"] = self.resource
        if self.media:
            body["media"] = self.media
        return body


def _read_request(request: Request, body: bytes) -> _Asked:
    """Take a request apart. Raises Refused."""
    query, headers = request.query_params, request.headers
    if unknown := sorted(set(query) - _PARAMETERS):
        raise Refused(400, "invalidParameter", f"The emulator does not know the parameter {unknown[0]}")
    if "predefinedAcl" in query:
        raise _acl_refused()
    resource: Json = {}
    media = body
    upload = query.get("uploadType") if request.method == "POST" else None
    if upload == "multipart":
        resource, media = _split(headers.get("content-type", ""), body)
    elif upload == "resumable":
        resource, media = _json(body), b""
        resource.setdefault("contentType", headers.get("x-upload-content-type"))
    elif upload == "media":
        resource = {"contentType": headers.get("content-type")}
    elif upload is not None:
        raise Refused(400, "invalidParameter", f"Invalid upload type: '{upload}'")
    if upload and "name" in query:
        resource["name"] = query["name"]
    name = request.path_params.get("name") or resource.get("name", "")
    return _Asked(request.path_params["bucket"], name, query, headers, resource, media)


def _split(content_type: str, body: bytes) -> tuple[Json, bytes]:
    """The two parts of a multipart/related body: the resource, and the bytes."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    malformed = Refused(400, "badRequest", "Malformed multipart body.")
    if header.get_content_type() != "multipart/related" or not boundary:
        raise malformed
    mark = b"--" + boundary.encode("latin-1", "replace")
    second = body.find(b"\r\n" + mark, len(mark))
    head_end, last = body.find(b"\r\n\r\n", second), body.rfind(b"\r\n" + mark + b"--")
    if not body.startswith(mark) or not 0 < second < head_end < head_end + 4 <= last:
        raise malformed
    resource = _json(body[:second].partition(b"\r\n\r\n")[2])
    part = BytesHeaderParser().parsebytes(body[second + len(mark) + 4 : head_end])
    resource.setdefault("contentType", part["content-type"])
    return resource, body[head_end + 4 : last]


def _json(body: bytes) -> Json:
    try:
        resource = json.loads(body or b"{}")
        json.dumps(resource, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError):
        resource = None
    if not isinstance(resource, dict):
        raise Refused(400, "parseError", "Parse Error")
    return resource


def _answered(asked: _Asked, resource: Json) -> Response:
    """An object's resource with its links, which lead to where the client found us."""
    host = f"http://{asked.headers['host']}"
    path = f"storage/v1/b/{resource['bucket']}/o/{quote(resource['name'], safe='')}"
    media = f"{host}/download/{path}?generation={resource['generation']}&alt=media"
    return JSONResponse(resource | {"selfLink": f"{host}/{path}", "mediaLink": media})


def _insert(objects: Objects, asked: _Asked) -> Response:
    """An upload in one request."""
    match = asked.number("ifGenerationMatch")
    stored = objects.put(asked.bucket, asked.resource, asked.media, if_generation_match=match)
    return _answered(asked, stored.resource)


def _get(objects: Objects, asked: _Asked) -> Response:
    stored = objects.get(asked.bucket, asked.name)
    if stored is None or asked.query.get("generation") not in (None, stored.resource["generation"]):
        raise _not_found(asked.bucket, asked.name)
    if asked.query.get("alt") == "media":
        return _download(stored, asked.headers)
    return _answered(asked, stored.resource)


def _delete(objects: Objects, asked: _Asked) -> Response:
    raise _not_granted("storage.objects.delete", f"{asked.bucket}/{asked.name}")


def _list(objects: Objects, asked: _Asked) -> Response:
    size = min(asked.number("maxResults") or _MAX_PAGE, _MAX_PAGE)
    try:
        after = urlsafe_b64decode(asked.query.get("pageToken", ""))
    except ValueError:
        raise Refused(400, "invalid", "Invalid pageToken") from None
    found = objects.list(asked.bucket, asked.query.get("prefix", ""))
    rest = [resource for resource in found if resource["name"].encode() > after]
    answer: Json = {"kind": "storage#objects", "items": rest[:size]}
    if len(rest) > size:
        answer["nextPageToken"] = urlsafe_b64encode(rest[size - 1]["name"].encode()).decode()
    return JSONResponse(answer)


def _bucket(_: Objects, asked: _Asked) -> Response:
    _check_bucket(asked.bucket)
    return JSONResponse(
        {
            "kind": "storage#bucket",
            "id": asked.bucket,
            "name": asked.bucket,
            "projectNumber": "1",
            "metageneration": "1",
            "location": "US",
            "locationType": "multi-region",
            "storageClass": "STANDARD",
            "etag": "CAE=",
            "iamConfiguration": {
                "publicAccessPrevention": "inherited",
                "uniformBucketLevelAccess": {"enabled": True},
            },
        }
    )


def _permissions(_: Objects, asked: _Asked) -> Response:
    """Which of the permissions asked about the caller has."""
    _check_bucket(asked.bucket)
    granted = {"storage.objects.create", "storage.objects.get", "storage.objects.list", "storage.buckets.get"}
    held = [permission for permission in asked.query.getlist("permissions") if permission in granted]
    return JSONResponse({"kind": "storage#testIamPermissionsResponse", "permissions": held})


@dataclass(slots=True)
class _Session:
    """A resumable upload: what it shall become, and what came so far. `stored` ends it."""

    asked: _Asked
    received: bytearray = field(default_factory=bytearray)
    stored: Json | None = None


class _Uploads:
    """Resumable uploads under way. They live in this process, and the newest 256 of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def start(self, objects: Objects, asked: _Asked) -> Response:
        upload_id = secrets.token_urlsafe(32)
        taken = objects.get(asked.bucket, asked.name) is not None
        if taken and asked.number("ifGenerationMatch") == 0:
            raise _precondition_failed()
        with self._lock:
            self._sessions[upload_id] = _Session(asked)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        host = asked.headers["host"]
        location = (
            f"http://{host}/upload/storage/v1/b/{asked.bucket}/o?uploadType=resumable&upload_id={upload_id}"
        )
        return Response(headers={"Location": location, "X-GUploader-UploadID": upload_id})

    def resume(self, objects: Objects, asked: _Asked) -> Response:
        """Take a chunk; 308 with what there is so far until the last one has come."""
        with self._lock:
            session = self._sessions.get(asked.query.get("upload_id", ""))
            if session is None:
                raise Refused(404, "notFound", "No such upload session.")
            if session.stored is None and _append(session.received, asked):
                session.stored = _complete(objects, session, asked.headers)
            if session.stored is not None:
                return _answered(asked, session.stored)
            so_far = {"Range": f"bytes=0-{len(session.received) - 1}"} if session.received else {}
            return Response(status_code=308, headers=so_far)


_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")


def _append(received: bytearray, asked: _Asked) -> bool:
    """Add a chunk to what has been received; true when that is all. A chunk sent twice is no harm."""
    chunk = asked.media
    found = _CONTENT_RANGE.fullmatch(asked.headers.get("content-range", f"bytes */{len(chunk)}"))
    if found is None:
        raise Refused(400, "badRequest", "Failed to parse Content-Range header.")
    first, last, total = found.groups()
    if first is None and "content-range" in asked.headers:
        return total == str(len(received))  # only a question
    start = int(first or 0)
    if start > len(received):
        message = (
            f"the upload offset is {start} byte(s), which exceeds already uploaded size of {len(received)}."
        )
        raise Refused(400, "badRequest", f"According to the Content-Range header, {message}")
    if first is not None and int(last) - start + 1 != len(chunk):
        raise Refused(400, "badRequest", "The Content-Range header does not fit the length of the body.")
    complete = total == str(start + len(chunk))
    if not complete and len(chunk) % _CHUNK:
        raise Refused(400, "badRequest", "Every chunk but the last must be a multiple of 256 KiB.")
    received[start:] = chunk
    return complete


def _complete(objects: Objects, session: _Session, headers: Headers) -> Json:
    hashes = dict(part.split("=", 1) for part in headers.get("x-goog-hash", "").split(",") if "=" in part)
    given = {"crc32c": hashes.get("crc32c"), "md5Hash": hashes.get("md5")}
    wanted = session.asked.resource | {key: value for key, value in given.items() if value}
    data = bytes(session.received)
    match = session.asked.number("ifGenerationMatch")
    stored = objects.put(session.asked.bucket, wanted, data, if_generation_match=match)
    session.received.clear()
    return stored.resource


_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


def _download(stored: StoredObject, headers: Headers) -> Response:
    """The bytes, or the one range of them that is asked for."""
    size, found = len(stored.data), _RANGE.fullmatch(headers.get("range", ""))
    said = stored.headers | {"Accept-Ranges": "bytes"}
    if found is None:
        return Response(stored.data, headers=said)
    first, last = int(found[1]), min(int(found[2] or size), size - 1)
    if first > last:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    return Response(
        stored.data[first : last + 1], 206, headers=said | {"Content-Range": f"bytes {first}-{last}/{size}"}
    )


def _troubled(trouble: Trouble | None) -> Response | None:
    """The answer that a trouble asks for; those of `exchange` have none here."""
    match trouble:
        case Trouble(kind="storage-down" | "503"):
            refused = Refused(503, "backendError", "We encountered an internal error. Please try again.")
        case Trouble(kind="500"):
            refused = Refused(500, "backendError", "We encountered an internal error. Please try again.")
        case Trouble(kind="429"):
            refused = Refused(429, "rateLimitExceeded", "The rate of requests is too high. Please reduce it.")
        case Trouble(kind="answer", arg=arg):
            return JSONResponse(arg["body"], arg["status"])
        case _:
            return None
    return refused.response()


_Work = Callable[[Objects, _Asked], Response]


def routes(objects: Objects, troubles: Troubles, calls: Calls) -> list[Route]:
    """The JSON API: upload, download, listing, bucket."""

    def serve(method: str, work: _Work) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            try:
                asked = _read_request(request, body)
            except Refused as exc:
                refusal = exc.response()
                call = calls.record("gcs", method, "", {**request.path_params, **request.query_params})
                return await exchange(request, calls, call, None, lambda: refusal)
            call = await run_in_threadpool(calls.record, "gcs", method, "", asked.as_json())
            trouble = troubles.ask("gcs", "", "")
            return await exchange(request, calls, call, trouble, lambda: _answer(trouble, asked))

        def _answer(trouble: Trouble | None, asked: _Asked) -> Response:
            try:
                return _troubled(trouble) or work(objects, asked)
            except Refused as refused:
                return refused.response()

        return endpoint

    uploads = _Uploads()

    def upload(objects: Objects, asked: _Asked) -> Response:
        resumable = asked.query.get("uploadType") == "resumable"
        return uploads.start(objects, asked) if resumable else _insert(objects, asked)

    bucket = "/storage/v1/b/{bucket}"
    return [
        Route(bucket, serve("buckets.get", _bucket), methods=["GET"]),
        Route(
            f"{bucket}/iam/testPermissions",
            serve("buckets.testIamPermissions", _permissions),
            methods=["GET"],
        ),
        Route(f"{bucket}/o", serve("objects.list", _list), methods=["GET"]),
        Route(f"{bucket}/o/{{name:path}}", serve("objects.get", _get), methods=["GET"]),
        Route(f"{bucket}/o/{{name:path}}", serve("objects.delete", _delete), methods=["DELETE"]),
        Route(f"/download{bucket}/o/{{name:path}}", serve("objects.get", _get), methods=["GET"]),
        Route(f"/upload{bucket}/o", serve("objects.insert", upload), methods=["POST"]),
        Route(f"/upload{bucket}/o", serve("objects.insert", uploads.resume), methods=["PUT"]),
    ]


def public(objects: Objects) -> ASGIApp:
    """GET and HEAD `/{bucket}/{object}` for everybody, as the real service does for a public bucket."""

    async def read(request: Request) -> Response:
        try:
            stored = await run_in_threadpool(objects.get, **request.path_params)
        except Refused:
            stored = None
        response = _download(stored, request.headers) if stored else _no_such_key()
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await _no_such_key()(scope, receive, send)

    return Router([Route("/{bucket}/{name:path}", read)], redirect_slashes=False, default=nothing)


def _no_such_key() -> Response:
    return Response(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code>"
        "<Message>The specified key does not exist.</Message></Error>",
        404,
        media_type="application/xml",
    )
