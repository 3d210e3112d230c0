"""Fresh samples on demand: who is asked for one, and how long is waited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamer.cadvisor.freshness import Freshener
from streamer.testing.clock import FakeClock
from tests.cadvisor.conftest import House


async def test_only_the_old_ones_are_hastened_and_waited_for(house: House) -> None:
    """One that has gone meanwhile is not waited for; one that is young enough is not touched."""
    house.sampled("/lab/one")
    house.tell.now_ms += 5000
    house.sampled("/lab-two")
    clock = FakeClock(house.tell.now_ms * 1_000_000)
    asked: list[list[str]] = []

    def hasten(paths: Sequence[str]) -> None:
        asked.append(list(paths))
        asyncio.get_running_loop().call_soon(lambda: house.sampled("/lab/one"))

    await Freshener(house.memory, clock, hasten, patience_seconds=30)(["/lab/one", "/lab-two", "/gone"], 2.0)
    assert asked == [["/lab/one"]]
    await Freshener(house.memory, clock, hasten, patience_seconds=30)(["/lab/one", "/lab-two"], 60.0)
    assert len(asked) == 1


async def test_no_age_at_all_is_exact(house: House) -> None:
    """A sample of the same millisecond, but from before the question, is too old for it."""
    house.sampled("/lab/one")
    taken = taken_ns(house, "/lab/one")
    asked: list[Sequence[str]] = []
    await Freshener(house.memory, FakeClock(taken), asked.append, patience_seconds=0.02)(["/lab/one"], 0.0)
    assert asked == []
    await Freshener(house.memory, FakeClock(taken + 1), asked.append, patience_seconds=0.02)(["/lab/one"], 0.0)
    assert asked == [["/lab/one"]]


async def test_patience_has_an_end(house: House) -> None:
    """Then there is what there is."""
    house.sampled("/lab/one")
    clock = FakeClock(taken_ns(house, "/lab/one") + 1)
    asked: list[Sequence[str]] = []
    await Freshener(house.memory, clock, asked.append, patience_seconds=0.02, first_patience_seconds=60)(["/lab/one"], 0.0)
    assert asked == [["/lab/one"]]


async def test_where_there_is_nothing_yet_patience_is_longer(house: House) -> None:
    """The first look is waited for though it comes late; the next one of another is not."""
    house.sampled("/lab-two")
    clock = FakeClock(taken_ns(house, "/lab-two") + 1)

    def hasten(paths: Sequence[str]) -> None:
        assert paths == ["/lab/one", "/lab-two"]
        asyncio.get_running_loop().call_later(0.1, house.sampled, "/lab/one")

    await Freshener(house.memory, clock, hasten, patience_seconds=0.02, first_patience_seconds=60)(["/lab/one", "/lab-two"], 0.0)
    assert taken_ns(house, "/lab/one") > 0


async def test_that_has_an_end_too(house: House) -> None:
    """Nobody waits for ever for what cannot be sampled."""
    asked: list[Sequence[str]] = []
    clock = FakeClock()
    await Freshener(house.memory, clock, asked.append, patience_seconds=0.01, first_patience_seconds=0.02)(["/lab/one"], 0.0)
    assert asked == [["/lab/one"]]


def taken_ns(house: House, path: str) -> int:
    """When its newest sample was taken."""
    container = house.memory.by_path(path)
    assert container is not None
    return container.looks[-1][0]
