"""Sends calls to Vertex AI."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from app.contract.models import Model
from app.pictures.in_json import JsonWriter
from app.ports import Call
from app.providers.failures import ErrorAnswer, translated
from app.providers.transport import Transport
from app.providers.vertex.failures import FAILURES, NO_TOKEN, said

Credentials = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the headers that authorize a call. Raises UpstreamUnavailable and UpstreamFailed."""


async def send(
    url: str,
    body: JsonWriter,
    model: Model,
    call: Call,
    *,
    transport: Transport,
    credentials: Credentials | None,
) -> object:
    """Returns the JSON of the answer; the blobs in it belong to the call. Raises CallFailed."""
    with translated(NO_TOKEN, model):
        headers = await _headers(call, credentials)
    with translated(FAILURES, model, said):
        answer = await transport.post(url, body, headers, deadline=call.deadline, new_blob=call.answers.new)
        if answer.status != 200:
            raise ErrorAnswer(answer)
    return answer.value


async def _headers(call: Call, credentials: Credentials | None) -> dict[str, str]:
    """Raises what the credentials raise, and TimeoutError if there is no token in time."""
    headers = {"content-type": "application/json", "user-agent": "image-gateway"}
    if call.trouble:
        headers["x-trouble"] = call.trouble
    if credentials:
        async with asyncio.timeout_at(call.answer_by):
            headers.update(await credentials())
    return headers
