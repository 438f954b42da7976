"""Pictures in Google Cloud Storage: uploaded once, and public at their URL."""

import asyncio
import random
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import orjson
import structlog

from app.contract.errors import GatewayError, UpstreamFailed, UpstreamUnavailable
from app.logs import causes
from app.pictures.blob import Blobs
from app.pictures.picture import Picture, recognise
from app.pictures.room import NoRoom
from app.providers.transport import Answer, Broken, TooLate, Transport, TransportError
from app.storage.gcs_objects import GcsObjects

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

log = structlog.get_logger()

E = TypeVar("E", bound=GatewayError)

_GOOGLE = "https://storage.googleapis.com"
_PUBLIC = "public, max-age=31536000, immutable"  # a name is never used twice
_UPLOADS = 16
"""The number of uploads at a time; further ones wait."""
_SILENCE_SECONDS = 10.0
"""When nothing has moved for this long, the connection is closed and the upload tried on another."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_PERMISSION = "storage.objects.create"
_READY_SECONDS = 3.0
"""How long `ready` waits for an answer. Its thread waits as long, also when the process is to end."""


class Gcs:
    """A bucket. The account needs storage.objects.create, and storage.objects.list for `names`. The bucket's
    own policy must make its objects public. `objects` does everything but uploads.

    `endpoint` is an emulator's address with scheme, called without credentials; None is Google, called with
    the headers that `credentials` returns, which may raise as `save` does. `google` are the same credentials
    for Google's own client. `timeout_seconds` bounds one `save` with all its retries.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        project: str,
        bucket: str,
        public_base_url: str,
        endpoint: str | None,
        timeout_seconds: float,
        credentials: Callable[[], Awaitable[dict[str, str]]] | None = None,
        google: "Credentials | None" = None,
    ) -> None:
        self._transport = transport
        self._bucket = bucket
        self._public_base_url = public_base_url.rstrip("/")
        self._endpoint = endpoint and endpoint.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._credentials = credentials
        self.objects = GcsObjects(
            project=project, endpoint=self._endpoint, google=google, timeout_seconds=timeout_seconds
        )
        self._slots = asyncio.Semaphore(_UPLOADS)

    async def save(
        self,
        name: str,
        picture: Picture,
        /,
        *,
        bucket: str | None = None,
        again: bool = False,
        trouble: str | None = None,
        cache_control: str = _PUBLIC,
    ) -> str:
        """Store the picture under the object name and return its public URL.

        `cache_control`: what caches may do with it. Tries again while Cloud Storage is unavailable and time
        remains: an upload is free, the picture is paid for. Raises UpstreamUnavailable and UpstreamFailed.
        """
        upload = partial(self._upload, bucket or self._bucket, name, picture, trouble, cache_control)
        failure: UpstreamUnavailable | None = None
        pause = _FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while failure := await self._failed(upload, again=again):
                    again = again or _may_have_landed(failure)
                    log.warning(
                        "retrying an upload",
                        object=name,
                        cause=causes(failure),
                        vendor_code=failure.vendor_code,
                    )
                    await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads retries, no secret
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except TimeoutError as exc:
            code = failure.vendor_code if failure else type(exc).__name__
            raise _coded(UpstreamUnavailable(), code) from failure or exc
        return self.url(name, bucket=bucket or self._bucket)

    async def _failed(
        self, upload: Callable[..., Awaitable[None]], *, again: bool
    ) -> UpstreamUnavailable | None:
        """Upload in turn. Returns the failure if it can be tried again."""
        try:
            async with self._slots:
                await upload(again=again)
        except UpstreamUnavailable as exc:
            return exc
        return None

    def url(self, name: str, /, *, bucket: str) -> str:
        return f"{self._public_base_url}/{bucket}/{quote(name, safe='/~')}"

    async def ready(self) -> None:
        """Raises UpstreamFailed if the account is not allowed to create objects, and Google's exceptions.

        Asking needs no permission.
        """
        held = await asyncio.to_thread(self._permissions)
        if _PERMISSION not in held:
            raise UpstreamFailed(f"{_PERMISSION} is not granted")

    def _permissions(self) -> list[str]:
        with self.objects.client() as client:
            bucket = client.bucket(self._bucket)
            held: list[str] = bucket.test_iam_permissions([_PERMISSION], timeout=_READY_SECONDS, retry=None)
            return held

    async def names(self, bucket: str, stem: str, /) -> list[str]:
        """Returns the names of the bucket's objects that begin with the stem, at most 64.

        Raises UpstreamUnavailable and UpstreamFailed.
        """
        return await self.objects.names(bucket, stem)

    async def fetch(self, name: str, blobs: Blobs, /, *, bucket: str) -> Picture:
        """Returns the picture of an object. Raises as `save` does."""
        with blobs.another() as loading:
            found = await self.objects.download(bucket, [name], loading)
            try:
                picture = recognise(found[name])
            except (KeyError, ValueError) as exc:
                raise UpstreamFailed("an object is missing or not a picture") from exc
            blobs.take(picture.blob)
            return picture

    async def _upload(
        self,
        bucket: str,
        name: str,
        picture: Picture,
        trouble: str | None,
        cache_control: str,
        *,
        again: bool,
    ) -> None:
        """One try.

        If the name is taken and this is a further try (`again`), an earlier one has stored the picture. At a
        first try the name cannot be taken: then a policy of the bucket has refused the picture.
        """
        base = f"{self._endpoint or _GOOGLE}/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        url = f"{base}?uploadType=multipart&ifGenerationMatch=0"
        headers = await self._credentials() if self._credentials else {}
        body = _Body(name, picture, cache_control)
        headers |= {"Content-Type": body.content_type} | ({"X-Trouble": trouble} if trouble else {})
        try:
            answer = await self._post(url, body, headers, picture.blob.scope)
        except (TransportError, TimeoutError, NoRoom) as exc:
            raise _coded(UpstreamUnavailable(), type(exc).__name__) from exc
        _check(answer, again=again)

    async def _post(self, url: str, body: "_Body", headers: dict[str, str], blobs: Blobs) -> Answer:
        """Raises TimeoutError when nothing moves for too long, and what the transport raises."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        posting = asyncio.create_task(
            self._transport.post(url, body, headers, deadline=deadline, new_blob=blobs.new)
        )
        try:
            while not posting.done():
                left = body.moved_at + _SILENCE_SECONDS - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait((posting,), timeout=left)
            return posting.result()
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)  # until nothing reads the blob any more


class _Body:
    """A multipart/related body: the object's metadata, then the picture.

    `moved_at` is when the last piece was taken, by time.monotonic(); before that, when the body was made.
    """

    def __init__(self, name: str, picture: Picture, cache_control: str) -> None:
        metadata = {
            "name": name,
            "contentType": picture.mime_type,
            "cacheControl": cache_control,
            "crc32c": b64encode(picture.blob.crc32c()).decode(),  # checked by Cloud Storage
        }
        boundary = token_hex(16)
        self.content_type = f'multipart/related; boundary="{boundary}"'
        self._head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode()
            + orjson.dumps(metadata)
            + f"\r\n--{boundary}\r\nContent-Type: {picture.mime_type}\r\n\r\n".encode()
        )
        self._blob = picture.blob
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.moved_at = time.monotonic()
        self.length = len(self._head) + picture.length + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for piece in self._blob.pieces():
            self.moved_at = time.monotonic()
            yield piece
        yield self._tail


def _check(answer: Answer, *, again: bool) -> None:
    """Raises the error that an answer means; none if the object is stored."""
    match answer:
        case Answer(status=200):
            return
        case Answer(status=412, value={"error": {"errors": [{"reason": "conditionNotMet"}, *_]}}) if again:
            return
    passing = answer.status in (408, 429) or answer.status >= 500
    raise _coded(UpstreamUnavailable() if passing else UpstreamFailed(), str(answer.status))


def _may_have_landed(failure: UpstreamUnavailable) -> bool:
    """Returns False if nothing was sent. The failure has no cause if there was an answer."""
    return isinstance(failure.__cause__, Broken | TooLate | TimeoutError | None)


def _coded(error: E, vendor_code: str | None) -> E:
    error.vendor_code = vendor_code
    return error
