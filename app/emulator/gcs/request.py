"""A request to the emulated Cloud Storage, parsed; and the answer that describes an object."""

import json
import re
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from urllib.parse import quote

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.emulator.calls import Json
from app.emulator.gcs.objects import Refused, acl_refused

_NUMBER = re.compile(r"[0-9]{1,18}")
_PARAMETERS = frozenset(
    {
        *("alt", "fields", "generation", "ifGenerationMatch", "maxResults", "name", "pageToken"),
        *("permissions", "predefinedAcl", "prefix", "prettyPrint", "projection", "uploadType", "upload_id"),
    }
)


@dataclass(frozen=True, slots=True)
class GcsRequest:
    """One request. `resource` (the object's metadata) and `media` (its bytes) are empty unless it uploads."""

    bucket: str
    name: str
    query: QueryParams
    headers: Headers
    resource: Json
    media: bytes

    def number(self, parameter: str) -> int | None:
        """Returns a parameter of the query as a number, or None without it. Raises Refused."""
        value = self.query.get(parameter)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            raise Refused(400, "invalidParameter", f"Invalid value for {parameter}: '{value}'")
        return int(value)

    def as_json(self) -> Json:
        """The request as `Calls.record` takes it."""
        body: Json = {"bucket": self.bucket, "name": self.name, **self.query}
        if self.resource:
            body["resource"] = self.resource
        if self.media:
            body["media"] = self.media
        return body


def read_request(request: Request, body: bytes) -> GcsRequest:
    """Raises Refused for an unknown parameter and for a body that is not what `uploadType` says."""
    query, headers = request.query_params, request.headers
    if unknown := sorted(set(query) - _PARAMETERS):
        raise Refused(400, "invalidParameter", f"The emulator does not know the parameter {unknown[0]}")
    if "predefinedAcl" in query:
        raise acl_refused()
    resource: Json = {}
    media = body
    upload = query.get("uploadType") if request.method == "POST" else None
    if upload == "multipart":
        resource, media = _split(headers.get("content-type", ""), body)
    elif upload == "resumable":
        resource, media = _parse_resource(body), b""
        resource.setdefault("contentType", headers.get("x-upload-content-type"))
    elif upload == "media":
        resource = {"contentType": headers.get("content-type")}
    elif upload is not None:
        raise Refused(400, "invalidParameter", f"Invalid upload type: '{upload}'")
    if upload and "name" in query:
        resource["name"] = query["name"]
    name = request.path_params.get("name") or resource.get("name", "")
    return GcsRequest(request.path_params["bucket"], name, query, headers, resource, media)


def object_response(asked: GcsRequest, resource: Json) -> Response:
    """Returns an object's resource, with links to the host that the client called."""
    host = f"http://{asked.headers['host']}"
    path = f"storage/v1/b/{resource['bucket']}/o/{quote(resource['name'], safe='')}"
    media = f"{host}/download/{path}?generation={resource['generation']}&alt=media"
    return JSONResponse(resource | {"selfLink": f"{host}/{path}", "mediaLink": media})


def _split(content_type: str, body: bytes) -> tuple[Json, bytes]:
    """Returns the two parts of a multipart/related body: the resource, and the object's bytes."""
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
    resource = _parse_resource(body[:second].partition(b"\r\n\r\n")[2])
    part = BytesHeaderParser().parsebytes(body[second + len(mark) + 4 : head_end])
    resource.setdefault("contentType", part["content-type"])
    return resource, body[head_end + 4 : last]


def _parse_resource(body: bytes) -> Json:
    try:
        resource = json.loads(body or b"{}")
        json.dumps(resource, ensure_ascii=False).encode()  # raises for a lone surrogate
    except (ValueError, RecursionError):
        resource = None
    if not isinstance(resource, dict):
        raise Refused(400, "parseError", "Parse Error")
    return resource
