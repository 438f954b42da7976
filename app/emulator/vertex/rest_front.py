"""Vertex over REST: `:predict` and `:generateContent`, under `/v1/` and `/v1beta1/`."""

from collections.abc import Awaitable, Callable

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.emulator.calls import Calls, Json
from app.emulator.exchange import exchange
from app.emulator.vertex.messages import REQUESTS, check_rest_body
from app.emulator.vertex.service import Answer, Vertex
from app.emulator.vertex.wire import Refusal, invalid

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(serve: Endpoint) -> list[Route]:
    """POST …/models/{model}:{method}. `serve` finds project, location, model and method in the path."""
    path = "/projects/{project}/locations/{location}/publishers/google/models/{model}"
    return [Route(f"/{version}{path}:{{method}}", serve, methods=["POST"]) for version in ("v1", "v1beta1")]


def endpoint(vertex: Vertex, calls: Calls) -> Endpoint:
    """Serves one call: checks the body, records the call, and does the work.

    A call with a body that is not a JSON object is refused without a record.
    """

    async def serve(request: Request) -> Response:
        project, location, model, method = request.path_params.values()
        if method not in REQUESTS:
            return Response(status_code=404)
        resource = f"projects/{project}/locations/{location}/publishers/google/models/{model}"
        try:
            sent = await run_in_threadpool(_parse, await request.body())
        except Refusal as refusal:
            return _response(Answer(400, refusal.as_json()))
        try:
            body = await run_in_threadpool(check_rest_body, method, sent)
        except Refusal as refusal:
            call = await run_in_threadpool(calls.record, "vertex", method, model, sent)
            refused = _response(Answer(400, refusal.as_json()))
            return await exchange(request, calls, call, None, lambda: refused)
        header = request.headers.get("x-trouble")
        call, trouble = await run_in_threadpool(vertex.begin, method, resource, body, header)
        return await exchange(
            request,
            calls,
            call,
            trouble,
            lambda: _response(vertex.answer(call, resource, body, trouble)),
        )

    return serve


def _parse(raw: bytes) -> Json:
    """Returns the JSON object. Raises Refusal for anything else."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise invalid("Invalid JSON payload received. Parse error.") from None
    if not isinstance(body, dict):
        raise invalid("Invalid JSON payload received. Root element must be a message.")
    return body


def _response(answer: Answer) -> Response:
    headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
    text = isinstance(answer.body, str)
    content = answer.body.encode() if text else orjson.dumps(answer.body)
    return Response(
        content, answer.status, headers, "text/html" if text else "application/json; charset=UTF-8"
    )
