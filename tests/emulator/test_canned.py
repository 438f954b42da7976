"""The modes for load tests: pictures made beforehand, and models that take a given time."""

import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.config import Config

from app.contract.models import Model, load_catalogue
from app.emulator.server import Emulator
from tests.support.vertex_client import PARENT, Json, Reply, ask_grpc, ask_rest, opened

IMAGEN = "imagen-4.0-generate-001:predict"
UPSCALE = "imagen-4.0-upscale-preview:predict"
GEMINI = "gemini-2.5-flash-image:generateContent"
ASKED: Json = {"instances": [{"prompt": "a pear"}], "parameters": {"sampleCount": 1}}


@contextmanager
def started(data_dir: Path, *, canned: bool, seconds: float = 0) -> Iterator[Emulator]:
    emulator = Emulator(catalogue=load_catalogue(), data_dir=data_dir, canned=canned, seconds=seconds)
    emulator.start()
    try:
        yield emulator
    finally:
        emulator.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with started(tmp_path_factory.mktemp("canned"), canned=True) as emulator:
        yield emulator


@pytest.fixture
def canned(running: Emulator) -> Emulator:
    running.calls.clear()
    running.troubles.clear()
    return running


def weighed(data: str, megabytes: float, side: int = 1024) -> None:
    assert opened(data).size == (side, side)
    assert len(data) * 3 / 4e6 == pytest.approx(megabytes, rel=0.05)


def imagen(reply: Reply) -> list[str]:
    assert reply.status == 200
    return [each["bytesBase64Encoded"] for each in reply.body["predictions"]]


def test_rest_gives_what_grpc_gives(canned: Emulator) -> None:
    for model, body in (
        (IMAGEN, ASKED),
        (IMAGEN, {"instances": [], "parameters": {"sampleCount": 3}}),
        (IMAGEN, {}),
        (UPSCALE, {}),
        (GEMINI, {}),
    ):
        assert ask_rest(canned, model, body) == ask_grpc(canned, model, body)
    rest = [(call.status, call.paid, call.body) for call in canned.calls.list()][::2]
    assert rest == [(200, 1, {}), (200, 3, {}), (200, 4, {}), (200, 1, {}), (200, 1, {})]


def test_canned_pictures_are_as_large_as_a_models(canned: Emulator) -> None:
    shown = imagen(ask_rest(canned, IMAGEN, {"parameters": {"sample_count": 4}}))
    assert len(set(shown)) == 4
    for each in shown:
        weighed(each, 1.5)
    weighed(imagen(ask_rest(canned, UPSCALE, {}))[0], 12, side=2048)
    [part] = ask_rest(canned, GEMINI, {}).body["candidates"][0]["content"]["parts"]
    weighed(part["inlineData"]["data"], 1.5)


BEDROCK = [model for model in load_catalogue().model if model.vendor == "aws" and model.family != "claude"]


@pytest.mark.parametrize("model", [pytest.param(model, id=model.id) for model in BEDROCK])
def test_a_canned_bedrock_answer_has_its_familys_body(model: Model, canned: Emulator) -> None:
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=canned.http_url,
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
        config=Config(retries={"total_max_attempts": 1}),
    )
    answer = json.load(client.invoke_model(modelId=model.id, body=b"{}")["body"])
    if model.family == "sdxl":
        weighed(answer["artifacts"][0]["base64"], 2)
    else:
        weighed(answer["images"][0], 2)
    assert [(call.status, call.paid, call.body) for call in canned.calls.list()] == [(200, 1, {})]


def test_canned_answers_travel_as_ordered(canned: Emulator) -> None:
    order = {"travel": {"gzip": True, "chunked": True}, "times": 1}
    httpx.post(f"{canned.http_url}/__emulator/trouble", json=order).raise_for_status()
    answer = httpx.post(f"{canned.http_url}/v1/{PARENT}/{IMAGEN}", json=ASKED)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json() == ask_rest(canned, IMAGEN, ASKED).body


def test_unknown_method_is_not_found(canned: Emulator) -> None:
    url = f"{canned.http_url}/v1/{PARENT}/imagen-4.0-generate-001:explain"
    assert httpx.post(url, json={}).status_code == 404


@pytest.mark.parametrize("canned", [True, False])
@pytest.mark.parametrize("ask", [ask_rest, ask_grpc])
def test_every_model_takes_the_given_seconds(ask: Callable[..., Reply], canned: bool, tmp_path: Path) -> None:
    with started(tmp_path, canned=canned, seconds=0.4) as emulator:
        begun = time.monotonic()
        assert ask(emulator, IMAGEN, ASKED).status == 200
        assert time.monotonic() - begun >= 0.4


def test_bedrocks_models_take_the_seconds_too_and_the_store_does_not(tmp_path: Path) -> None:
    with started(tmp_path, canned=False, seconds=600) as emulator:
        httpx.get(f"{emulator.http_url}/storage/v1/b/my-bucket").raise_for_status()
        for path in ("/model/amazon.titan-image-generator-v2:0/invoke", "/v1/messages"):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(emulator.http_url + path, json={}, timeout=0.2)


@pytest.mark.parametrize("canned", [True, False])
def test_a_thousand_calls_cost_sockets_and_no_threads(canned: bool, tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    body = json.dumps(ASKED).encode()
    head = f"POST /v1/{PARENT}/{IMAGEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with started(tmp_path, canned=canned, seconds=600) as emulator, ExitStack() as held:
        address = "127.0.0.1", int(emulator.http_url.rpartition(":")[2])
        for _ in range(1000):
            connection = held.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(head.encode() + body)
        emulator.calls.wait_for(lambda calls: len(calls) == 1000, timeout=60)
        assert not any(call.finished for call in emulator.calls.list())
        assert threading.active_count() < 100
        held.close()
        emulator.calls.wait_for(lambda calls: all(call.cancelled for call in calls), timeout=60)


def test_a_thousand_slow_calls_are_all_answered(tmp_path: Path) -> None:
    body = json.dumps(ASKED).encode()
    head = f"POST /v1/{PARENT}/{IMAGEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with started(tmp_path, canned=True, seconds=3) as emulator, ExitStack() as held:
        address = "127.0.0.1", int(emulator.http_url.rpartition(":")[2])
        connections = [held.enter_context(socket.create_connection(address, timeout=60)) for _ in range(1000)]
        for connection in connections:
            connection.sendall(head.encode() + body)
        for connection in connections:
            file = connection.makefile("rb")
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            length = next(int(line.split()[1]) for line in file if line.startswith(b"content-length"))
            while file.readline() != b"\r\n":
                pass
            assert len(file.read(length)) == length
        assert emulator.calls.paid == 1000
