"""Vertex AI: a request becomes one call (Imagen) or one for each sample (Gemini)."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar, TypeVar, get_args

from app.contract.image import ImageRequest
from app.contract.models import Families, ImageOperation, Model
from app.contract.references import ImageEdit
from app.pictures.in_json import JsonWriter
from app.pictures.picture import Picture
from app.ports import Admission, Call, Generation, PaidCall
from app.providers.attempt import attempt, preparing
from app.providers.reach import reach
from app.providers.transport import Transport
from app.providers.vertex import abilities, edit, gemini, imagen
from app.providers.vertex.address import Addresses, Method
from app.providers.vertex.finishing import finished, mask_applied
from app.providers.vertex.lightening import lightened
from app.providers.vertex.samples import all_of, gathered
from app.providers.vertex.sending import Credentials, send
from app.providers.vertex.shapes import Json
from app.threads import off_loop

T = TypeVar("T")


class Vertex:
    """Google's image models, a `Provider[ImageRequest]`: Imagen and its kin by `predict`, Gemini by
    `generateContent`.

    Without `credentials` calls carry none: an emulator wants none. `pause_seconds` is the shortest pause
    before a second try.
    """

    families: ClassVar[Families] = {"imagen": get_args(ImageOperation), "gemini": gemini.OPERATIONS}

    def __init__(
        self,
        *,
        transport: Transport,
        admission: Admission,
        addresses: Addresses,
        credentials: Credentials | None = None,
        pause_seconds: float = 1.0,
    ) -> None:
        self._admission = admission
        self._addresses = addresses
        self._send = partial(
            send, transport=transport, credentials=None if addresses.endpoint else credentials
        )
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
        """Raises OSError or TimeoutError if a location's host cannot be connected.

        It connects directly, whatever proxy is set.
        """
        for base in self._addresses.bases():
            await reach(base)

    async def _generate(self, request: ImageRequest, model: Model, call: Call) -> Generation:
        """One call for each sample, at the same time. What was made is kept when other samples fail."""
        async with preparing(call, self._admission):
            if isinstance(request, ImageEdit):
                edit.check(request, model)
                if not request.automatic_mask:
                    await off_loop(edit.check_pixels, request)
            light = await lightened(request)
        # A picture that is not yet under the caller's mask must not reach the caller: it lands when it is.
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
        method: Method,
        body: Json,
        read: Callable[[object, Call], Awaitable[T]],
        paid: PaidCall,
        model: Model,
        call: Call,
    ) -> T:
        """Send a paid call, and `read` its answer's JSON."""
        return await attempt(
            partial(self._send, self._addresses.url(model, method), JsonWriter(body), model, call),
            read,
            paid,
            model,
            call,
            admission=self._admission,
            pause_seconds=self._pause_seconds,
        )
