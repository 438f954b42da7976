"""Bodies stay within the memory limits, bytes that fit overtake those that wait, and none waits for ever."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.room import _FREE_BYTES, Body, Room

pytestmark = pytest.mark.anyio


class Sender:
    """A request that receives its body in pieces, then works until it is released."""

    def __init__(self, room: Room, user: str = "ann") -> None:
        self.body = Body(user)
        self._room = room
        self._pieces: asyncio.Queue[int | None] = asyncio.Queue()
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._run(user))

    async def _run(self, user: str) -> None:
        async with self._room.enter(user) as self.body:
            await self._room.take(self.body, _FREE_BYTES)
            while (piece := await self._pieces.get()) is not None:
                await self._room.take(self.body, piece)
            self.body.arriving = False
            await self._go.wait()

    async def send(self, *pieces: int | None) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)
        await settle()

    async def end(self) -> None:
        self._go.set()
        await self.send(None)


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_what_fits_passes_what_waits() -> None:
    room = Room(10, 10)
    first, large, small = Sender(room), Sender(room), Sender(room)
    await first.send(6, None)
    await large.send(8)
    await small.send(4, None)
    assert (large.body.waiting, small.body.held) == (True, 4)
    await first.end()
    assert large.body.waiting
    await small.end()
    assert large.body.held == 8
    await large.end()


async def test_the_beginning_of_a_body_never_waits() -> None:
    room = Room(10, 10)
    first, second = Sender(room), Sender(room)
    await first.send(10, None)
    await second.send(None)
    assert not second.body.arriving
    await first.end()
    await second.end()


async def test_one_user_leaves_room_for_others() -> None:
    room = Room(10, 5)
    one, two, other = Sender(room), Sender(room), Sender(room, "ben")
    await one.send(5, None)
    await two.send(1)
    await other.send(5)
    assert (two.body.waiting, other.body.held) == (True, 5)
    for sender in (one, two, other):
        await sender.end()


async def test_bodies_that_wait_for_each_other_go_on_one_by_one() -> None:
    room = Room(10, 10)
    senders = [Sender(room, user) for user in ("ann", "ben", "eve")]
    for sender in senders:
        await sender.send(3)
    for sender in senders:
        await sender.send(3, None)
    assert [sender.body.arriving for sender in senders] == [False, True, True]
    for sender in senders:
        await sender.end()
    assert all(sender.task.done() and not sender.task.exception() for sender in senders)


async def test_one_body_at_a_time_goes_beyond_the_limit() -> None:
    room = Room(10, 10)
    first, second, third = Sender(room), Sender(room), Sender(room)
    await first.send(4)
    await second.send(4)
    await third.send(8)
    assert (third.body.over_limit, third.body.held) == (True, 8)
    await first.send(8)
    assert (first.body.waiting, first.body.held) == (True, 4)
    await third.end()
    assert first.body.held == 12
    await first.end()
    await second.end()


async def test_who_leaves_makes_room() -> None:
    room = Room(10, 10)
    first, second = Sender(room), Sender(room)
    await first.send(9, None)
    await second.send(9)
    first.task.cancel()
    await settle()
    assert second.body.held == 9
    await second.end()


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["begin", "send", "finish", "leave"]), st.integers(1, 9)), max_size=40
    )
)
async def test_the_limits_hold_and_everybody_comes_through(steps: list[tuple[str, int]]) -> None:
    room, senders = Room(10, 6), [Sender(Room(1, 1))]
    for step, number in steps:
        sender = senders[number % len(senders)]
        if step == "begin":
            senders.append(Sender(room, "ann" if number % 2 else "ben"))
        elif step == "send":
            await sender.send(number)
        elif step == "finish":
            await sender.end()
        else:
            sender.task.cancel()
        await settle()
        held = [one.body for one in senders[1:] if not one.task.done()]
        assert sum(body.held for body in held if not body.over_limit) <= 10
        assert sum(body.over_limit for body in held) <= 1 or sum(body.held for body in held) <= 10
    for sender in senders:
        await sender.end()
    async with asyncio.timeout(30):
        await asyncio.wait([sender.task for sender in senders])
    assert (room._held, room._bodies) == ({}, {})
