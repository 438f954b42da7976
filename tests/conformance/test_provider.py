"""What every provider promises, whatever its vendor: `app.ports.Provider`.

Each runs against its vendor's side over real sockets, and the wish's trouble is rehearsed there.
"""

import asyncio
import tomllib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from app.contract.errors import (
    BudgetExhausted,
    Busy,
    GatewayError,
    ModelGone,
    RateLimited,
    SafetyBlocked,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.contract.gen import GEN_REQUEST
from app.contract.image import TextToImage
from app.contract.ledger import CallState
from app.contract.models import Model, load_catalogue
from app.emulator.server import Emulator
from app.pictures.blob import Blobs
from app.pictures.checks import check
from app.ports import Call, Generation, Provider
from app.providers.bedrock.client import Bedrock
from app.providers.transport import Transport
from app.providers.vertex.address import Addresses
from app.providers.vertex.client import Vertex
from app.services.admission import Admission
from tests.conformance.acme import Acme
from tests.conformance.acme_cloud import MODEL, acme_cloud
from tests.support.fake_wish import NotedWish
from tests.support.provider_call import call

pytestmark = pytest.mark.anyio

CATALOGUE = load_catalogue()
TEXT2IMG = GEN_REQUEST.validate_python({"mode": "text2img", "prompt": "a cat"})
NOWHERE = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Rig:
    """A provider, something to ask of it, and how many requests its vendor has got."""

    make: Callable[[str], Provider[Any]]
    url: str
    request: Any
    model: Model
    requests: Callable[[], int]

    async def run(self, call: Call) -> Generation:
        return await self.make(self.url).run(self.request, self.model, call)


@pytest.fixture(params=["imagen", "gemini", "bedrock", "acme"])
async def rig(request: pytest.FixtureRequest, emulator: Emulator) -> AsyncIterator[Rig]:
    transport, admission = Transport(), Admission(100, 100)

    def vertex(url: str) -> Vertex:
        return Vertex(
            transport=transport,
            admission=admission,
            addresses=Addresses("demo", endpoint=url),
            pause_seconds=0.01,
        )

    def bedrock(url: str) -> Bedrock:
        return Bedrock(
            transport=transport,
            admission=admission,
            regions={"us-west-2"},
            endpoint_url=url,
            keys=("emulated", "emulated"),
            pause_seconds=0.01,
        )

    def emulated() -> int:
        return len(emulator.calls.list())

    picture = TextToImage(prompt="a cat", sampleCount=1)
    url = emulator.http_url
    async with acme_cloud() as cloud:
        rigs = {
            "imagen": Rig(vertex, url, picture, CATALOGUE["imagen-4.0-generate-001"], emulated),
            "gemini": Rig(vertex, url, picture, CATALOGUE["gemini-2.5-flash-image"], emulated),
            "bedrock": Rig(bedrock, url, TEXT2IMG, CATALOGUE["stability.stable-image-core-v1:1"], emulated),
            "acme": Rig(
                lambda url: Acme(transport, admission, url),
                cloud.url("").rstrip("/"),
                TEXT2IMG,
                acme_model(),
                lambda: len(cloud.requests),
            ),
        }
        yield rigs[request.param]
        await transport.aclose()


def acme_model() -> Model:
    (row,) = tomllib.loads(MODEL)["model"]
    return Model(**row)


def states(call: Call) -> list[CallState]:
    assert isinstance(call.wish, NotedWish)
    return call.wish.states


async def test_it_says_what_it_serves(rig: Rig) -> None:
    families = rig.make(rig.url).families  # type: ignore[attr-defined]
    assert {*rig.model.operations} <= {*families[rig.model.family]}


async def test_a_request_becomes_a_whole_picture_that_is_paid_once(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs)
    made = await rig.run(asked)
    (picture,) = made.pictures
    check(picture)
    assert (states(asked), rig.requests()) == (["settled"], 1)
    (paid,) = asked.wish.calls  # type: ignore[attr-defined]
    assert paid.bill.pictures == 1


async def test_an_answer_without_a_picture_is_no_success(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs, trouble="empty")
    with pytest.raises(SafetyBlocked):
        await rig.run(asked)
    assert (states(asked), rig.requests()) == (["settled"], 1)


async def test_nothing_is_sent_that_the_ledger_refuses(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs)
    assert isinstance(asked.wish, NotedWish)
    asked.wish.fails = BudgetExhausted()
    with pytest.raises(BudgetExhausted):
        await rig.run(asked)
    assert (states(asked), rig.requests()) == (["void"], 0)


async def test_nothing_is_sent_when_the_time_is_up(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs, seconds=0)
    with pytest.raises(Busy):
        await rig.run(asked)
    assert (set(states(asked)) <= {"void"}, rig.requests()) == (True, 0)


@pytest.mark.parametrize("trouble", ["429", "503"])
async def test_a_busy_vendor_is_asked_three_times_and_costs_nothing(
    rig: Rig, blobs: Blobs, trouble: str
) -> None:
    asked = call(blobs, trouble=trouble)
    with pytest.raises(GatewayError):
        await rig.run(asked)
    assert (states(asked), rig.requests()) == (["void"] * 3, 3)


async def test_a_long_pause_is_left_to_the_caller(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs, trouble="429=30")
    with pytest.raises(RateLimited) as limited:
        await rig.run(asked)
    assert (limited.value.retry_after, limited.value.by_vendor) == (30, True)
    assert (states(asked), rig.requests()) == (["void"], 1)


async def test_a_model_that_is_gone_is_named_and_costs_nothing(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs, trouble="retired")
    with pytest.raises(ModelGone) as gone:
        await rig.run(asked)
    assert gone.value.model == rig.model.id
    assert (states(asked), rig.requests()) == (["void"], 1)


@pytest.mark.parametrize(
    ("trouble", "error"), [("500", UpstreamFailed), ("drop", UpstreamFailed), ("hang", UpstreamTimeout)]
)
async def test_an_unknown_outcome_stays_unknown_and_is_not_repeated(
    rig: Rig, blobs: Blobs, trouble: str, error: type[GatewayError]
) -> None:
    asked = call(blobs, trouble=trouble, seconds=1 if trouble == "hang" else 20)
    with pytest.raises(error):
        await rig.run(asked)
    assert (states(asked), rig.requests()) == (["unknown"], 1)


async def test_a_vendor_that_cannot_be_reached_costs_nothing(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs)
    with pytest.raises(GatewayError):
        await rig.make(NOWHERE).run(rig.request, rig.model, asked)
    assert states(asked) == ["void"] * 3


async def test_a_call_that_is_cancelled_is_abandoned(rig: Rig, blobs: Blobs) -> None:
    asked = call(blobs, trouble="hang")
    running = asyncio.create_task(rig.run(asked))
    while not rig.requests():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (states(asked), rig.requests()) == (["abandoned"], 1)


async def test_ready_asks_for_nothing(rig: Rig) -> None:
    assert await rig.make(rig.url).ready() is None
    assert rig.requests() == 0
    with pytest.raises(OSError, match="Connect call failed"):
        await rig.make(NOWHERE).ready()
