"""The thread before the state file: what is asked of it together is written together."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamer.outbox import journal
from streamer.outbox.journal import Journal
from streamer.outbox.store import Committed, Work
from streamer.testing.clock import FakeClock


class Steps:
    """Stands in for the store: notes what is done, and answers."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.done = directory, list[Any]()

    def commit(self, works: Sequence[Work], now_ms: int) -> Committed:
        self.done.append([work.durable[0] for work in works])
        return Committed({}, {"durable": 0, "stats": 0})

    def read(self, lane: str, after: int, through: int, *_: Any) -> tuple[list[Any], int]:
        self.done.append(("read", after))
        return [], through

    def tidy(self) -> None:
        pass

    def close(self) -> None:
        self.done.append("closed")


def work(number: int) -> Any:
    return Work([number])  # type: ignore[list-item]  # any mark does


@pytest.mark.parametrize("count", [1, 2, 199, 200, 201, 450, 1000])
async def test_one_turn_is_one_transaction_up_to_a_bound_and_nothing_is_lost_at_the_end(tmp_path: Path, count: int) -> None:
    """Each is answered once, in order; closing right behind them waits for all."""
    steps = Steps(tmp_path)
    under_test, heard = Journal(steps, FakeClock()), list[int]()  # type: ignore[arg-type]
    under_test.start()
    for number in range(count):
        under_test.write(work(number), lambda _, number=number: heard.append(number))  # type: ignore[misc]
    await under_test.close()
    await asyncio.sleep(0)
    assert heard == list(range(count))
    assert steps.done.pop() == "closed"
    assert [number for commit in steps.done for number in commit] == list(range(count))
    sizes = [len(commit) for commit in steps.done]
    assert sizes[0] >= min(count, journal._MOST_WORKS)
    assert max(sizes) < 2 * journal._MOST_WORKS


async def test_a_read_sees_what_was_asked_for_before_it_and_nothing_that_comes_later(tmp_path: Path) -> None:
    """Though all of it is asked for in one turn."""
    steps = Steps(tmp_path)
    under_test, heard = Journal(steps, FakeClock()), list[Any]()  # type: ignore[arg-type]
    under_test.start()
    for number in range(3):
        under_test.write(work(number), lambda _, number=number: heard.append(number))  # type: ignore[misc]
        under_test.read(
            "durable", number, number, frozenset(), 1, functools.partial(lambda number, _: heard.append(("read", number)), number)
        )
    await under_test.close()
    await asyncio.sleep(0)
    assert steps.done == [[0], ("read", 0), [1], ("read", 1), [2], ("read", 2), "closed"]
    assert heard == [0, ("read", 0), 1, ("read", 1), 2, ("read", 2)]
