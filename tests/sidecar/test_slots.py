"""Turns of large answers: how many, in which order, and what becomes of a turn whose client has gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from streamer.sidecar.slots import SCRAPES_BEGUN, Busy, Left, Slots


def a_client() -> asyncio.Future[None]:
    """One that stays until its future is done."""
    return asyncio.get_running_loop().create_future()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Answers:
    """Answers under way: each begins, is told of, and ends when it is told to."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, name: str, client: asyncio.Future[None] | None = None) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._answer(name, client or a_client()))

    async def _answer(self, name: str, client: asyncio.Future[None]) -> None:
        async with self.slots.turn(client):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.tasks[name]
        await settle()

    async def end_all(self) -> None:
        for end in self._ends.values():
            end.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_two_at_a_time_and_the_others_in_their_order() -> None:
    """The next one begins when one ends, first come, first served; at the end every place is free."""
    answers = Answers(Slots(at_once=2))
    for name in "abcde":
        answers.ask(name)
        await settle()
    assert answers.begun == ["a", "b"]
    await answers.end("b")
    await answers.end("a")
    assert answers.begun == ["a", "b", "c", "d"]
    await answers.end_all()
    assert answers.begun == ["a", "b", "c", "d", "e"]
    assert answers.slots.working.free == 2


async def test_the_line_has_an_end() -> None:
    """Who would be one too many is told at once; who was there before is answered."""
    answers = Answers(Slots(at_once=1, begun=1, most_waiting=2))
    for name in "abc":
        answers.ask(name)
        await settle()
    with pytest.raises(Busy):
        async with answers.slots.turn(a_client()):
            pass
    await answers.end_all()
    assert answers.begun == ["a", "b", "c"]


def by_leaving(task: asyncio.Task[None], client: asyncio.Future[None]) -> None:
    client.set_result(None)


def by_being_cancelled(task: asyncio.Task[None], client: asyncio.Future[None]) -> None:
    task.cancel()


@pytest.mark.parametrize("go", [by_leaving, by_being_cancelled])
@pytest.mark.parametrize("called_just_now", [False, True])
async def test_the_turn_of_one_who_has_gone_is_the_next_ones(
    go: Callable[[asyncio.Task[None], asyncio.Future[None]], None], called_just_now: bool
) -> None:
    """Gone while it waited, or in the very moment in which the turn was handed to it: no place is lost, nobody is passed over."""
    answers = Answers(Slots(at_once=1, begun=9))
    client = a_client()
    answers.ask("first")
    await settle()
    answers.ask("gone", client)
    await settle()
    answers.ask("last")
    await settle()
    if called_just_now:
        answers._ends["first"].set()
        await answers.tasks["first"]  # it has handed on its turn, and nobody has run since
    go(answers.tasks["gone"], client)
    await settle()
    await answers.end_all()
    with contextlib.suppress(asyncio.CancelledError):
        assert isinstance(answers.tasks["gone"].exception(), Left)
    assert answers.begun == ["first", "last"]
    assert (answers.slots.working.free, answers.slots.begun.free) == (1, 9)


async def test_a_turn_is_lent_while_its_client_lets_us_wait() -> None:
    """Another one works meanwhile; the first goes on when that is done."""
    slots, client = Slots(at_once=1), a_client()
    taken = asyncio.Event()
    story: list[str] = []

    async def slow() -> None:
        async with slots.turn(client) as turn:
            story.append("slow begins")
            await turn.lend(take())
            story.append("slow goes on")

    async def take() -> None:
        await taken.wait()

    async def quick() -> None:
        async with slots.turn(a_client()):
            story.append("quick is answered")
            taken.set()
            await settle()
            story.append("quick ends")

    await asyncio.gather(slow(), quick())
    assert story == ["slow begins", "quick is answered", "quick ends", "slow goes on"]
    assert slots.working.free == 1


@pytest.mark.parametrize("holds", [True, False], ids=["a scrape holds", "another holds"])
@pytest.mark.parametrize("asks", [True, False], ids=["a scrape asks", "another asks"])
async def test_only_the_place_of_a_scrape_is_wanted_and_only_by_scrapes(holds: bool, asks: bool) -> None:
    """While one waits for it, and no longer; who has another large answer has all the time."""
    slots, client = Slots(at_once=9, begun=1), a_client()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(SCRAPES_BEGUN if holds else 1):
            turn = await stack.enter_async_context(slots.turn(a_client(), scrape=holds))
        assert not turn.is_wanted

        async def ask() -> None:
            async with slots.turn(client, scrape=asks):
                pass

        asking = asyncio.create_task(ask())
        await settle()
        assert turn.is_wanted is (holds and asks)
        client.set_result(None)
        await asyncio.wait({asking})
        assert not turn.is_wanted


async def test_one_who_leaves_while_its_turn_is_lent_gives_back_its_place() -> None:
    """Nothing is held for a client that has gone."""
    slots, client = Slots(at_once=1, begun=1), a_client()

    async def until_gone() -> None:
        client.set_result(None)

    with pytest.raises(Left):
        async with slots.turn(client) as turn, slots_taken(slots):
            await turn.lend(until_gone())
    assert (slots.working.free, slots.begun.free) == (1, 1)


@contextlib.asynccontextmanager
async def slots_taken(slots: Slots):  # type: ignore[no-untyped-def]
    """Somebody has taken the lent turn by the time it is wanted back."""
    task = asyncio.create_task(slots.working.acquire(a_client()))
    try:
        await settle()
        yield
    finally:
        await task
        slots.working.release()
