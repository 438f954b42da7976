"""Shares hold, what has room passes what waits, everybody has a turn, and nothing is left behind."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract.errors import Busy, GatewayError, RateLimited
from app.contract.models import Model, load_catalogue
from app.pictures.blob import Blobs
from app.ports import Call
from app.services.admission import Admission
from tests.support.fake_wish import NotedWish

pytestmark = pytest.mark.anyio

A, B, C = load_catalogue().model[:3]


@dataclass
class Vendor:
    """Whose calls end when the test says so."""

    admission: Admission
    blobs: Blobs
    calls: "list[Sent]" = field(default_factory=list)

    def call(self, user: str, model: Model, *, answer_by: float = math.inf) -> "Sent":
        sent = Sent(user, model)
        call = Call(
            user,
            "1",
            answer_by=answer_by,
            store_by=math.inf,
            ends=math.inf,
            blobs=self.blobs,
            wish=NotedWish(),
        )
        sent.task = asyncio.create_task(sent.run(self.admission, call))
        self.calls.append(sent)
        return sent

    async def calling(self, user: str, model: Model, count: int) -> "list[Sent]":
        """So many calls at once, each where it gets by itself."""
        calls = [self.call(user, model) for _ in range(count)]
        await settle()
        return calls

    async def stop(self) -> None:
        """End all calls. Nobody is left waiting, and every share is empty."""
        for one in self.calls:
            one.go.set()
        await asyncio.gather(*(one.task for one in self.calls), return_exceptions=True)
        assert_empty(self.admission)


@dataclass(eq=False)
class Sent:
    """A call that is under way until `go`."""

    user: str
    model: Model
    inside: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None]" = field(init=False)

    async def run(self, admission: Admission, call: Call) -> None:
        async with admission.place(self.model, call):
            self.inside = True
            try:
                await self.go.wait()
            finally:
                self.inside = False

    async def end(self) -> None:
        self.go.set()
        await asyncio.wait([self.task])
        await settle()

    def refusal(self) -> GatewayError:
        error = self.task.exception()
        assert isinstance(error, GatewayError)
        return error


def vendor(blobs: Blobs, places: int, of_a_user: int = 1000) -> Vendor:
    return Vendor(Admission(places, of_a_user), blobs)


def inside(calls: "Sequence[Sent]") -> list[bool]:
    return [one.inside for one in calls]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def assert_empty(admission: Admission) -> None:
    shares = [admission._process, *admission._models.values()]
    assert all(share.idle for share in shares)
    assert not any(model.rotation for model in admission._models.values())
    assert not admission._users


# ── shares ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_model_holds_60_percent(blobs: Blobs) -> None:
    test = vendor(blobs, 10)
    assert inside(await test.calling("ann", A, 8)) == [True] * 6 + [False] * 2
    assert inside(await test.calling("bob", B, 5)) == [True] * 4 + [False]
    await test.stop()


async def test_a_user_holds_a_share(blobs: Blobs) -> None:
    test = vendor(blobs, 100, 3)
    assert inside(await test.calling("ann", A, 2) + await test.calling("ann", B, 2)) == [True] * 3 + [False]
    assert inside(await test.calling("bob", A, 3)) == [True] * 3
    await test.stop()


@pytest.mark.parametrize(("places", "held"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 3)])
async def test_small_shares(blobs: Blobs, places: int, held: int) -> None:
    test = vendor(blobs, places)
    assert sum(inside(await test.calling("ann", A, places + 1 - (places == 1)))) == held
    await test.stop()


async def test_a_share_of_a_user_larger_than_the_process_is_no_limit(blobs: Blobs) -> None:
    test = vendor(blobs, 5, 1000)
    calls = await test.calling("ann", A, 3) + await test.calling("ann", B, 2)
    assert inside(calls) == [True] * 5
    await test.stop()


async def test_as_many_wait_as_the_share_is_large(blobs: Blobs) -> None:
    test = vendor(blobs, 10, 100)
    *_, beyond = await test.calling("ann", A, 13)
    error = beyond.refusal()
    assert isinstance(error, Busy)
    assert error.retry_after == 5
    assert (await test.calling("ann", B, 1))[0].inside
    await test.stop()


async def test_a_user_beyond_their_queue_is_told_so(blobs: Blobs) -> None:
    test = vendor(blobs, 100, 4)
    *_, beyond = await test.calling("ann", A, 9)
    error = beyond.refusal()
    assert isinstance(error, RateLimited)
    assert (error.retry_after, error.by_vendor) == (5, False)
    assert (await test.calling("bob", A, 1))[0].inside
    await test.stop()


async def test_the_queue_of_the_process_has_an_end(blobs: Blobs) -> None:
    test = vendor(blobs, 10)
    for model in (A, B):
        await test.calling("ann", model, 5)
    waiting = await test.calling("bob", A, 5) + await test.calling("cid", B, 5)
    assert not any(one.task.done() for one in waiting)
    (beyond,) = await test.calling("dan", C, 1)
    assert isinstance(beyond.refusal(), Busy)
    await test.stop()


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────


async def test_first_come_first_served(blobs: Blobs) -> None:
    test = vendor(blobs, 2, 100)
    first, *waiting = await test.calling("ann", A, 3)
    await first.end()
    assert inside(waiting) == [True, False]
    await test.stop()


async def test_users_of_a_model_take_turns(blobs: Blobs) -> None:
    """Who has many calls waiting does not delay others by all of them."""
    test = vendor(blobs, 10)
    running = await test.calling("ann", A, 6)
    many = await test.calling("ann", A, 4)
    (bob,) = await test.calling("bob", A, 1)
    await running[0].end()
    assert (inside(many), bob.inside) == ([True, False, False, False], False)
    await running[1].end()
    assert (inside(many), bob.inside) == ([True, False, False, False], True)
    await running[2].end()
    assert inside(many) == [True, True, False, False]
    await test.stop()


async def test_what_has_room_passes_what_waits(blobs: Blobs) -> None:
    test = vendor(blobs, 10, 4)
    await test.calling("ann", A, 8)  # four wait for ann's share
    assert all(inside(await test.calling("bob", A, 2)))
    assert inside(await test.calling("cid", A, 1)) == [False]  # the model's share
    assert all(inside(await test.calling("cid", B, 4)))
    await test.stop()


async def test_a_place_goes_to_a_call_that_may_use_it(blobs: Blobs) -> None:
    test = vendor(blobs, 10, 4)
    anns = await test.calling("ann", B, 4)
    bobs = await test.calling("bob", A, 3) + await test.calling("cid", A, 3)
    (ann,) = await test.calling("ann", A, 1)  # has waited longest, but ann's share is full
    (bob,) = await test.calling("bob", A, 1)
    await bobs[0].end()
    assert (ann.inside, bob.inside) == (False, True)
    await bobs[1].end()  # process and model have room
    assert not ann.inside
    await anns[0].end()
    assert ann.inside
    await test.stop()


async def test_one_end_may_let_two_in(blobs: Blobs) -> None:
    test = vendor(blobs, 10, 6)
    anns = await test.calling("ann", A, 6)
    (other,) = await test.calling("ann", B, 1)  # waits for ann's share
    (bob,) = await test.calling("bob", A, 1)  # waits for the model's
    await anns[0].end()
    assert (other.inside, bob.inside) == (True, True)
    await test.stop()


# ── leaving ──────────────────────────────────────────────────────────────────────────────────────────


async def test_who_leaves_the_queue_makes_room_in_it(blobs: Blobs) -> None:
    test = vendor(blobs, 2, 1)
    _, waiting = await test.calling("ann", A, 2)
    waiting.task.cancel()
    await settle()
    (another,) = await test.calling("ann", A, 1)
    assert not another.task.done()
    await test.stop()


async def test_a_call_cancelled_when_it_was_just_let_in_gives_its_place_on(blobs: Blobs) -> None:
    test = vendor(blobs, 4, 10)
    first, _, second, third = await test.calling("ann", A, 3) + await test.calling("bob", A, 1)
    first.go.set()
    await asyncio.sleep(0)  # first has ended and second has its place, but second's code has not run yet
    assert (first.inside, second.inside) == (False, False)
    second.task.cancel()
    await settle()
    assert (second.task.cancelled(), third.inside) == (True, True)
    await test.stop()


async def test_a_call_cancelled_at_the_moment_of_its_turn_is_passed_over(blobs: Blobs) -> None:
    test = vendor(blobs, 4, 10)
    first, _, second, third = await test.calling("ann", A, 3) + await test.calling("bob", A, 1)
    first.go.set()
    second.task.cancel()  # its future is cancelled at once; its own code runs after first's
    await settle()
    assert (second.task.cancelled(), third.inside) == (True, True)
    await test.stop()


async def test_all_leave_together(blobs: Blobs) -> None:
    test = vendor(blobs, 5, 10)
    calls = await test.calling("ann", A, 5) + await test.calling("bob", B, 5)
    for one in calls:
        one.task.cancel()
    await test.stop()


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_that_has_too_little_time_is_not_sent(blobs: Blobs) -> None:
    test = Vendor(Admission(10, 10, min_seconds=5), blobs)
    now = asyncio.get_running_loop().time()
    late, early = test.call("ann", A, answer_by=now + 4), test.call("ann", A, answer_by=now + 60)
    await settle()
    assert early.inside
    error = late.refusal()
    assert isinstance(error, Busy)
    assert error.retry_after == 5
    await test.stop()


async def test_a_call_waits_until_it_is_too_late(blobs: Blobs) -> None:
    test = Vendor(Admission(1, 10, min_seconds=5), blobs)
    (first,) = await test.calling("ann", A, 1)
    waiting = test.call("bob", A, answer_by=asyncio.get_running_loop().time() + 5.05)
    await asyncio.wait([waiting.task])
    assert isinstance(waiting.refusal(), Busy)
    assert first.inside
    await test.stop()


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────────

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "end", "cancel"]),
        st.integers(0, 30),
        st.sampled_from(["ann", "bob", "cid"]),
        st.sampled_from([A, B]),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(places=st.integers(1, 7), of_a_user=st.integers(1, 8), steps=STEPS)
async def test_the_shares_hold_and_nobody_is_forgotten(
    places: int, of_a_user: int, steps: list[tuple[str, int, str, Model, bool]]
) -> None:
    of_a_model = max(1, places * 60 // 100)
    test = Vendor(Admission(places, of_a_user), None)  # type: ignore[arg-type]  # a call without pictures
    for step, number, user, model, pause in steps:
        if step == "call":
            test.call(user, model)
        elif test.calls:
            chosen = test.calls[number % len(test.calls)]
            if step == "end":
                chosen.go.set()
            else:
                chosen.task.cancel()
        if not pause:  # several steps happen in one turn of the loop
            continue
        await settle()
        alive = [one for one in test.calls if not one.task.done()]
        users = Counter(one.user for one in alive if one.inside)
        models = Counter(one.model.id for one in alive if one.inside)
        assert users.total() <= places
        assert all(count <= of_a_user for count in users.values())
        assert all(count <= of_a_model for count in models.values())
        for one in alive:  # nobody waits who has room
            assert one.inside or (
                users.total() == places or users[one.user] == of_a_user or models[one.model.id] == of_a_model
            )
        for user_, model_ in {(one.user, one.model.id) for one in alive}:  # each line in its order
            line = [one.inside for one in alive if (one.user, one.model.id) == (user_, model_)]
            assert line == sorted(line, reverse=True)
    await test.stop()
    for one in test.calls:
        assert one.task.cancelled() or isinstance(one.task.exception(), Busy | RateLimited | None)


async def test_thousands_wait_and_all_are_served(blobs: Blobs) -> None:
    """As 100 users of one model: each is served before anybody is served twice."""
    test = vendor(blobs, 2000, 12)
    for n in range(100):
        await test.calling(f"user-{n}", A, 12)  # fills the model
    for n in range(100):
        await test.calling(f"user-{n}", A, 12)
    running, waiting = test.calls[:1200], test.calls[1200:]
    assert all(inside(running))
    assert not any(inside(waiting))
    for one in running[::12]:  # one of each user
        one.go.set()
    await settle()
    assert Counter(one.user for one in waiting if one.inside) == {f"user-{n}": 1 for n in range(100)}
    await test.stop()
