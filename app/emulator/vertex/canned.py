"""Answers made beforehand, for load tests: pictures of 1.5 MB, nothing read but the number of samples."""

import hashlib
from functools import cache
from typing import Any

import grpc
from google.cloud.aiplatform_v1.types import GenerateContentResponse, PredictResponse
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from PIL import Image

from app.emulator import painter
from app.emulator.calls import Calls, Json
from app.emulator.vertex.wire import encode_base64

_SIZE = 1024, 1024


class Canned:
    """The two gRPC endpoints. Calls are recorded without their bodies."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def predict(self, request: Any, _: grpc.ServicerContext) -> bytes:
        samples = int(request.parameters.struct_value.fields["sampleCount"].number_value) or 4
        self._book("predict", request.endpoint, samples)
        return _predictions(samples)

    def generate_content(self, request: Any, _: grpc.ServicerContext) -> bytes:
        self._book("generateContent", request.model, 1)
        return _content()

    def _book(self, method: str, resource: str, samples: int) -> None:
        call = self._calls.record("vertex", method, resource.rpartition("/")[2], {})
        self._calls.finish(call, 200, paid=samples)


@cache
def _predictions(samples: int) -> bytes:
    predictions = [{"mimeType": "image/png", "bytesBase64Encoded": _picture(n)} for n in range(samples)]
    return _serialize({"predictions": predictions}, PredictResponse.pb())


@cache
def _content() -> bytes:
    parts = [{"inlineData": {"mimeType": "image/png", "data": _picture(0)}}]
    candidate = {"finishReason": "STOP", "content": {"role": "model", "parts": parts}}
    return _serialize({"candidates": [candidate]}, GenerateContentResponse.pb())


def _serialize(answer: Json, message: type[Message]) -> bytes:
    return ParseDict(answer, message()).SerializeToString()


@cache
def _picture(seed: int) -> str:
    """A painted picture whose red channel is noise, so that its file is as large as a photograph's."""
    _, green, blue = painter.paint("canned", _SIZE, seed=seed).split()
    noise = Image.frombytes("L", _SIZE, hashlib.shake_128(bytes([seed])).digest(_SIZE[0] * _SIZE[1]))
    return encode_base64(painter.encode(Image.merge("RGB", (noise, green, blue))))
