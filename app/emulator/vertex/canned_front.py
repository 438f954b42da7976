"""Vertex with answers made beforehand: nothing is read but the number of samples, or judged, or kept."""

import re
import time
from functools import cache
from typing import Any

import grpc
from google.cloud.aiplatform_v1.types import GenerateContentResponse, PredictResponse
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from app.emulator import canned
from app.emulator.calls import Call, Calls, Json
from app.emulator.exchange import exchange
from app.emulator.trouble import Troubles
from app.emulator.vertex.messages import REQUESTS

_SAMPLES = re.compile(rb'"sample(?:Count|_count)"\s*:\s*([1-4])')


class Canned:
    """The two gRPC endpoints, and the REST one. Calls are recorded without their bodies.

    Of the troubles only those are played that concern the exchange, and over REST: slow, hang, drop, and how
    the answer travels. A model that takes `seconds` costs a socket over REST, and a thread over gRPC.
    """

    def __init__(self, calls: Calls, troubles: Troubles, seconds: float) -> None:
        self._calls = calls
        self._troubles = troubles
        self._seconds = seconds
        canned.make_vertex_answers()

    async def rest(self, request: Request) -> Response:
        """Serve `…/models/{model}:{method}`."""
        model, method = request.path_params["model"], request.path_params["method"]
        if method not in REQUESTS:
            return Response(status_code=404)
        told = _SAMPLES.search(await request.body()) if method == "predict" else None
        samples = _pictures(method, model, int(told[1]) if told else 0)
        call = self._calls.record("vertex", method, model, {})

        def work() -> Response:
            self._calls.pay(call, samples)
            return Response(canned.rest_answer(method, model, samples), media_type="application/json")

        trouble = self._troubles.ask("vertex", model, "", request.headers.get("x-trouble"))
        return await exchange(request, self._calls, call, trouble, work, in_thread=False)

    def predict(self, request: Any, _: grpc.ServicerContext) -> bytes:
        told = int(request.parameters.struct_value.fields["sampleCount"].number_value)
        samples = _pictures("predict", request.endpoint, told)
        self._finish(self._record("predict", request.endpoint), samples)
        return _predict_response("upscale" if "upscale" in request.endpoint else "", samples)

    def generate_content(self, request: Any, _: grpc.ServicerContext) -> bytes:
        self._finish(self._record("generateContent", request.model), 1)
        return _generate_content_response()

    def _record(self, method: str, resource: str) -> Call:
        return self._calls.record("vertex", method, resource.rpartition("/")[2], {})

    def _finish(self, call: Call, samples: int) -> None:
        time.sleep(self._seconds)
        self._calls.finish(call, 200, paid=samples)


def _pictures(method: str, model: str, told: int) -> int:
    """How many pictures a call makes that asks for `told` (0: does not say)."""
    return 1 if method == "generateContent" or "upscale" in model else told or canned.MOST_SAMPLES


@cache
def _predict_response(model: str, samples: int) -> bytes:
    return _serialize(canned.predict_answer(model, samples), PredictResponse.pb())


@cache
def _generate_content_response() -> bytes:
    return _serialize(canned.content_answer(), GenerateContentResponse.pb())


def _serialize(answer: Json, message: type[Message]) -> bytes:
    return ParseDict(answer, message()).SerializeToString()
