"""Vertex over gRPC: `google.cloud.aiplatform.v1.PredictionService`, `Predict` and `GenerateContent`."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import IntEnum
from typing import Any, NoReturn

import grpc
from google.cloud.aiplatform_v1.types import Candidate, GenerateContentResponse, PredictResponse
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as _details  # noqa: F401 - for ParseDict
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from app.emulator.calls import Call, Calls, Json
from app.emulator.trouble import Trouble
from app.emulator.vertex.messages import REQUESTS, as_proto_json
from app.emulator.vertex.service import Answer, Vertex

_SERVICE = "google.cloud.aiplatform.v1.PredictionService"
_THREADS = 320
"""Each call under way holds a thread, also while it waits or hangs."""
_NEWER_FINISHES = {
    "IMAGE_SAFETY": 11,
    "IMAGE_PROHIBITED_CONTENT": 12,
    "IMAGE_RECITATION": 13,
    "IMAGE_OTHER": 14,
    "NO_IMAGE": 16,
}
_NEWER_BLOCKS = {"IMAGE_SAFETY": 7}
"""Numbers of finish and block reasons that the published v1 messages do not name yet."""
_UNKNOWN_REASON = 999

Endpoint = Callable[[Any, grpc.ServicerContext], bytes]
"""Takes a request message; returns the serialized response message."""


def server(endpoints: dict[str, Endpoint], address: str) -> tuple[grpc.Server, int]:
    """Returns a server bound to `address` (host:port) but not started, and its port.

    `endpoints` are those of `Predict` and `GenerateContent`. Raises RuntimeError if the port is taken.
    """
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


def endpoints(vertex: Vertex, calls: Calls) -> dict[str, Endpoint]:
    """The endpoints, by the name of their method."""
    return {
        "Predict": _endpoint(vertex, calls, "predict", PredictResponse.pb()),
        "GenerateContent": _endpoint(vertex, calls, "generateContent", GenerateContentResponse.pb()),
    }


def _endpoint(vertex: Vertex, calls: Calls, method: str, answer_type: type[Message]) -> Endpoint:
    def serve(request: Message, context: grpc.ServicerContext) -> bytes:
        resource, body = as_proto_json(method, request)
        metadata = context.invocation_metadata()
        header = next((str(value) for key, value in metadata if key == "x-trouble"), None)
        call, trouble = vertex.begin(method, resource, body, header)
        if not _wait(context, calls, call, trouble):
            return b""
        answer = vertex.answer(call, resource, body, trouble)
        if trouble and trouble.kind == "drop":
            calls.finish(call, None)
            _disconnect(context.peer())
            return b""
        calls.finish(call, answer.status)
        if answer.status != 200:
            _refuse(context, answer)
        message = ParseDict(_numbered(answer.body), answer_type(), ignore_unknown_fields=True)
        return message.SerializeToString()

    return serve


def _wait(context: grpc.ServicerContext, calls: Calls, call: Call, trouble: Trouble | None) -> bool:
    """Waits as the trouble asks. Returns False if the client has left; the call is then cancelled."""
    left = threading.Event()

    def leave() -> None:  # gRPC also calls it after an answer; `cancel` does nothing then
        calls.cancel(call)
        left.set()

    if not context.add_callback(leave):
        leave()
    if trouble and trouble.kind == "hang":
        left.wait()
    if trouble and trouble.waits:
        left.wait(trouble.waits)
    return not left.is_set()


def _numbered(body: Json) -> Json:
    """Returns the answer with the reasons that its message does not name replaced by their numbers."""
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
    """Ends the call with the google.rpc.Status that REST returns as JSON."""
    body = answer.body[0] if isinstance(answer.body, list) else answer.body
    error = body["error"]
    status = ParseDict({**error, "code": Code.Value(error["status"])}, Status(), ignore_unknown_fields=True)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode[error["status"]], error["message"])


def _disconnect(peer: str) -> None:
    """Breaks the connection to the peer ("ipv4:host:port") by shutting its socket down: gRPC cannot do it."""
    port = int(peer.rpartition(":")[2])
    for connection in _open_sockets():
        with connection, suppress(OSError):  # it is closed meanwhile, or not connected
            if connection.family != socket.AF_UNIX and connection.getpeername()[1] == port:
                connection.shutdown(socket.SHUT_RDWR)


def _open_sockets() -> Iterator[socket.socket]:
    """Yields a duplicate of each socket of this process; the caller closes it."""
    for descriptor in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # it is closed meanwhile
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                yield socket.socket(fileno=os.dup(descriptor))
