"""Clients of the emulated Vertex AI: plain REST, and gRPC with Google's own client. Also pictures."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.aiplatform_v1 import PredictionServiceClient
from google.cloud.aiplatform_v1.services.prediction_service.transports.grpc import (
    PredictionServiceGrpcTransport,
)
from google.cloud.aiplatform_v1.types import GenerateContentRequest, PredictRequest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc.status_pb2 import Status
from PIL import Image
from PIL.ImageFile import ImageFile

from app.emulator.server import Emulator

Json = dict[str, Any]
PARENT = "projects/demo-project/locations/us-central1/publishers/google/models"
_DETAILS = "grpc-status-details-bin"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Reply:
    """A response in the form of REST, for both transports."""

    status: int
    body: Any


def ask_rest(
    emulator: Emulator, model: str, body: Json, *, version: str = "v1", trouble: str | None = None
) -> Reply:
    """`model` is an id and a method, as in the path: imagen-4.0-generate-001:predict."""
    url = f"{emulator.http_url}/{version}/{PARENT}/{model}"
    response = httpx.post(url, json=body, headers={"X-Trouble": trouble} if trouble else None, timeout=30)
    return Reply(response.status_code, response.json())


@contextmanager
def prediction_client(emulator: Emulator) -> Iterator[PredictionServiceClient]:
    channel = grpc.insecure_channel(emulator.grpc_address, options=_UNLIMITED)
    transport = PredictionServiceGrpcTransport(channel=channel)
    with PredictionServiceClient(transport=transport) as client:
        yield client


def ask_grpc(emulator: Emulator, model: str, body: Json, *, trouble: str | None = None) -> Reply:
    """As `ask_rest`. Fields that v1's messages do not have (prominentPeople, outputConfig) are left out.

    An error is read from the google.rpc.Status in the trailer, with the HTTP code for gRPC's code, as in
    REST. Raises GoogleAPICallError if the call ended without a response.
    """
    id, _, method = model.partition(":")
    metadata = (("x-trouble", trouble),) if trouble else ()
    with prediction_client(emulator) as client:
        try:
            if method == "predict":
                predict = PredictRequest.pb()(endpoint=f"{PARENT}/{id}")
                asked = PredictRequest(ParseDict(body, predict))
                return _answered(client.predict(asked, timeout=30, metadata=metadata))
            generate = GenerateContentRequest.pb()(model=f"{PARENT}/{id}")
            ParseDict(body, generate, ignore_unknown_fields=True)
            wanted = GenerateContentRequest(generate)
            return _answered(client.generate_content(wanted, timeout=30, metadata=metadata))
        except GoogleAPICallError as exc:
            trailer = dict(exc.errors[0].trailing_metadata() or ())
            if _DETAILS not in trailer or exc.grpc_status_code is None:
                raise  # the client's own error: there was no response
            status = MessageToDict(Status.FromString(trailer[_DETAILS]))
            error = {**status, "code": exc.code, "status": exc.grpc_status_code.name}
            return Reply(exc.code or 0, {"error": error})


def _answered(answer: Any) -> Reply:
    return Reply(200, MessageToDict(type(answer).pb(answer)))


ASK = [pytest.param(ask_rest, id="rest"), pytest.param(ask_grpc, id="grpc")]


def picture(size: tuple[int, int] = (64, 48), colour: str = "teal", format: str = "PNG") -> bytes:
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, format)
    return out.getvalue()


def image(data: bytes) -> Json:
    """Returns a picture as in a `:predict` request."""
    return {"bytesBase64Encoded": base64.b64encode(data).decode()}


def opened(picture: str | bytes) -> ImageFile:
    """Returns the decoded picture, from base64 or from the bytes of a file."""
    data = base64.b64decode(picture, validate=True) if isinstance(picture, str) else picture
    opened = Image.open(BytesIO(data))
    opened.load()
    return opened


def upload(emulator: Emulator, bucket: str, name: str, data: bytes) -> str:
    """Store an object and return its gs:// URI."""
    url = f"{emulator.http_url}/upload/storage/v1/b/{bucket}/o"
    httpx.post(url, params={"uploadType": "media", "name": name}, content=data).raise_for_status()
    emulator.calls.clear()
    return f"gs://{bucket}/{name}"


def fetched(emulator: Emulator, uri: str) -> bytes:
    """Returns the bytes of a stored object."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    url = f"{emulator.http_url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
    return httpx.get(url, params={"alt": "media"}).raise_for_status().content
