"""Vertex with answers made beforehand, over REST and gRPC. Requests are neither checked nor kept."""

import re
import time
from functools import cache
from typing import Any

from google.cloud.aiplatform_v1.types import GenerateContentResponse, PredictResponse
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from grpc import ServicerContext
from starlette.requests import Request
from starlette.responses import Response

from app.contract.models import Catalogue
from app.emulator import canned_answers
from app.emulator.calls import Call, Calls, Json
from app.emulator.exchange import exchange
from app.emulator.trouble import Troubles
from app.emulator.vertex.grpc_front import Endpoint

_SAMPLES = re.compile(rb'"sample(?:Count|_count)"\s*:\s*([1-4])')


class CannedVertex:
    """The REST endpoint and the two gRPC endpoints.

    Of the troubles only slow, hang, drop and travel are played, and over REST only. A model takes `seconds`;
    meanwhile a call holds a socket over REST, and a thread over gRPC.
    """

    def __init__(self, catalogue: Catalogue, calls: Calls, troubles: Troubles, seconds: float) -> None:
        self._upscalers = catalogue.serving("image-upscale")
        self._calls = calls
        self._troubles = troubles
        self._seconds = seconds
        canned_answers.make_vertex_answers()

    @property
    def grpc(self) -> dict[str, Endpoint]:
        """The endpoints over gRPC, by the name of their method."""
        return {"Predict": self._predict, "GenerateContent": self._generate_content}

    async def rest(self, request: Request) -> Response:
        """Serves `…/models/{model}:{method}`."""
        model, method = request.path_params["model"], request.path_params["method"]
        body = await request.body()
        if method == "predict":
            found = _SAMPLES.search(body)
            samples, upscale = self._order(model, int(found[1]) if found else 0)
            content = canned_answers.predict_bytes(samples, upscale=upscale)
        elif method == "generateContent":
            samples, content = 1, canned_answers.content_bytes()
        else:
            return Response(status_code=404)
        call = self._calls.record("vertex", method, model, {})

        def work() -> Response:
            self._calls.pay(call, samples)
            return Response(content, media_type="application/json")

        trouble = self._troubles.ask("vertex", model, "", request.headers.get("x-trouble"))
        return await exchange(request, self._calls, call, trouble, work, in_thread=False)

    def _predict(self, request: Any, _: ServicerContext) -> bytes:
        call = self._record("predict", request.endpoint)
        sample_count = int(request.parameters.struct_value.fields["sampleCount"].number_value)
        samples, upscale = self._order(call.model, sample_count)
        self._finish(call, samples)
        return _predict_response(samples, upscale=upscale)

    def _generate_content(self, request: Any, _: ServicerContext) -> bytes:
        self._finish(self._record("generateContent", request.model), 1)
        return _generate_content_response()

    def _order(self, model: str, sample_count: int) -> tuple[int, bool]:
        """Returns the number of pictures, and whether they are upscaled. `sample_count` 0: the default."""
        upscale = model in self._upscalers
        return 1 if upscale else sample_count or canned_answers.MAX_SAMPLES, upscale

    def _record(self, method: str, resource: str) -> Call:
        return self._calls.record("vertex", method, resource.rpartition("/")[2], {})

    def _finish(self, call: Call, samples: int) -> None:
        time.sleep(self._seconds)
        self._calls.finish(call, 200, paid=samples)


@cache
def _predict_response(samples: int, *, upscale: bool) -> bytes:
    return _serialize(canned_answers.predict_answer(samples, upscale=upscale), PredictResponse.pb())


@cache
def _generate_content_response() -> bytes:
    return _serialize(canned_answers.content_answer(), GenerateContentResponse.pb())


def _serialize(answer: Json, message: type[Message]) -> bytes:
    return ParseDict(answer, message()).SerializeToString()
