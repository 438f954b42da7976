"""A vendor that the gateway does not know: all the code that a third vendor needs.

It serves `POST /draw` with {"model", "prompt"}, and returns {"picture": base64} or {"error": name}.
"""

from functools import partial
from typing import ClassVar

from app.contract.errors import SafetyBlocked, UpstreamFailed
from app.contract.gen import GenRequest
from app.contract.models import Families, Model
from app.contract.prices import Order, today
from app.contract.safety import block
from app.pictures.in_json import JsonWriter
from app.ports import Admission, Call, Generation
from app.providers.attempt import attempt
from app.providers.failures import (
    ErrorAnswer,
    Said,
    Table,
    failed,
    model_gone,
    rate_limited,
    retry_after,
    timed_out,
    translated,
    unavailable,
)
from app.providers.reach import reach
from app.providers.received import received
from app.providers.transport import NotSent, TooLate, Transport, TransportError

FAILURES: Table = {
    NotSent: (unavailable, "no"),
    TooLate: (timed_out, "unknown"),
    TransportError: (failed, "unknown"),
    400: (failed, "refused"),
    401: (failed, "refused"),
    403: (failed, "refused"),
    404: (model_gone, "refused"),
    429: (rate_limited, "no"),
    (429, None): (rate_limited, "unknown"),
    503: (unavailable, "no"),
    ErrorAnswer: (failed, "unknown"),
}


def said(exc: Exception) -> Said:
    if not isinstance(exc, ErrorAnswer):
        return Said(exc)
    name = exc.answer.value.get("error") if isinstance(exc.answer.value, dict) else None
    return Said(exc, exc.answer.status, name, pause=retry_after(exc.answer.headers))


class Acme:
    """A `Provider[GenRequest]`."""

    families: ClassVar[Families] = {"acme": {"text2img"}}

    def __init__(self, transport: Transport, admission: Admission, url: str) -> None:
        self._transport, self._admission, self._url = transport, admission, url

    async def run(self, request: GenRequest, model: Model, call: Call, /) -> Generation:
        body = JsonWriter({"model": model.id, "prompt": request.prompt})
        (paid,) = call.wish.pay_for(model, [Order(model.id, request.mode, today())])
        send = partial(self._send, body, model, call)
        return await attempt(send, _read, paid, model, call, admission=self._admission, pause_seconds=0.01)

    async def ready(self) -> None:
        await reach(self._url)

    async def _send(self, body: JsonWriter, model: Model, call: Call) -> object:
        headers = {"Content-Type": "application/json", "X-Trouble": call.trouble or ""}
        with translated(FAILURES, model, said):
            answer = await self._transport.post(
                f"{self._url}/draw", body, headers, deadline=call.deadline, new_blob=call.answers.new
            )
            if answer.status != 200:
                raise ErrorAnswer(answer)
        return answer.value


async def _read(answer: object, call: Call) -> Generation:
    if not isinstance(answer, dict):
        raise UpstreamFailed("Acme answered in an unknown shape")
    if not answer.get("picture"):
        raise SafetyBlocked(block())
    return Generation((await received(answer["picture"], call),))
