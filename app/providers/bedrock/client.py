"""Bedrock: the call (boto3 in threads of its own), its retries, and the translation of its errors."""

import asyncio
import random
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from app.contract.errors import (
    GatewayError,
    ModelGone,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.contract.gen import GenRequest, Img2Img, refusal
from app.contract.models import Model
from app.contract.pictures import Picture
from app.ports import Generation, answer_by, rehearsed
from app.providers.bedrock import sdxl, stability2, titan
from app.providers.bedrock.answer import refused
from app.providers.reach import reach
from app.threads import off_loop

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

log = structlog.get_logger()

_CONNECT_SECONDS = 5
_PAUSES_SECONDS = (0.3, 1.0)
"""Before the second and the third attempt; there is no fourth."""
_LONGEST_PAUSE_SECONDS = 2
"""Who is told to wait longer than this is told so at once, instead of being kept waiting."""
_RETRY_AFTER_SECONDS = 10
"""What callers are told when the vendor did not say."""


class Bedrock:
    """Amazon Bedrock's image models, a `Provider[GenRequest]`.

    `regions` are those of the catalogue's models. At most `max_calls` calls are under way; others wait,
    and one that is cancelled while it waits is never sent. A call under way cannot be cancelled: it ends by
    itself, and is paid for. `timeout_seconds` bounds a `run`, with its wait in the queue, where no
    `answer_by` is set.
    Without keys, boto3 looks for credentials in its usual places.
    """

    def __init__(
        self,
        *,
        regions: Collection[str],
        timeout_seconds: float,
        max_calls: int = 64,
        endpoint_url: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
    ) -> None:
        import boto3
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=max_calls,
            connect_timeout=min(_CONNECT_SECONDS, timeout_seconds),
            read_timeout=timeout_seconds * 0.95,
        )
        session = boto3.Session(aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key)
        self._clients = {
            region: session.client(
                "bedrock-runtime", region_name=region, endpoint_url=endpoint_url, config=config
            )
            for region in regions
        }
        for client in self._clients.values():
            client.meta.events.register("before-call.bedrock-runtime.InvokeModel", _rehearse)
        self._threads = ThreadPoolExecutor(max_calls, "bedrock")
        self._timeout_seconds = timeout_seconds

    async def run(self, request: GenRequest, model: Model, /) -> Generation:
        """Draw the request with the model. Raises contract errors; ModelGone when it is no longer served."""
        from botocore.exceptions import BotoCoreError, ClientError

        if problem := refusal(request, model):
            raise problem
        loop = asyncio.get_running_loop()
        deadline = answer_by.get(loop.time() + self._timeout_seconds)
        try:
            async with asyncio.timeout_at(deadline):
                if isinstance(request, Img2Img):
                    body = await off_loop(_encode, request, model)
                else:
                    body = _encode(request, model)
                return Generation(await self._draw_patiently(body, model, deadline))
        except TimeoutError as exc:
            raise UpstreamTimeout from exc
        except (BotoCoreError, ClientError) as exc:
            raise translate(exc, model) from exc

    async def ready(self) -> None:
        """Return when every region can be reached; raise OSError or TimeoutError when one cannot."""
        for client in self._clients.values():
            await reach(client.meta.endpoint_url)

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    async def _draw_patiently(self, body: bytes, model: Model, deadline: float) -> tuple[Picture, ...]:
        """Call, and call again after an answer that is sure to have cost nothing: 429 and 503."""
        from botocore.exceptions import ClientError

        loop = asyncio.get_running_loop()
        for pause in (*_PAUSES_SECONDS, None):
            try:
                # In a copy of the context, so that `_rehearse` can read `rehearsed`.
                return await loop.run_in_executor(self._threads, copy_context().run, self._draw, body, model)
            except ClientError as exc:
                if pause is None or _status(exc) not in (429, 503):
                    raise
                wait = max(pause * random.uniform(1, 1.5), _retry_after(exc) or 0)  # noqa: S311 - no secret
                if wait > _LONGEST_PAUSE_SECONDS or loop.time() + wait > deadline:
                    raise
                log.warning(
                    "retrying a vendor call", model=model.id, vendor_code=_code(exc), seconds=round(wait, 1)
                )
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _draw(self, body: bytes, model: Model) -> tuple[Picture, ...]:
        """One paid call, in a thread."""
        answer = self._clients[model.location].invoke_model(
            modelId=model.id, body=body, contentType="application/json", accept="application/json"
        )
        try:
            return _decode(answer["body"].read(), model)
        except ValueError as exc:
            raise UpstreamFailed("The model answered in an unknown shape") from exc


def _rehearse(params: dict[str, Any], **_: object) -> None:
    """Add X-Trouble. boto3 calls this before it sends; its methods have no parameter for headers."""
    if trouble := rehearsed.get():
        params["headers"]["X-Trouble"] = trouble


def _encode(request: GenRequest, model: Model) -> bytes:
    if model.family == "titan":
        return orjson.dumps(titan.encode(request, model))
    if model.family == "stability2":
        return orjson.dumps(stability2.encode(request, model))
    if isinstance(request, Img2Img):
        raise AssertionError(f"{model.id} is catalogued for img2img, which its family cannot do here")
    return orjson.dumps(sdxl.encode(request))


def _decode(answer: bytes, model: Model) -> tuple[Picture, ...]:
    decode = {"sdxl": sdxl.decode, "titan": titan.decode, "stability2": stability2.decode}[model.family]
    return decode(answer)


def translate(exc: "BotoCoreError | ClientError", model: Model) -> GatewayError:
    """Every failure of boto3 as one of ours. The vendor's text names accounts, so none of it is passed on."""
    error = _meaning(exc, model)
    error.vendor_code = _code(exc)
    return error


def _code(exc: "BotoCoreError | ClientError") -> str:
    """Returns AWS's error code, for example ThrottlingException, or the exception's class if there is
    none."""
    from botocore.exceptions import ClientError

    code = exc.response.get("Error", {}).get("Code") if isinstance(exc, ClientError) else None
    return code or type(exc).__name__


def _meaning(exc: "BotoCoreError | ClientError", model: Model) -> GatewayError:
    from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

    if isinstance(exc, ConnectTimeoutError | ReadTimeoutError):
        return UpstreamTimeout()
    if not isinstance(exc, ClientError):
        return UpstreamFailed()
    error = exc.response.get("Error", {})
    code, status = error.get("Code"), _status(exc)
    if code == "ResourceNotFoundException":
        return ModelGone(model.id)
    if code == "ValidationException" and "content filter" in error.get("Message", "").lower():
        return refused("The content filter refused the prompt or the init_image", "prompt")
    if status in (408, 504):
        return UpstreamTimeout()
    if status == 429:
        return RateLimited(_retry_after(exc) or _RETRY_AFTER_SECONDS, by_vendor=True)
    return UpstreamFailed()  # 503 too: /gen's document has no such answer


def _status(exc: "ClientError") -> int | None:
    return exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def _retry_after(exc: "ClientError") -> int | None:
    """Seconds, when the vendor said how many."""
    text = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return int(text) if text.isdecimal() else None
