"""Vertex AI: the calls (gRPC, asyncio), their deadline and their retries."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar, TypeVarTuple

import grpc
import structlog
from google.api_core.exceptions import GoogleAPIError
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.aiplatform_v1 import types
from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports.grpc_asyncio import (
    PredictionServiceGrpcAsyncIOTransport as Transport,
)
from pydantic import BaseModel

from app.contract.answer import MaskApplied
from app.contract.errors import (
    GatewayError,
    InvalidRequest,
    ModelGone,
    RateLimited,
    SafetyBlocked,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.contract.image import ImageEdit, ImageRequest, ImageUpscale, OutputOptions, TextToImage
from app.contract.models import Model
from app.contract.pictures import NotAPicture, Picture, PictureTooLarge
from app.contract.pixels import lighten, transcode
from app.logs import causes
from app.ports import Generation, answer_by, rehearsed
from app.providers.vertex import edit, gemini, imagen
from app.providers.vertex.failure import code, may_be_repeated, told_to_wait, translate
from app.threads import off_loop

_log = structlog.get_logger(__name__)

_RETRIES = 2
_LONGEST_WAIT = 5.0
"""Seconds. Who is told to come back later than this is told so, instead of being kept waiting."""

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]

Answer = TypeVar("Answer")
Ts = TypeVarTuple("Ts")


class Vertex:
    """Google's image models: Imagen and its kin by `Predict`, Gemini by `GenerateContent`.

    `location` serves the models that the catalogue calls regional, `gemini_location` those it calls global.
    `endpoint` (host:port) is called in plain text and without `credentials`.
    `timeout_seconds` is for one `run` with its retries; when it passes, samples that are ready are returned:
    keep it below the caller's own deadline.
    """

    def __init__(
        self,
        *,
        project: str,
        location: str = "us-central1",
        gemini_location: str = "global",
        endpoint: str | None = None,
        credentials: Credentials | None = None,
        timeout_seconds: float = 120.0,
        backoff_seconds: float = 1.0,
    ) -> None:
        self._project = project
        self._locations = {"regional": location, "global": gemini_location}
        self._endpoint = endpoint
        self._credentials = credentials
        self._timeout = timeout_seconds
        self._backoff = backoff_seconds
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._clients: dict[str, PredictionServiceAsyncClient] = {}
        # At DEBUG Google's client logs whole messages, pictures and all.
        logging.getLogger("google.cloud.aiplatform_v1").setLevel(logging.INFO)

    async def run(self, request: ImageRequest, model: Model, /) -> Generation:
        deadline = answer_by.get(asyncio.get_running_loop().time() + self._timeout)
        if model.family == "gemini":
            return await self._generate(request, model, deadline)
        return await self._predict(request, model, deadline)

    async def ready(self) -> None:
        """Return when every location's host is connected; waits as long as it is let."""
        for location in self._locations.values():
            self._client(location)
        for channel in self._channels.values():
            # Not channel_ready(): when that is cancelled its watch stays behind in gRPC.
            while channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def aclose(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)

    async def _predict(self, request: ImageRequest, model: Model, deadline: float) -> Generation:
        message = await _beside(request, self._predict_request, request, model)
        client = self._client(self._location(model))
        answer = await self._call(client.predict, message, model, deadline)
        del message
        texts = await _beside(request, imagen.texts, types.PredictResponse.pb(answer).predictions)
        del answer  # as large as its texts, which are enough to hold while they are decoded
        return await _beside(request, imagen.decode, *texts)

    def _predict_request(self, request: ImageRequest, model: Model) -> types.PredictRequest:
        instance, parameters = imagen.encode(lightened(request), model)
        message = types.PredictRequest.pb()(
            endpoint=self._path(model),
            instances=[{"struct_value": instance}],
            parameters={"struct_value": parameters},
        )
        return types.PredictRequest.wrap(message)  # type: ignore[no-any-return]

    async def _generate(self, request: ImageRequest, model: Model, deadline: float) -> Generation:
        """One call for each sample, at the same time. What was made is kept when other samples fail."""
        if isinstance(request, ImageEdit):
            edit.check(request, model)
        light = await _beside(request, lightened, request)
        samples = (self._sample(light, model, index, deadline) for index in range(request.sample_count))
        generation = _gather(await asyncio.gather(*samples, return_exceptions=True))
        try:
            pictures = await self._finish(request, generation.pictures)
        except (NotAPicture, PictureTooLarge) as exc:
            raise UpstreamFailed(f"{model.id} answered with a broken picture") from exc
        mask_applied: MaskApplied | None = None
        if isinstance(request, ImageEdit):
            mask_applied = "instruction" if request.automatic_mask else "exact"
        return replace(generation, pictures=pictures, mask_applied=mask_applied)

    async def _finish(self, request: ImageRequest, pictures: tuple[Picture, ...]) -> tuple[Picture, ...]:
        """Make good what the model cannot do: masks and the type of file."""
        if isinstance(request, ImageEdit) and not request.automatic_mask:
            return await off_loop(edit.compose, request, pictures)
        options = getattr(request, "output_options", OutputOptions())
        return tuple(
            [
                await off_loop(transcode, picture, options.mime_type, options.compression_quality)
                if picture.mime_type != options.mime_type
                else picture
                for picture in pictures
            ]
        )

    async def _sample(self, request: ImageRequest, model: Model, index: int, deadline: float) -> Picture:
        message = gemini.encode(request, model, index)
        message.model = self._path(model)
        client = self._client(self._location(model))
        answer = await self._call(client.generate_content, message, model, deadline)
        return gemini.decode(answer)

    async def _call(
        self, send: Callable[..., Awaitable[Answer]], message: object, model: Model, deadline: float
    ) -> Answer:
        """Send, and send again what was surely not served, until the deadline."""
        loop = asyncio.get_running_loop()
        trouble = rehearsed.get()
        metadata = (("x-trouble", trouble),) if trouble else ()
        attempt = 0
        while True:
            try:
                return await send(
                    message, retry=None, timeout=max(deadline - loop.time(), 0), metadata=metadata
                )
            except (GoogleAPIError, GoogleAuthError, grpc.RpcError) as exc:
                wait = max(self._backoff * 2**attempt * random.uniform(1, 1.5), told_to_wait(exc) or 0)  # noqa: S311
                late = wait > _LONGEST_WAIT or loop.time() + wait >= deadline
                if attempt == _RETRIES or late or not may_be_repeated(exc):
                    raise translate(exc, model) from exc
                _log.warning(
                    "retrying a vendor call", model=model.id, vendor_code=code(exc), seconds=round(wait, 1)
                )
            attempt += 1
            await asyncio.sleep(wait)

    def _location(self, model: Model) -> str:
        return self._locations.get(model.location, model.location)

    def _path(self, model: Model) -> str:
        location = self._location(model)
        return f"projects/{self._project}/locations/{location}/publishers/google/models/{model.id}"

    def _client(self, location: str) -> PredictionServiceAsyncClient:
        """The location's client, opened on first use: a gRPC channel belongs to the loop that opens it."""
        if location not in self._clients:
            if self._endpoint:
                channel = grpc.aio.insecure_channel(self._endpoint, options=_CHANNEL_OPTIONS)
            else:
                channel = Transport.create_channel(
                    host(location), credentials=self._credentials, options=_CHANNEL_OPTIONS
                )
            self._channels[location] = channel
            self._clients[location] = PredictionServiceAsyncClient(transport=Transport(channel=channel))
        return self._clients[location]


