"""Sets of numbers as runs, against sets of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.consume.runs import Recent, Run, Runs, count, merged, split, words

NUMBERS = st.lists(st.integers(1, 60), max_size=80)
RUNS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda each: (each[0], each[0] + each[1])), max_size=12)


def numbers(runs: list[Run]) -> set[int]:
    """All numbers in runs."""
    return {number for first, last in runs for number in range(first, last + 1)}


@given(NUMBERS, st.integers(0, 70))
def test_holes_are_what_was_not_added(added: list[int], upto: int) -> None:
    """In any order, with repeats; `add` tells which were new, and each hole the tag of the number before it."""
    runs: Runs[int] = Runs()
    seen: set[int] = set()
    for number in added:
        assert runs.add(number, number) == (number not in seen)
        seen.add(number)
    assert runs.highest == max(seen, default=0) and runs.lowest == min(seen, default=0)
    holes = list(runs.holes(upto))
    assert numbers([(hole.first, hole.last) for hole in holes]) == set(range(1, max(runs.highest, upto) + 1)) - seen
    for hole in holes:
        assert hole.before == (hole.first - 1 or None)
        assert hole.first <= hole.last


def test_memory_goes_with_holes() -> None:
    """200 000 numbers in order are one run; every second one of a thousand are five hundred, and one when they are filled."""
    runs: Runs[None] = Runs()
    for number in range(1, 200_001):
        runs.add(number, None)
    assert len(runs) == 1
    scattered: Runs[None] = Runs()
    for number in range(2, 1001, 2):
        scattered.add(number, None)
    assert len(scattered) == 500
    for number in range(1, 1001, 2):
        scattered.add(number, None)
    assert len(scattered) == 1


@given(RUNS, RUNS)
def test_split_and_merged_are_those_of_sets(runs: list[Run], by: list[Run]) -> None:
    """Inside, outside, and nothing twice."""
    inside, outside = split(merged(runs), merged(by))
    assert numbers(inside) == numbers(runs) & numbers(by)
    assert numbers(outside) == numbers(runs) - numbers(by)
    assert count(inside) + count(outside) == len(numbers(runs))
    assert all(left[1] + 1 < right[0] for left, right in zip(merged(runs), merged(runs)[1:], strict=False))


def test_runs_in_words() -> None:
    """Short, and it says when something was left out."""
    assert words([(17, 17), (40, 42)]) == "17, 40-42"
    assert words([(number, number) for number in range(1, 60, 2)], most=2) == "1, 3, and 28 more runs"


@given(st.lists(st.integers(0, 30)), st.integers(1, 8))
def test_recent_keeps_the_last_ones_and_stays_small(keys: list[int], most: int) -> None:
    """At least `most` keys are known, never more than twice as many are kept, and forgetting is told."""
    recent: Recent[int, int] = Recent(most)
    for number, key in enumerate(keys):
        recent.put(key, number)
        last = list(dict.fromkeys(reversed(keys[: number + 1])))[: most - 1]
        assert all(recent.get(each) is not None for each in last)
        assert recent.get(key) == number
        assert len(recent) <= 2 * most
    assert recent.forgot or all(recent.get(key) is not None for key in keys)
