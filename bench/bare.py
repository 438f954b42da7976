"""The same SDK calls as one text-to-image, with no gateway around them: the mark that the gateway is held to.

Usage: python bench/bare.py GRPC_ENDPOINT STORAGE_URL SAMPLES IN_FLIGHT REQUESTS
Prints one JSON object: CPU milliseconds per request, and latencies in milliseconds.
"""

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import grpc
import pybase64
import uvloop
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports.grpc_asyncio import (
    PredictionServiceGrpcAsyncIOTransport,
)
from google.cloud.aiplatform_v1.types import PredictRequest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from requests.adapters import HTTPAdapter

UPLOADS = 32
MODEL = "projects/p/locations/us-central1/publishers/google/models/imagen-3.0-generate-001"


class Bare:
    def __init__(self, endpoint: str, storage_url: str, samples: int) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.aio.insecure_channel(endpoint, options=options)
        self.vertex = PredictionServiceAsyncClient(
            transport=PredictionServiceGrpcAsyncIOTransport(channel=channel)
        )
        client = storage.Client(
            "p",
            AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": storage_url},
        )
        client._http.mount("http://", HTTPAdapter(pool_maxsize=UPLOADS))
        client._bucket_metadata_cache = None
        self.bucket = client.bucket("image-gateway")
        self.threads = ThreadPoolExecutor(UPLOADS)
        self.samples = samples

    async def request(self) -> None:
        parameters = {"sampleCount": self.samples, "includeRaiReason": True, "addWatermark": True}
        request = PredictRequest(endpoint=MODEL)
        request._pb.instances.append(ParseDict({"prompt": "a lighthouse"}, Value()))
        ParseDict(parameters, request._pb.parameters)
        answer = await self.vertex.predict(request, retry=None, timeout=120)
        pictures = [
            pybase64.b64decode(
                prediction.struct_value.fields["bytesBase64Encoded"].string_value, validate=True
            )
            for prediction in answer._pb.predictions
        ]
        del answer
        assert len(pictures) == self.samples
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(self.threads, self.upload, picture) for picture in pictures)
        )

    def upload(self, picture: bytes) -> None:
        blob = self.bucket.blob(f"bare/{uuid4().hex}.png")
        blob.cache_control = "public, max-age=31536000, immutable"
        blob.upload_from_string(
            picture, content_type="image/png", if_generation_match=0, checksum="crc32c", retry=None
        )


async def main(endpoint: str, storage_url: str, samples: int, in_flight: int, requests: int) -> None:
    bare = Bare(endpoint, storage_url, samples)
    left = iter(range(requests))
    took: list[float] = []

    async def caller() -> None:
        for _ in left:
            started = time.perf_counter()
            await bare.request()
            took.append((time.perf_counter() - started) * 1000)

    await bare.request()
    cpu = sum(os.times()[:2])
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    cpu = sum(os.times()[:2]) - cpu
    took.sort()
    result = {
        "cpu_ms": cpu * 1000 / requests,
        "p50": took[len(took) // 2],
        "p99": took[int(len(took) * 0.99)],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], *(int(number) for number in sys.argv[3:])))
