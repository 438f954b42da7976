"""Bedrock's InvokeModel: the signature, the model, the trouble, then the work of the model's family.

Written from the public Bedrock documentation (docs.aws.amazon.com/bedrock), and as strict as it.
"""

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.contract.models import Catalogue, Model
from app.emulator import canned_answers, claude
from app.emulator.bedrock import sdxl, stability2, titan
from app.emulator.bedrock.wire import MAX_BODY_BYTES, Refusal, invalid
from app.emulator.bodies import parse_object, texts
from app.emulator.calls import Call, Calls, Json
from app.emulator.exchange import exchange, ordered_response
from app.emulator.trouble import Trouble, Troubles

_FAMILIES = {
    "sdxl": sdxl.invoke,
    "titan": titan.invoke,
    "nova": titan.invoke,
    "stability2": stability2.invoke,
    "sd3": stability2.invoke,
}
_SIGNED_FOR = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([a-z0-9-]+)/bedrock/aws4_request,")
_TEXT_KEYS = frozenset({"text", "prompt", "negativeText", "negative_prompt"})


def routes(*, calls: Calls, troubles: Troubles, catalogue: Catalogue, canned: bool = False) -> list[Route]:
    """POST /model/{id}/invoke, with the id's colon percent-encoded or not. Claude's ids go to `claude`.

    `canned`: every known model returns a picture made beforehand, whatever the request says.
    """
    models = {model.id: model for model in catalogue.model if model.vendor == "aws"}
    if canned:
        canned_answers.make_bedrock_answers()

    async def invoke(request: Request) -> Response:
        id = request.path_params["model"]
        if "anthropic." in id:
            return await claude.answer(request, id, "bedrock", calls, troubles, catalogue)
        if canned and id in models:
            return await _invoke_canned(request, models[id], calls, troubles)
        raw = await request.body()
        body = parse_object(raw)
        call = calls.record("bedrock", "InvokeModel", id, body)
        words = " ".join(texts(body, _TEXT_KEYS))
        trouble = troubles.ask("bedrock", id, words, request.headers.get("x-trouble"))
        authorization = request.headers.get("authorization", "")
        invocation = _Invocation(call, models.get(id), authorization, body, len(raw), trouble)
        return await exchange(request, calls, call, trouble, lambda: _work(invocation, calls))

    return [Route("/model/{model}/invoke", invoke, methods=["POST"])]


async def _invoke_canned(request: Request, model: Model, calls: Calls, troubles: Troubles) -> Response:
    await request.body()
    call = calls.record("bedrock", "InvokeModel", model.id, {})
    trouble = troubles.ask("bedrock", model.id, "", request.headers.get("x-trouble"))

    def work() -> Response:
        calls.pay(call, 1)
        return Response(canned_answers.bedrock_answer(model.family), media_type="application/json")

    return await exchange(request, calls, call, trouble, work, in_thread=False)


@dataclass(frozen=True, slots=True)
class _Invocation:
    """One call. `model` is None for an unknown id; `size` is the body's length in bytes."""

    call: Call
    model: Model | None
    authorization: str
    body: Json
    size: int
    trouble: Trouble | None


def _work(invocation: _Invocation, calls: Calls) -> Response:
    trouble = invocation.trouble
    if trouble and trouble.kind == "answer":
        return ordered_response(trouble)
    try:
        model = _check(invocation)
        _rehearse(trouble)
        invoke = _FAMILIES[model.family]
        answer, pictures = invoke(model, invocation.body, unseeded=invocation.call.id, trouble=trouble)
    except Refusal as refusal:
        return refusal.response()
    calls.pay(invocation.call, pictures)
    return JSONResponse(answer)


def _check(invocation: _Invocation) -> Model:
    """Returns the model. Raises Refusal if the credentials, the model, its region or the size is wrong."""
    region = _signed_region(invocation.authorization)
    if invocation.model is None or region not in (invocation.model.location, None):
        raise invalid("The provided model identifier is invalid.")
    if invocation.size > MAX_BODY_BYTES:
        raise invalid(f"The request body is larger than {MAX_BODY_BYTES} bytes.")
    return invocation.model


def _signed_region(authorization: str) -> str | None:
    """Returns the region in a SigV4 signature (which is not verified), or None for a Bedrock API key."""
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
    """Raises the Refusal that the trouble asks for, if it asks for one."""
    if trouble and trouble.kind in _FAILURES:
        asks_to_wait = trouble.arg is not None and trouble.kind in ("429", "503")
        raise Refusal(*_FAILURES[trouble.kind], float(trouble.arg) if asks_to_wait else None)
