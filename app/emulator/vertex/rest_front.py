"""Vertex over REST: `/v1/…` and `/v1beta1/…:predict` and `:generateContent`."""

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.emulator.calls import Calls
from app.emulator.exchange import exchange
from app.emulator.vertex.service import Answer, Vertex
from app.emulator.vertex.wire import invalid


def routes(vertex: Vertex, calls: Calls) -> list[Route]:
    async def serve(request: Request) -> Response:
        project, location, model, method = request.path_params.values()
        resource = f"projects/{project}/locations/{location}/publishers/google/models/{model}"
        try:
            body = await run_in_threadpool(orjson.loads, await request.body())
        except orjson.JSONDecodeError:
            return _response(Answer(400, invalid("Invalid JSON payload received. Parse error.").as_json()))
        if not isinstance(body, dict):
            message = "Invalid JSON payload received. Root element must be a message."
            return _response(Answer(400, invalid(message).as_json()))
        header = request.headers.get("x-trouble")
        call, trouble = await run_in_threadpool(vertex.begin, method, resource, body, header)
        return await exchange(
            request,
            calls,
            call,
            trouble,
            lambda: _response(vertex.answer(call, resource, body, trouble)),
        )

    path = "/projects/{project}/locations/{location}/publishers/google/models/{model}"
    return [Route(f"/{version}{path}:{{method}}", serve, methods=["POST"]) for version in ("v1", "v1beta1")]


def _response(answer: Answer) -> Response:
    headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
    text = isinstance(answer.body, str)
    content = answer.body.encode() if text else orjson.dumps(answer.body)
    return Response(content, answer.status, headers, "text/html" if text else "application/json")
