"""Vertex AI: the calls."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.contract.image import ImageRequest
from app.contract.models import Model
from app.contract.references import ImageEdit
from app.pictures.in_json import JsonWriter
from app.pictures.picture import Picture
from app.ports import Admission, Call, Generation, PaidCall
from app.providers.attempt import CallFailed, attempt, preparing
from app.providers.reach import reach
from app.providers.transport import Transport, TransportError
from app.providers.vertex import abilities, edit, gemini, imagen
from app.providers.vertex.failure import RETRY_AFTER_SECONDS, refused, unanswered
from app.providers.vertex.finishing import finished, mask_applied
from app.providers.vertex.lightening import lightened
from app.providers.vertex.samples import all_of, gathered
from app.providers.vertex.shapes import Json
from app.threads import off_loop

T = TypeVar("T")

Credentials = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the headers that authorize a call. Raises UpstreamUnavailable and UpstreamFailed."""


class Vertex:
    """Google's image models: Imagen and its kin by `predict`, Gemini by `generateContent`.

    `location` serves the models that the catalogue calls regional, `gemini_location` those it calls global.
    `endpoint` (http://host:port or https://host:port; a bare host:port means http) is called instead of
    Google, and without `credentials`.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        admission: Admission,
        project: str,
        location: str = "us-central1",
        gemini_location: str = "global",
        endpoint: str | None = None,
        credentials: Credentials | None = None,
        pause_seconds: float = 1.0,
    ) -> None:
        self._transport = transport
        self._admission = admission
        self._project = project
        self._locations = {"regional": location, "global": gemini_location}
        if endpoint and "://" not in endpoint:
            endpoint = f"http://{endpoint}"
        self._endpoint = endpoint and endpoint.rstrip("/")
        self._credentials = None if endpoint else credentials
        self._pause_seconds = pause_seconds

    async def run(self, request: ImageRequest, model: Model, call: Call, /) -> Generation:
        abilities.check(request, model)
        if model.family == "gemini":
            return await self._generate(request, model, call)
        async with preparing(call, self._admission):
            body = imagen.encode(await lightened(request), model)
        (paid,) = call.wish.pay_for(model, [imagen.order(request, model)])
        return await self._call("predict", body, imagen.decode, paid, model, call)

    async def ready(self) -> None:
        """Return when every location's host can be connected; raise OSError or TimeoutError when one cannot.

        It connects directly, whatever proxy is set.
        """
        for base in {self._base(location) for location in self._locations.values()}:
            await reach(base)

    async def _generate(self, request: ImageRequest, model: Model, call: Call) -> Generation:
        """One call for each sample, at the same time. What was made is kept when other samples fail."""
        async with preparing(call, self._admission):
            if isinstance(request, ImageEdit):
                edit.check(request, model)
                if not request.automatic_mask:
                    await off_loop(edit.check_pixels, request)
            light = await lightened(request)
        # Nobody may get a picture that is not yet under the caller's mask: it lands when it is.
        sampled = replace(call, unfinished=mask_applied(request) == "exact")
        paid = call.wish.pay_for(model, [gemini.order(request, model)] * request.sample_count)
        samples = (self._sample(light, index, one, model, sampled) for index, one in enumerate(paid))
        outcomes = await all_of(samples, call)
        made = gathered(await finished(outcomes, request, call))
        return replace(made, mask_applied=mask_applied(request))

    async def _sample(
        self, request: ImageRequest, index: int, paid: PaidCall, model: Model, call: Call
    ) -> Picture:
        body = gemini.encode(request, model, index)
        return await self._call("generateContent", body, gemini.decode, paid, model, call)

    async def _call(
        self,
        method: Literal["predict", "generateContent"],
        body: Json,
        read: Callable[[object, Call], Awaitable[T]],
        paid: PaidCall,
        model: Model,
        call: Call,
    ) -> T:
        """Send a paid call, and `read` its answer's JSON; the blobs in it belong to the call."""
        location = self._locations.get(model.location, model.location)
        place = f"projects/{self._project}/locations/{location}/publishers/google/models/{model.id}"
        url = f"{self._base(location)}/v1/{place}:{method}"
        text = JsonWriter(body)

        async def send() -> object:
            headers = await self._headers(call)
            try:
                answer = await self._transport.post(
                    url, text, headers, deadline=call.deadline, new_blob=call.answers.new
                )
            except TransportError as exc:
                raise unanswered(exc, model) from exc
            if answer.status != 200:
                raise refused(answer, model)
            return answer.value

        return await attempt(
            send,
            read,
            paid,
            model,
            call,
            admission=self._admission,
            pause_seconds=self._pause_seconds,
        )

    async def _headers(self, call: Call) -> dict[str, str]:
        """Raises CallFailed: without a token nothing is sent."""
        headers = {"content-type": "application/json", "user-agent": "image-gateway"}
        if call.trouble:
            headers["x-trouble"] = call.trouble
        if self._credentials:
            try:
                async with asyncio.timeout_at(call.answer_by):
                    headers.update(await self._credentials())
            except UpstreamFailed as exc:
                raise CallFailed(exc, "refused") from exc.__cause__
            except UpstreamUnavailable as exc:
                raise CallFailed(exc, "no") from exc.__cause__
            except TimeoutError as exc:
                raise CallFailed(UpstreamUnavailable(retry_after=RETRY_AFTER_SECONDS), "no") from exc
        return headers

    def _base(self, location: str) -> str:
        return self._endpoint or f"https://{host(location)}"


def host(location: str) -> str:
    """Where a location is served."""
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"
