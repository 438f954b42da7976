"""Bedrock's InvokeModel: finds the model, plays the trouble, or has the family do the work.

Written from AWS's documentation; strict where it is.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.contract.models import Catalogue, Model
from app.emulator import canned, claude, sdxl, stability2, titan
from app.emulator.bedrock_wire import MAX_BODY_BYTES, Refusal, exactly, invalid
from app.emulator.calls import Call, Calls, Json
from app.emulator.exchange import exchange
from app.emulator.trouble import Trouble, Troubles

_FAMILIES = {"sdxl": sdxl.invoke, "titan": titan.invoke, "stability2": stability2.invoke}
_SIGNED_FOR = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([a-z0-9-]+)/bedrock/aws4_request,")
_TEXTS = ("text", "prompt", "negativeText", "negative_prompt")


def routes(*, calls: Calls, troubles: Troubles, catalogue: Catalogue, ready: bool = False) -> list[Route]:
    """POST /model/{id}/invoke, the id's colon percent-encoded or not. Claude's ids are Claude's to answer.

    `ready`: with answers made beforehand, to whatever a model is asked.
    """
    if ready:
        canned.make_bedrock_answers()

    async def invoke(request: Request) -> Response:
        id = request.path_params["model"]
        if "anthropic." in id:
            return await claude.answer(request, id, "bedrock", calls, troubles, catalogue)
        raw = await request.body()
        header = request.headers.get("x-trouble")
        model = next((each for each in catalogue.model if each.vendor == "aws" and each.id == id), None)
        if ready and model:
            call = calls.record("bedrock", "InvokeModel", id, {})
            trouble = troubles.ask("bedrock", id, "", header)
            give = partial(_give, model, calls, call)
            return await exchange(request, calls, call, trouble, give, in_thread=False)
        body = _parse(raw)
        call = calls.record("bedrock", "InvokeModel", id, body)
        trouble = troubles.ask("bedrock", id, " ".join(_words(body)), header)
        work = partial(_work, request, model, len(raw), body, calls, call, trouble)
        return await exchange(request, calls, call, trouble, work)

    return [Route("/model/{model}/invoke", invoke, methods=["POST"])]


def _give(model: Model, calls: Calls, call: Call) -> Response:
    calls.pay(call, 1)
    return Response(canned.bedrock_answer(model.family), media_type="application/json")


def _work(
    request: Request,
    model: Model | None,
    length: int,
    body: Json,
    calls: Calls,
    call: Call,
    trouble: Trouble | None,
) -> Response:
    if trouble and trouble.kind == "answer":
        return exactly(trouble.arg)
    try:
        region = _authenticate(request)
        if model is None or region not in (model.location, None):
            raise invalid("The provided model identifier is invalid.")
        if length > MAX_BODY_BYTES:
            raise invalid(f"The request body is larger than {MAX_BODY_BYTES} bytes.")
        _rehearse(trouble)
        answer, pictures = _FAMILIES[model.family](model, body, unseeded=call.id, trouble=trouble)
    except Refusal as refusal:
        return refusal.response()
    calls.pay(call, pictures)
    return JSONResponse(answer)


def _parse(raw: bytes) -> Json:
    """What is no JSON object is treated as an empty one, which every model refuses."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _words(value: Any) -> Iterator[str]:
    """What a person wrote into the request."""
    if isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _TEXTS and isinstance(item, str):
                yield item
            else:
                yield from _words(item)


def _authenticate(request: Request) -> str | None:
    """The region that a SigV4 signature (itself unchecked) is for; None for a Bedrock API key."""
    authorization = request.headers.get("authorization", "")
    if signed := _SIGNED_FOR.match(authorization):
        return signed[1]
    if not authorization.startswith("Bearer "):
        raise Refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    return None


_FAILURES = {
    "429": (429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "500": (500, "InternalServerException", "The system encountered an unexpected error during processing."),
    "503": (503, "ServiceUnavailableException", "Bedrock is unable to process your request."),
    "retired": (
        404,
        "ResourceNotFoundException",
        "This model version has reached the end of its life. "
        "Please refer to the AWS documentation for more details.",
    ),
}


def _rehearse(trouble: Trouble | None) -> None:
    """Raise the refusal that a trouble asks for."""
    if trouble and trouble.kind in _FAILURES:
        asked_to_wait = trouble.arg is not None and trouble.kind in ("429", "503")
        raise Refusal(*_FAILURES[trouble.kind], float(trouble.arg) if asked_to_wait else None)
