"""The JSON API of the emulated Cloud Storage: objects, listings, buckets. Uploads are in `uploads.py`."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.emulator.calls import Calls, Json
from app.emulator.exchange import exchange, ordered_response
from app.emulator.gcs.objects import Objects, Refused, check_bucket, may_delete, not_found
from app.emulator.gcs.public import download
from app.emulator.gcs.request import GcsRequest, object_response, read_request
from app.emulator.gcs.uploads import Uploads
from app.emulator.trouble import Trouble, Troubles

_MAX_PAGE = 1000
_Work = Callable[[Objects, GcsRequest], Response]


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
            return await exchange(request, calls, call, trouble, lambda: answer(trouble, asked))

        def answer(trouble: Trouble | None, asked: GcsRequest) -> Response:
            try:
                return _rehearse(trouble) or work(objects, asked)
            except Refused as refused:
                return refused.response()

        return endpoint

    uploads = Uploads()
    bucket = "/storage/v1/b/{bucket}"
    one = f"{bucket}/o/{{name:path}}"
    permissions = serve("buckets.testIamPermissions", _permissions)
    return [
        Route(bucket, serve("buckets.get", _bucket), methods=["GET"]),
        Route(f"{bucket}/iam/testPermissions", permissions, methods=["GET"]),
        Route(f"{bucket}/o", serve("objects.list", _list), methods=["GET"]),
        Route(one, serve("objects.get", _get), methods=["GET"]),
        Route(one, serve("objects.delete", _delete), methods=["DELETE"]),
        Route(f"/download{one}", serve("objects.get", _get), methods=["GET"]),
        Route(f"/upload{bucket}/o", serve("objects.insert", uploads.insert), methods=["POST"]),
        Route(f"/upload{bucket}/o", serve("objects.insert", uploads.resume), methods=["PUT"]),
    ]


def _get(objects: Objects, asked: GcsRequest) -> Response:
    stored = objects.get(asked.bucket, asked.name)
    if stored is None or asked.query.get("generation") not in (None, stored.resource["generation"]):
        raise not_found(asked.bucket, asked.name)
    if asked.query.get("alt") == "media":
        return download(stored, asked.headers)
    return object_response(asked, stored.resource)


def _delete(objects: Objects, asked: GcsRequest) -> Response:
    if conditions := sorted(set(asked.query) & {"generation", "ifGenerationMatch"}):
        raise Refused(400, "invalidParameter", f"The emulator does not delete with {conditions[0]}")
    objects.delete(asked.bucket, asked.name)
    return Response(status_code=204)


def _list(objects: Objects, asked: GcsRequest) -> Response:
    """One page. Its token is the last name on it, so that the next page begins after that name."""
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


def _bucket(_: Objects, asked: GcsRequest) -> Response:
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


def _permissions(_: Objects, asked: GcsRequest) -> Response:
    """Returns which of the permissions in the query the caller has."""
    check_bucket(asked.bucket)
    granted = {"storage.objects.create", "storage.objects.get", "storage.objects.list", "storage.buckets.get"}
    if may_delete(asked.bucket):
        granted.add("storage.objects.delete")
    held = [permission for permission in asked.query.getlist("permissions") if permission in granted]
    return JSONResponse({"kind": "storage#testIamPermissionsResponse", "permissions": held})


def _rehearse(trouble: Trouble | None) -> Response | None:
    """Returns the error that the trouble asks for, or None if it asks for no error of the store."""
    match trouble:
        case Trouble(kind="storage-down" | "503"):
            refused = Refused(503, "backendError", "We encountered an internal error. Please try again.")
        case Trouble(kind="500"):
            refused = Refused(500, "backendError", "We encountered an internal error. Please try again.")
        case Trouble(kind="429"):
            refused = Refused(429, "rateLimitExceeded", "The rate of requests is too high. Please reduce it.")
        case Trouble(kind="answer"):
            return ordered_response(trouble)
        case _:
            return None
    return refused.response()
