"""Bedrock's signatures, verified over the bytes that arrived by botocore and by hand. API keys."""

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from PIL import Image

from app.contract.errors import SafetyBlocked, UpstreamFailed, UpstreamTimeout
from app.contract.gen import GEN_REQUEST, GenRequest
from app.contract.models import Model, load_catalogue
from app.pictures.blob import Blobs
from app.pictures.picture import picture
from app.providers.bedrock.client import Bedrock
from app.providers.bedrock.sign import Signer
from app.providers.transport import Transport
from app.services.admission import Admission
from tests.providers.peers import Authority, Request, Server, answering, serving
from tests.support.provider_call import call, encoded, scope

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
SDXL = CATALOGUE["stability.stable-diffusion-xl-v1"]
TITAN = CATALOGUE["amazon.titan-image-generator-v2:0"]
SD35 = CATALOGUE["stability.sd3-5-large-v1:0"]

KEY, SECRET = "AKIAEXAMPLE", "made/up+secret"
TEXT: GenRequest = GEN_REQUEST.validate_python({"mode": "text2img", "prompt": "a cat, con mèo"})


@pytest.fixture
def blobs() -> Iterator[Blobs]:
    with scope() as blobs:
        yield blobs


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Answers everything with an empty object, in which there is no picture."""
    async with serving(answering) as server:
        yield server


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing is found in botocore's usual places. Returns the path of its configuration, which is empty."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path / "config"


def img2img(blobs: Blobs, side: int) -> GenRequest:
    source = picture(blobs.of(encoded(Image.effect_noise((side, side), 50))))
    assert source.blob.in_memory == (side == 64)
    fields = {"mode": "img2img", "prompt": "a cat", "init_image": source, "auto_resize": side == 64}
    return GEN_REQUEST.validate_python(fields)


async def ask(
    url: str,
    request: GenRequest,
    model: Model,
    blobs: Blobs,
    *,
    transport: Transport | None = None,
    trouble: str | None = None,
    keys: tuple[str, str] | None = None,
) -> None:
    """Call once. Raises SafetyBlocked if the server was asked."""
    transport = transport or Transport()
    bedrock = Bedrock(
        transport=transport,
        admission=Admission(9, 9),
        regions=(),
        endpoint_url=url,
        pause_seconds=0.01,
        keys=keys,
    )
    try:
        await bedrock.run(request, model, call(blobs, trouble=trouble))
    finally:
        await transport.aclose()


# ── SigV4 ────────────────────────────────────────────────────────────────────────────────────────────


def parts(request: Request) -> dict[str, str]:
    """Credential, SignedHeaders and Signature of the Authorization header."""
    scheme, _, rest = request.headers["authorization"].partition(" ")
    assert scheme == "AWS4-HMAC-SHA256"
    return dict(part.split("=", 1) for part in rest.split(", "))


def by_hand(request: Request, region: str, secret: str = SECRET) -> str:
    """The signature, as AWS's documentation of Signature Version 4 computes it."""
    method, path, _ = request.line.split(" ")
    names = parts(request)["SignedHeaders"].split(";")
    assert names == sorted(names)
    canonical = "\n".join(
        [
            method,
            "/".join(quote(segment, safe="-_.~") for segment in path.split("/")),  # encoded once more
            "",
            *(f"{name}:{request.headers[name].strip()}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    time = request.headers["x-amz-date"]
    scope = f"{time[:8]}/{region}/bedrock/aws4_request"
    key = f"AWS4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def by_botocore(request: Request, region: str) -> str:
    names = parts(request)["SignedHeaders"].split(";")
    method, path, _ = request.line.split(" ")
    again: Any = AWSRequest(
        method,
        f"http://{request.headers['host']}{path}",
        {name: request.headers[name] for name in names if name != "host"},
        request.body,
    )
    again.context["timestamp"] = request.headers["x-amz-date"]
    signer: Any = SigV4Auth(Credentials(KEY, SECRET), "bedrock", region)
    signature: str = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    return signature


@pytest.mark.parametrize(
    ("model", "side"), [(SDXL, None), (TITAN, None), (TITAN, 64), (TITAN, 1024), (SD35, 1024)]
)
async def test_two_others_compute_the_same_signature_over_what_arrived(
    server: Server, blobs: Blobs, model: Model, side: int | None
) -> None:
    """`side` is that of the init_image in pixels. With 1024 it is on disk."""
    request = img2img(blobs, side) if side else TEXT

    with pytest.raises(SafetyBlocked):
        await ask(
            server.url(""),
            request,
            model,
            blobs,
            keys=(KEY, SECRET),
            trouble="slow=0" if side else None,
        )

    (arrived,) = server.requests
    assert arrived.line == f"POST /model/{model.id.replace(':', '%3A')}/invoke HTTP/1.1"
    assert arrived.headers["x-amz-content-sha256"] == hashlib.sha256(arrived.body).hexdigest()
    assert arrived.headers["content-type"] == arrived.headers["accept"] == "application/json"
    assert json.loads(arrived.body)
    said = parts(arrived)
    assert said["Credential"].startswith(f"{KEY}/")
    assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(said["SignedHeaders"].split(";"))
    assert abs(datetime.strptime(arrived.headers["x-amz-date"], "%Y%m%dT%H%M%S%z") - datetime.now(UTC)) < (
        timedelta(minutes=5)
    )
    assert said["Signature"] == by_hand(arrived, model.location) == by_botocore(arrived, model.location)


async def test_a_second_try_has_a_signature_of_its_own(blobs: Blobs) -> None:
    """Signatures expire after five minutes."""

    async def busy(peer: Any) -> None:
        await peer.request()
        peer.answer(b"{}", "503 Busy", "x-amzn-errortype: ServiceUnavailableException", "retry-after: 1")
        await peer.request()
        peer.answer(b"{}")

    async with serving(busy) as server:
        with pytest.raises(SafetyBlocked):
            await ask(server.url(""), TEXT, TITAN, blobs, keys=(KEY, SECRET))

    first, second = server.requests
    assert first.headers["x-amz-date"] < second.headers["x-amz-date"]
    assert parts(second)["Signature"] == by_hand(second, TITAN.location)


async def test_a_session_token_is_sent_and_signed(
    server: Server, blobs: Blobs, no_keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "made-up-token")

    with pytest.raises(SafetyBlocked):
        await ask(server.url(""), TEXT, TITAN, blobs)

    (arrived,) = server.requests
    assert arrived.headers["x-amz-security-token"] == "made-up-token"
    assert "x-amz-security-token" in parts(arrived)["SignedHeaders"].split(";")
    assert parts(arrived)["Signature"] == by_hand(arrived, TITAN.location)


# ── Bedrock API keys ─────────────────────────────────────────────────────────────────────────────────


async def test_a_bedrock_api_key_is_the_bearer(
    blobs: Blobs, no_keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "made-up-key")
    authority = Authority(tmp_path)

    async with serving(answering, authority.server("127.0.0.1")) as server:
        transport = Transport(tls=authority.client())
        with pytest.raises(SafetyBlocked):
            await ask(server.url("", "https"), TEXT, TITAN, blobs, transport=transport)

    (arrived,) = server.requests
    assert arrived.headers["authorization"] == "Bearer made-up-key"
    assert arrived.line == "POST /model/amazon.titan-image-generator-v2%3A0/invoke HTTP/1.1"


async def test_an_api_key_is_not_sent_in_plain_text(
    server: Server, blobs: Blobs, no_keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "made-up-key")

    with pytest.raises(UpstreamFailed):
        await ask(server.url(""), TEXT, TITAN, blobs)

    assert not server.requests


# ── Look-ups ─────────────────────────────────────────────────────────────────────────────────────────


def process(config: Path, *, seconds: int, wait: float = 0) -> Path:
    """Have a program print keys that expire after so many seconds. Returns a file with a line per run."""
    runs = config.with_name("runs")
    runs.touch()
    program = config.with_name("keys.py")
    program.write_text(
        "import datetime, json, time\n"
        f"open({str(runs)!r}, 'a').write('ran\\n')\n"
        f"time.sleep({wait})\n"
        f"ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={seconds})\n"
        f"keys = dict(AccessKeyId={KEY!r}, SecretAccessKey={SECRET!r}, SessionToken='made-up')\n"
        "print(json.dumps(dict(Version=1, Expiration=ends.isoformat(), **keys)))\n"
    )
    config.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    return runs


def lines(runs: Path) -> int:
    return len(runs.read_text().splitlines())


async def test_keys_are_looked_up_once_for_all_who_wait(no_keys: Path) -> None:
    runs = process(no_keys, seconds=3600)
    signer = Signer("http://127.0.0.1:1", None)
    assert lines(runs) == 0

    for _ in range(2):
        await asyncio.gather(*(signer.sign(TITAN, {}, "0" * 64) for _ in range(20)))

    assert lines(runs) == 1


async def test_keys_that_expire_soon_are_renewed_once_for_all_who_wait(no_keys: Path) -> None:
    runs = process(no_keys, seconds=300)
    signer = Signer("http://127.0.0.1:1", None)
    await signer.sign(TITAN, {}, "0" * 64)
    before = lines(runs)

    await asyncio.gather(*(signer.sign(TITAN, {}, "0" * 64) for _ in range(20)))

    assert lines(runs) == before + 1


async def test_a_slow_look_up_ends_with_the_callers_time_and_serves_the_next(
    server: Server, blobs: Blobs, no_keys: Path
) -> None:
    runs = process(no_keys, seconds=3600, wait=1)
    transport = Transport()
    bedrock = Bedrock(transport=transport, admission=Admission(9, 9), regions=(), endpoint_url=server.url(""))

    with pytest.raises(UpstreamTimeout):
        await bedrock.run(TEXT, TITAN, call(blobs, seconds=0.3))
    assert not server.requests
    with pytest.raises(SafetyBlocked):
        await bedrock.run(TEXT, TITAN, call(blobs))

    await transport.aclose()
    assert lines(runs) == 1


async def test_missing_keys_are_a_failure_until_there_are_some(
    server: Server, blobs: Blobs, no_keys: Path
) -> None:
    transport = Transport()
    bedrock = Bedrock(transport=transport, admission=Admission(9, 9), regions=(), endpoint_url=server.url(""))
    with pytest.raises(UpstreamFailed) as failed:
        await bedrock.run(TEXT, TITAN, call(blobs))
    assert failed.value.vendor_code == "NoCredentialsError"
    assert not server.requests

    keys = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    no_keys.with_name("credentials").write_text(keys)
    with pytest.raises(SafetyBlocked):
        await bedrock.run(TEXT, TITAN, call(blobs))
    await transport.aclose()


ADDRESSES = [
    ("us-west-2", {}, "https://bedrock-runtime.us-west-2.amazonaws.com"),
    ("cn-north-1", {}, "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
    ("us-gov-west-1", {}, "https://bedrock-runtime.us-gov-west-1.amazonaws.com"),
    (
        "us-west-2",
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        "https://bedrock-runtime-fips.us-west-2.amazonaws.com",
    ),
    ("us-west-2", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://bedrock-runtime.us-west-2.api.aws"),
]


@pytest.mark.parametrize(("region", "environment", "address"), ADDRESSES)
async def test_each_region_has_its_address(
    no_keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    region: str,
    environment: dict[str, str],
    address: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert await Signer(None, (KEY, SECRET)).endpoint(region) == address
    url, _ = await Signer(None, (KEY, SECRET)).sign(
        TITAN.model_copy(update={"location": region}), {}, "0" * 64
    )
    assert url == f"{address}/model/amazon.titan-image-generator-v2%3A0/invoke"
