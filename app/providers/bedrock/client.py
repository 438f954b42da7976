"""Bedrock: InvokeModel over HTTP."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, ClassVar, NamedTuple

from app.contract.errors import UpstreamFailed
from app.contract.gen import GenRequest, Img2Img, refusal
from app.contract.models import Families, GenOperation, Model
from app.contract.prices import Order, today
from app.pictures.in_json import JsonWriter
from app.pictures.picture import Picture
from app.ports import Admission, Call, Generation
from app.providers.attempt import attempt, preparing
from app.providers.bedrock import sdxl, stability2, titan
from app.providers.bedrock.failures import FAILURES, said
from app.providers.bedrock.sign import Signer
from app.providers.failures import BEFORE_SENDING, ErrorAnswer, translated
from app.providers.reach import reach
from app.providers.transport import Answer, Transport
from app.threads import off_loop


class _Wire(NamedTuple):
    """How a family is spoken to."""

    operations: tuple[GenOperation, ...]
    encode: Callable[[GenRequest], dict[str, Any]]
    decode: Callable[[object, Call], Awaitable[tuple[Picture, ...]]]


_BOTH: tuple[GenOperation, ...] = ("text2img", "img2img")
_WIRES = {
    "sdxl": _Wire(("text2img",), sdxl.encode, sdxl.decode),
    "titan": _Wire(_BOTH, partial(titan.encode, sizes=titan.TITAN_SIZES), titan.decode),
    "nova": _Wire(_BOTH, partial(titan.encode, sizes=titan.NOVA_SIZES), titan.decode),
    "stability2": _Wire(_BOTH, stability2.encode, stability2.decode),
    "sd3": _Wire(_BOTH, stability2.encode_sd3, stability2.decode),
}


class Bedrock:
    """Amazon Bedrock's image models, a `Provider[GenRequest]`.

    `regions` are those of the catalogue's models. `endpoint_url` replaces the address of each. `keys` are an
    access key's id and its secret; without them, botocore looks in its usual places. `pause_seconds` is the
    shortest pause before a second try.
    """

    families: ClassVar[Families] = {family: wire.operations for family, wire in _WIRES.items()}

    def __init__(
        self,
        *,
        transport: Transport,
        admission: Admission,
        regions: Collection[str],
        endpoint_url: str | None = None,
        keys: tuple[str, str] | None = None,
        pause_seconds: float = 0.3,
    ) -> None:
        self._transport = transport
        self._admission = admission
        self._regions = regions
        self._signer = Signer(endpoint_url, keys)
        self._pause_seconds = pause_seconds

    async def run(self, request: GenRequest, model: Model, call: Call, /) -> Generation:
        """Draw the request with the model. Raises as `Provider.run`, and InvalidGen if the model cannot."""
        if problem := refusal(request, model):
            raise problem
        async with preparing(call, self._admission):
            body, digest = await _written(request, model)
        (paid,) = call.wish.pay_for(model, [_order(request, model)])
        pictures = await attempt(
            partial(self._send, body, digest, model, call),
            partial(_decode, model),
            paid,
            model,
            call,
            admission=self._admission,
            pause_seconds=self._pause_seconds,
        )
        return Generation(pictures)

    async def ready(self) -> None:
        """Raises OSError or TimeoutError if a region cannot be reached."""
        for region in self._regions:
            await reach(await self._signer.endpoint(region))

    async def _send(self, body: JsonWriter, digest: str, model: Model, call: Call) -> Answer:
        """One paid call. Raises CallFailed."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if call.trouble:
            headers["X-Trouble"] = call.trouble
        with translated(BEFORE_SENDING, model):
            async with asyncio.timeout_at(call.answer_by):
                url, signed = await self._signer.sign(model, headers, digest)
        with translated(FAILURES, model, said):
            answer = await self._transport.post(
                url, body, signed, deadline=call.deadline, new_blob=call.answers.new
            )
            if answer.status != 200:
                raise ErrorAnswer(answer)
        return answer


async def _written(request: GenRequest, model: Model) -> tuple[JsonWriter, str]:
    """Returns the body and its SHA-256. Pictures are fitted to the model in a thread."""
    if isinstance(request, Img2Img):
        return await off_loop(_write, request, model)
    return _write(request, model)


def _write(request: GenRequest, model: Model) -> tuple[JsonWriter, str]:
    body = JsonWriter(_WIRES[model.family].encode(request))
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return body, digest.hexdigest()


def _order(request: GenRequest, model: Model) -> Order:
    """Returns what the call is priced by: all families draw about a megapixel, in standard quality."""
    return Order(model.id, request.mode, today())


async def _decode(model: Model, answer: Answer, call: Call) -> tuple[Picture, ...]:
    try:
        return await _WIRES[model.family].decode(answer.value, call)
    except ValueError as exc:
        raise UpstreamFailed("The model answered in an unknown shape") from exc