_MOST_BYTES = 7_000_000
"""Of one picture in a request: the least that Google's model cards name (vertex.md §5). We take 20 MB."""

L = TypeVar("L")


def lightened(request: ImageRequest) -> ImageRequest:
    """A request whose pictures are as small as Google wants them. Slow when one is not.

    An original keeps its size for its mask's sake, and what is enlarged for its own. Raises InvalidRequest
    when a picture cannot be made so small.
    """
    return _lightened(request, keep_size=isinstance(request, ImageEdit | ImageUpscale))


def _lightened(value: L, *, keep_size: bool) -> L:
    match value:
        case Picture():
            try:
                return lighten(value, _MOST_BYTES, keep_size=keep_size)  # type: ignore[return-value]  # mypy does not narrow L
            except PictureTooLarge as exc:
                raise InvalidRequest("a picture is too large for the model, even as a JPEG") from exc
        case tuple():
            return tuple(_lightened(one, keep_size=keep_size) for one in value)  # type: ignore[return-value]
        case BaseModel():
            lighter = {name: _lightened(one, keep_size=keep_size) for name, one in value}
            return value.model_copy(update=lighter)
        case _:
            return value


async def _beside(request: ImageRequest, work: Callable[[*Ts], Answer], *args: *Ts) -> Answer:
    """Run `work` beside the event loop when there are pictures of the caller's, which may be large."""
    return work(*args) if isinstance(request, TextToImage) else await off_loop(work, *args)


def host(location: str) -> str:
    """Where a location is served."""
    if location == "global":
        return "aiplatform.googleapis.com:443"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com:443"
    return f"{location}-aiplatform.googleapis.com:443"


# ── several samples ──────────────────────────────────────────────────────────────────────────────────────

_TELLING = (ModelGone, InvalidRequest, SafetyBlocked, RateLimited, UpstreamUnavailable, UpstreamTimeout)
"""Which failure is told when no sample was made: the first of these."""


def _gather(outcomes: Sequence[Picture | BaseException]) -> Generation:
    """What was made and what was filtered. Raises the most telling failure when nothing was made."""
    pictures = tuple(one for one in outcomes if isinstance(one, Picture))
    failures = []
    for outcome in outcomes:
        if isinstance(outcome, GatewayError):
            failures.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    if not pictures:
        raise min(failures, key=_rank)
    for failure in failures:
        if not isinstance(failure, SafetyBlocked):
            _log.warning("sample lost", cause=causes(failure), vendor_code=failure.vendor_code)
    return Generation(pictures, tuple(one.block for one in failures if isinstance(one, SafetyBlocked)))


def _rank(failure: BaseException) -> tuple[int, bool]:
    rank = next((rank for rank, kind in enumerate(_TELLING) if isinstance(failure, kind)), len(_TELLING))
    return rank, isinstance(failure, SafetyBlocked) and failure.block.code is None
