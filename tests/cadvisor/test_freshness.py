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
    taken_ns = house.memory.by_path("/lab/one").looks[-1][0]  # type: ignore[union-attr]
    asked: list[Sequence[str]] = []
    await Freshener(house.memory, FakeClock(taken_ns), asked.append, patience_seconds=0.02)(["/lab/one"], 0.0)
    assert asked == []
    await Freshener(house.memory, FakeClock(taken_ns + 1), asked.append, patience_seconds=0.02)(["/lab/one"], 0.0)
    assert asked == [["/lab/one"]]


async def test_patience_has_an_end(house: House) -> None:
    """Then there is what there is."""
    clock = FakeClock()
    asked: list[Sequence[str]] = []
    await Freshener(house.memory, clock, asked.append, patience_seconds=0.02)(["/lab/one"], 0.0)
    assert asked == [["/lab/one"]]
