"""Uploads to the emulated Cloud Storage: in one request, or resumable in chunks."""

import re
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import Response

from app.emulator.calls import Json
from app.emulator.gcs.objects import Objects, Refused, precondition_failed
from app.emulator.gcs.request import GcsRequest, object_response

_CHUNK_BYTES = 256 * 1024
"""Every chunk of a resumable upload except the last is a multiple of this."""
_MAX_SESSIONS = 256


@dataclass(slots=True)
class _Session:
    """A resumable upload: the request that began it, and the bytes so far. `stored` is set at the end."""

    begun: GcsRequest
    received: bytearray = field(default_factory=bytearray)
    stored: Json | None = None


class Uploads:
    """All uploads. The newest 256 resumable ones are remembered, in this process only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def insert(self, objects: Objects, asked: GcsRequest) -> Response:
        """Serves the POST: stores the object, or begins a resumable upload."""
        if asked.query.get("uploadType") == "resumable":
            return self._begin(objects, asked)
        match = asked.number("ifGenerationMatch")
        stored = objects.put(asked.bucket, asked.resource, asked.media, if_generation_match=match)
        return object_response(asked, stored.resource)

    def _begin(self, objects: Objects, asked: GcsRequest) -> Response:
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

    def resume(self, objects: Objects, asked: GcsRequest) -> Response:
        """Serves the PUT: takes a chunk. Returns 308 with the range received so far, until the last chunk."""
        with self._lock:
            session = self._sessions.get(asked.query.get("upload_id", ""))
            if session is None:
                raise Refused(404, "notFound", "No such upload session.")
            if session.stored is None and _append(session.received, asked):
                session.stored = _store(objects, session, asked.headers)
            if session.stored is not None:
                return object_response(asked, session.stored)
            so_far = {"Range": f"bytes=0-{len(session.received) - 1}"} if session.received else {}
            return Response(status_code=308, headers=so_far)


_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")


def _append(received: bytearray, asked: GcsRequest) -> bool:
    """Adds a chunk. Returns whether the upload is complete. A chunk can be sent again."""
    chunk = asked.media
    found = _CONTENT_RANGE.fullmatch(asked.headers.get("content-range", f"bytes */{len(chunk)}"))
    if found is None:
        raise Refused(400, "badRequest", "Failed to parse Content-Range header.")
    first, last, total = found.groups()
    if first is None and "content-range" in asked.headers:
        return total == str(len(received))  # the client asks how much has arrived
    start = int(first or 0)
    if start > len(received):
        message = (
            f"the upload offset is {start} byte(s), which exceeds already uploaded size of {len(received)}."
        )
        raise Refused(400, "badRequest", f"According to the Content-Range header, {message}")
    if first is not None and int(last) - start + 1 != len(chunk):
        raise Refused(400, "badRequest", "The Content-Range header does not fit the length of the body.")
    complete = total == str(start + len(chunk))
    if not complete and len(chunk) % _CHUNK_BYTES:
        raise Refused(400, "badRequest", "Every chunk but the last must be a multiple of 256 KiB.")
    received[start:] = chunk
    return complete


def _store(objects: Objects, session: _Session, headers: Headers) -> Json:
    """Stores a complete upload. `headers` are the last chunk's: they can hold the checksums."""
    hashes = dict(part.split("=", 1) for part in headers.get("x-goog-hash", "").split(",") if "=" in part)
    given = {"crc32c": hashes.get("crc32c"), "md5Hash": hashes.get("md5")}
    begun = session.begun
    wanted = begun.resource | {key: value for key, value in given.items() if value}
    match = begun.number("ifGenerationMatch")
    stored = objects.put(begun.bucket, wanted, bytes(session.received), if_generation_match=match)
    session.received.clear()
    return stored.resource
