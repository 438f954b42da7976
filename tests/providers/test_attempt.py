"""One paid call: when it is sent, when it is repeated, and when it holds its place."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from app.contract.errors import (
    BrokenPicture,
    Busy,
    RateLimited,
    SafetyBlocked,
    UpstreamFailed,
    UpstreamUnavailable,
)
from app.contract.ledger import CallState
from app.contract.models import load_catalogue
from app.contract.prices import Order, today
from app.contract.safety import block
from app.pictures.blob import Blobs
from app.ports import Call
from app.providers.attempt import attempt, preparing
from app.providers.failures import CallFailed, Served
from app.services.admission import Admission
from tests.support.fake_wish import NotedWish

pytestmark = pytest.mark.anyio

MODEL = load_catalogue().model[0]


class Vendor:
    """Fails as it is told (`failed`), then serves: a call is `sending` until `go`."""

    def __init__(self, *failures: BaseException) -> None:
        self._failures = list(failures)
        self.asked = 0
        self.failed, self.sending, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def send(self) -> str:
        self.asked += 1
        if self._failures:
            self.failed.set()
            raise self._failures.pop(0)
        self.sending.set()
        await self.go.wait()
        return "a picture"


def failure(served: Served = "no", pause: float | None = None) -> CallFailed:
    return CallFailed(RateLimited(7, by_vendor=True), served, pause=pause)


def call(blobs: Blobs, seconds: float = 60, user: str = "ann") -> Call:
    ends = asyncio.get_running_loop().time() + seconds
    return Call(user, "1", answer_by=ends, store_by=ends, ends=ends, blobs=blobs, wish=NotedWish())


async def whole(answer: str, call: Call) -> str:
    call.bill.pictures = 1
    return answer


async def ask(
    vendor: Vendor,
    admission: Admission,
    call: Call,
    *,
    pause: float = 0.001,
    read: Callable[[str, Call], Awaitable[str]] = whole,
) -> str:
    (paid,) = call.wish.pay_for(MODEL, [Order(MODEL.id, "text-to-image", today())])
    return await attempt(vendor.send, read, paid, MODEL, call, admission=admission, pause_seconds=pause)


async def test_a_refused_call_is_sent_again_twice(blobs: Blobs) -> None:
    vendor, admission = Vendor(failure(), failure()), Admission(9, 9)
    vendor.go.set()
    assert await ask(vendor, admission, call(blobs)) == "a picture"
    assert vendor.asked == 3
    vendor = Vendor(failure(), failure(), failure())
    with pytest.raises(RateLimited):
        await ask(vendor, admission, call(blobs))
    assert vendor.asked == 3


@pytest.mark.parametrize("served", ["refused", "unknown"])
async def test_what_may_be_paid_or_is_refused_for_good_is_not_repeated(blobs: Blobs, served: Served) -> None:
    vendor = Vendor(failure(served))
    with pytest.raises(RateLimited):
        await ask(vendor, Admission(9, 9), call(blobs))
    assert vendor.asked == 1


async def test_the_place_is_held_while_the_call_is_under_way(blobs: Blobs) -> None:
    vendor, other, admission = Vendor(), Vendor(), Admission(1, 9)
    first = asyncio.create_task(ask(vendor, admission, call(blobs)))
    await vendor.sending.wait()
    second = asyncio.create_task(ask(other, admission, call(blobs)))
    await asyncio.sleep(0)
    assert other.asked == 0
    vendor.go.set()
    await other.sending.wait()
    other.go.set()
    assert {await first, await second} == {"a picture"}


async def test_a_pause_holds_no_place(blobs: Blobs) -> None:
    vendor, other, admission = Vendor(failure(pause=4)), Vendor(), Admission(1, 9)
    other.go.set()
    pausing = asyncio.create_task(ask(vendor, admission, call(blobs)))
    await vendor.failed.wait()
    assert await ask(other, admission, call(blobs)) == "a picture"
    pausing.cancel()
    await asyncio.wait([pausing])
    assert vendor.asked == 1


@pytest.mark.parametrize("end", [UpstreamFailed("a bug"), asyncio.CancelledError()])
async def test_however_a_call_ends_its_place_is_free(blobs: Blobs, end: BaseException) -> None:
    admission, vendor = Admission(1, 9), Vendor()

    with pytest.raises(type(end)):
        await ask(Vendor(end), admission, call(blobs))
    vendor.go.set()
    assert await ask(vendor, admission, call(blobs)) == "a picture"


async def test_what_comes_too_late_is_not_sent(blobs: Blobs) -> None:
    vendor = Vendor()
    with pytest.raises(Busy) as busy:
        await ask(vendor, Admission(9, 9, min_seconds=5), call(blobs, 4.9))
    assert (vendor.asked, busy.value.retry_after) == (0, 5)


async def test_who_waits_until_it_is_too_late_is_told_busy(blobs: Blobs) -> None:
    vendor, other, admission = Vendor(), Vendor(), Admission(1, 9, min_seconds=5)
    first = asyncio.create_task(ask(vendor, admission, call(blobs)))
    await vendor.sending.wait()
    with pytest.raises(Busy):
        await ask(other, admission, call(blobs, 5.05))
    assert other.asked == 0
    vendor.go.set()
    await first


@pytest.mark.parametrize("pause", [0.6, 6])
async def test_too_late_to_repeat_tells_the_last_refusal(blobs: Blobs, pause: float) -> None:
    """The second pause is longer than any call waits."""
    vendor = Vendor(failure(pause=pause))
    with pytest.raises(RateLimited) as told:
        await ask(vendor, Admission(9, 9, min_seconds=5), call(blobs, 5.5))
    assert (vendor.asked, told.value.retry_after) == (1, 7)


async def test_no_place_to_repeat_tells_the_last_refusal(blobs: Blobs) -> None:
    admission, others = Admission(1, 1), [Vendor(), Vendor()]
    unavailable = CallFailed(UpstreamUnavailable(retry_after=9), "no")
    vendor = Vendor(unavailable)
    repeating = asyncio.create_task(ask(vendor, admission, call(blobs), pause=0.05))
    await vendor.failed.wait()
    tasks = [asyncio.create_task(ask(one, admission, call(blobs, user="bob"))) for one in others]
    with pytest.raises(UpstreamUnavailable) as told:  # one is under way, one waits
        await repeating
    assert (told.value, vendor.asked) == (unavailable.error, 1)
    for one in others:
        one.go.set()
    await asyncio.gather(*tasks)


async def test_what_comes_before_a_call_ends_when_it_is_too_late_to_send_it(blobs: Blobs) -> None:
    with pytest.raises(Busy) as busy:
        async with preparing(call(blobs, 5.05), Admission(9, 9, min_seconds=5)):
            await asyncio.Event().wait()
    assert busy.value.retry_after == 5


@dataclass(frozen=True)
class Ending:
    """What happens to a call, and how its row ends."""

    raised: BaseException | None
    states: list[CallState]
    sending: list[BaseException] = field(default_factory=list)
    reading: BaseException | None = None
    pictures: int = 0


ENDINGS = {
    "served": Ending(None, ["settled"], pictures=1),
    "refused": Ending(RateLimited(7), ["void"], [failure("refused")]),
    "served at the third try": Ending(None, ["void", "void", "settled"], [failure(), failure()], pictures=1),
    "unknown": Ending(RateLimited(7), ["unknown"], [failure("unknown")]),
    "cancelled while it is sent": Ending(asyncio.CancelledError(), ["abandoned"], [asyncio.CancelledError()]),
    "a bug while it is sent": Ending(ValueError(), ["abandoned"], [ValueError()]),
    "blocked": Ending(SafetyBlocked(block()), ["settled"], reading=SafetyBlocked(block())),
    "a broken picture": Ending(BrokenPicture(), ["settled"], reading=BrokenPicture(), pictures=1),
    "an unknown shape": Ending(UpstreamFailed(), ["unknown"], reading=UpstreamFailed()),
    "cancelled while it is read": Ending(
        asyncio.CancelledError(), ["abandoned"], reading=asyncio.CancelledError(), pictures=1
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_a_row_ends_as_its_call_does(blobs: Blobs, name: str) -> None:
    ending, wish, vendor = ENDINGS[name], NotedWish(), Vendor(*ENDINGS[name].sending)
    vendor.go.set()

    async def read(answer: str, call: Call) -> str:
        call.bill.pictures = ending.pictures
        if ending.reading:
            raise ending.reading
        return answer

    asking = ask(vendor, Admission(9, 9), replace(call(blobs), wish=wish), read=read)
    if ending.raised:
        with pytest.raises(type(ending.raised)):
            await asking
    else:
        assert await asking == "a picture"
    assert wish.states == ending.states
    assert [one.bill.pictures for one in wish.calls if one.bill] == [ending.pictures] * ending.states.count(
        "settled"
    )


async def test_without_its_row_a_call_is_not_sent(blobs: Blobs) -> None:
    wish, vendor = NotedWish(fails=Busy()), Vendor()
    with pytest.raises(Busy):
        await ask(vendor, Admission(9, 9), replace(call(blobs), wish=wish))
    assert (vendor.asked, wish.states) == (0, ["void"])


async def test_a_call_that_gets_no_place_is_void(blobs: Blobs) -> None:
    wish, admission = NotedWish(), Admission(9, 9)
    admission.close()
    with pytest.raises(Busy):
        await ask(Vendor(), admission, replace(call(blobs), wish=wish))
    assert wish.states == ["void"]
