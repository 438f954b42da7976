"""Cloud Storage, rehearsed: the JSON API, and the public read of objects."""

import re
import secrets
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from app.emulator.calls import Calls, Json
from app.emulator.exchange import exchange
from app.emulator.gcs_request import Asked, read_request
from app.emulator.objects import (
    Objects,
    Refused,
    StoredObject,
    check_bucket,
    may_delete,
    not_found,
    precondition_failed,
)
from app.emulator.trouble import Trouble, Troubles

_MAX_PAGE = 1000
_CHUNK = 256 * 1024
"""Every chunk of a resumable upload but the last is a multiple of this."""
_MAX_SESSIONS = 256


def _answered(asked: Asked, resource: Json) -> Response:
    """An object's resource with its links, which lead to where the client found us."""
    host = f"http://{asked.headers['host']}"
    path = f"storage/v1/b/{resource['bucket']}/o/{quote(resource['name'], safe='')}"
    media = f"{host}/download/{path}?generation={resource['generation']}&alt=media"
    return JSONResponse(resource | {"selfLink": f"{host}/{path}", "mediaLink": media})


def _insert(objects: Objects, asked: Asked) -> Response:
    """An upload in one request."""
    match = asked.number("ifGenerationMatch")
    stored = objects.put(asked.bucket, asked.resource, asked.media, if_generation_match=match)
    return _answered(asked, stored.resource)


def _get(objects: Objects, asked: Asked) -> Response:
    stored = objects.get(asked.bucket, asked.name)
    if stored is None or asked.query.get("generation") not in (None, stored.resource["generation"]):
        raise not_found(asked.bucket, asked.name)
    if asked.query.get("alt") == "media":
        return _download(stored, asked.headers)
    return _answered(asked, stored.resource)


def _delete(objects: Objects, asked: Asked) -> Response:
    if conditions := sorted(set(asked.query) & {"generation", "ifGenerationMatch"}):
        raise Refused(400, "invalidParameter", f"The emulator does not delete with {conditions[0]}")
    objects.delete(asked.bucket, asked.name)
    return Response(status_code=204)


def _list(objects: Objects, asked: Asked) -> Response:
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


def _bucket(_: Objects, asked: Asked) -> Response:
    check_bucket(asked.bucket)
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


def _permissions(_: Objects, asked: Asked) -> Response:
    """Which of the permissions asked about the caller has."""
    check_bucket(asked.bucket)
    granted = {"storage.objects.create", "storage.objects.get", "storage.objects.list", "storage.buckets.get"}
    if may_delete(asked.bucket):
        granted.add("storage.objects.delete")
    held = [permission for permission in asked.query.getlist("permissions") if permission in granted]
    return JSONResponse({"kind": "storage#testIamPermissionsResponse", "permissions": held})


@dataclass(slots=True)
class _Session:
    """A resumable upload: what it shall become, and what came so far. `stored` ends it."""

    asked: Asked
    received: bytearray = field(default_factory=bytearray)
    stored: Json | None = None


class _Uploads:
    """Resumable uploads under way. They live in this process, and the newest 256 of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def start(self, objects: Objects, asked: Asked) -> Response:
        upload_id = secrets.token_urlsafe(32)
        taken = objects.get(asked.bucket, asked.name) is not None
        if taken and asked.number("ifGenerationMatch") == 0:
            raise precondition_failed()
        with self._lock:
            self._sessions[upload_id] = _Session(asked)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        host = asked.headers["host"]
        location = (
            f"http://{host}/upload/storage/v1/b/{asked.bucket}/o?uploadType=resumable&upload_id={upload_id}"
        )
        return Response(headers={"Location": location, "X-GUploader-UploadID": upload_id})

    def resume(self, objects: Objects, asked: Asked) -> Response:
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


def _append(received: bytearray, asked: Asked) -> bool:
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


_Work = Callable[[Objects, Asked], Response]


def routes(objects: Objects, troubles: Troubles, calls: Calls) -> list[Route]:
    """The JSON API: upload, download, listing, bucket."""

    def serve(method: str, work: _Work) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            try:
                asked = read_request(request, body)
            except Refused as exc:
                refusal = exc.response()
                call = calls.record("gcs", method, "", {**request.path_params, **request.query_params})
                return await exchange(request, calls, call, None, lambda: refusal)
            call = await run_in_threadpool(calls.record, "gcs", method, "", asked.as_json())
            trouble = troubles.ask("gcs", asked.name, "", request.headers.get("x-trouble"))
            return await exchange(request, calls, call, trouble, lambda: _answer(trouble, asked))

        def _answer(trouble: Trouble | None, asked: Asked) -> Response:
            try:
                return _troubled(trouble) or work(objects, asked)
            except Refused as refused:
                return refused.response()

        return endpoint

    uploads = _Uploads()

    def upload(objects: Objects, asked: Asked) -> Response:
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
