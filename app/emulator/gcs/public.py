"""Reading the bytes of an object: the public URL, and the range that every download can ask for."""

import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from app.emulator.gcs.objects import Objects, Refused, StoredObject

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


def public(objects: Objects) -> ASGIApp:
    """GET and HEAD `/{bucket}/{object}` without credentials, as for a public bucket of the real service."""

    async def read(request: Request) -> Response:
        try:
            stored = await run_in_threadpool(objects.get, **request.path_params)
        except Refused:
            stored = None
        response = download(stored, request.headers) if stored else _no_such_key()
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        await _no_such_key()(scope, receive, send)

    return Router([Route("/{bucket}/{name:path}", read)], redirect_slashes=False, default=not_found)


def download(stored: StoredObject, headers: Headers) -> Response:
    """Returns the object's bytes, or the one range of them that the request's headers name."""
    size, found = len(stored.data), _RANGE.fullmatch(headers.get("range", ""))
    described = stored.headers | {"Accept-Ranges": "bytes"}
    if found is None:
        return Response(stored.data, headers=described)
    first, last = int(found[1]), min(int(found[2] or size), size - 1)
    if first > last:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    described["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(stored.data[first : last + 1], 206, headers=described)


def _no_such_key() -> Response:
    return Response(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code>"
        "<Message>The specified key does not exist.</Message></Error>",
        404,
        media_type="application/xml",
    )
