"""Vertex over gRPC: `google.cloud.aiplatform.v1.PredictionService`, `Predict` and `GenerateContent`."""

import os
import socket
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Any, NoReturn

import grpc
from google.cloud.aiplatform_v1.types import Candidate, GenerateContentResponse, PredictResponse
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as _details  # noqa: F401 - for ParseDict
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from app.emulator.calls import Calls, Json
from app.emulator.vertex.canned import Canned
from app.emulator.vertex.messages import REQUESTS, normalised
from app.emulator.vertex.service import Answer, Vertex

_SERVICE = "google.cloud.aiplatform.v1.PredictionService"
_THREADS = 320
"""Each call under way holds one, also while it hangs."""
_NEWER_FINISHES = {
    "IMAGE_SAFETY": 11,
    "IMAGE_PROHIBITED_CONTENT": 12,
    "IMAGE_RECITATION": 13,
    "IMAGE_OTHER": 14,
    "NO_IMAGE": 16,
}
_NEWER_BLOCKS = {"IMAGE_SAFETY": 7}
"""Reasons on the wire that the published v1 messages do not name yet."""
_UNKNOWN_REASON = 999

Endpoint = Callable[[Any, grpc.ServicerContext], bytes]


def server(vertex: Vertex, calls: Calls, address: str, *, canned: Canned | None) -> tuple[grpc.Server, int]:
    """A server bound to `address` (host:port) but not started, and its port. RuntimeError: it is taken."""
    endpoints: dict[str, Endpoint]
    if canned:
        endpoints = {"Predict": canned.predict, "GenerateContent": canned.generate_content}
    else:
        endpoints = {
            "Predict": _endpoint(vertex, calls, "predict", PredictResponse.pb()),
            "GenerateContent": _endpoint(vertex, calls, "generateContent", GenerateContentResponse.pb()),
        }
    requests = {"Predict": REQUESTS["predict"], "GenerateContent": REQUESTS["generateContent"]}
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(endpoint, request_deserializer=requests[name].FromString)
        for name, endpoint in endpoints.items()
    }
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="vertex")
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    serving = grpc.server(pool, [grpc.method_handlers_generic_handler(_SERVICE, handlers)], options=options)
    return serving, serving.add_insecure_port(address)


def _endpoint(vertex: Vertex, calls: Calls, method: str, answer_type: type[Message]) -> Endpoint:
    def serve(request: Message, context: grpc.ServicerContext) -> bytes:
        resource, body = normalised(method, request)
        carried = context.invocation_metadata()
        header = next((str(value) for key, value in carried if key == "x-trouble"), None)
        call, trouble = vertex.begin(method, resource, body, header)
        left = threading.Event()

        def leave() -> None:  # also runs when an answered call ends: cancel does nothing then
            calls.cancel(call)
            left.set()

        if not context.add_callback(leave):
            leave()
        if trouble and trouble.kind == "hang":
            left.wait()
        if trouble and trouble.waits:
            left.wait(trouble.waits)
        if left.is_set():
            return b""
        answer = vertex.answer(call, resource, body, trouble)
        if trouble and trouble.kind == "drop":
            calls.finish(call, None)
            _cut(context.peer())
            return b""
        calls.finish(call, answer.status)
        if answer.status != 200:
            _refuse(context, answer)
        message = ParseDict(_numbered(answer.body), answer_type(), ignore_unknown_fields=True)
        return message.SerializeToString()

    return serve


def _numbered(body: Json) -> Json:
    """The answer with reasons that the message does not name as their numbers."""
    numbered = dict(body)
    if "candidates" in body:
        finishes = Candidate.FinishReason, _NEWER_FINISHES
        numbered["candidates"] = [_number(each, "finishReason", *finishes) for each in body["candidates"]]
    if "promptFeedback" in body:
        blocks = GenerateContentResponse.PromptFeedback.BlockedReason, _NEWER_BLOCKS
        numbered["promptFeedback"] = _number(body["promptFeedback"], "blockReason", *blocks)
    return numbered


def _number(message: Json, field: str, named: type[IntEnum], newer: dict[str, int]) -> Json:
    reason = message.get(field)
    if reason is None or reason in named.__members__:
        return message
    return {**message, field: newer.get(reason, _UNKNOWN_REASON)}


def _refuse(context: grpc.ServicerContext, answer: Answer) -> NoReturn:
    """End the call with the google.rpc.Status that REST would give as JSON."""
    body = answer.body[0] if isinstance(answer.body, list) else answer.body
    error = body["error"]
    status = ParseDict({**error, "code": Code.Value(error["status"])}, Status(), ignore_unknown_fields=True)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode[error["status"]], error["message"])


def _cut(peer: str) -> None:
    """Break the connection to the peer ("ipv4:host:port"). gRPC has no verb for it: shut the socket down."""
    port = int(peer.rpartition(":")[2])
    for descriptor in map(int, os.listdir("/dev/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as candidate:
                if candidate.family != socket.AF_UNIX and candidate.getpeername()[1] == port:
                    candidate.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed meanwhile, or not connected
            continue
