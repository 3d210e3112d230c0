"""Sets of whole numbers as runs, and a memory that forgets: what an audit of millions of records can afford to keep."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

_Tag = TypeVar("_Tag")
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

Run = tuple[int, int]
"""First and last number, both included."""


class Hole(NamedTuple, Generic[_Tag]):
    """Numbers that are not there. `before`: the tag of the number right before them; None when there is none."""

    first: int
    last: int
    before: _Tag | None


class Runs(Generic[_Tag]):
    """A set of numbers, kept as runs: memory goes with the number of holes. Each run remembers the tag of its last number."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._tags: list[_Tag] = []

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self._firsts)

    @property
    def highest(self) -> int:
        """The highest number; 0 of an empty set."""
        return self._lasts[-1] if self._lasts else 0

    @property
    def lowest(self) -> int:
        """The lowest number; 0 of an empty set."""
        return self._firsts[0] if self._firsts else 0

    def add(self, number: int, tag: _Tag) -> bool:
        """Put a number in; False when it was there."""
        firsts, lasts, tags = self._firsts, self._lasts, self._tags
        if lasts and number == lasts[-1] + 1:
            lasts[-1] = number
            tags[-1] = tag
            return True
        left = bisect_right(firsts, number) - 1
        if left >= 0 and number <= lasts[left]:
            return False
        right = left + 1
        joins_left = left >= 0 and lasts[left] + 1 == number
        joins_right = right < len(firsts) and firsts[right] == number + 1
        if joins_left and joins_right:
            lasts[left], tags[left] = lasts[right], tags[right]
            del firsts[right], lasts[right], tags[right]
        elif joins_left:
            lasts[left], tags[left] = number, tag
        elif joins_right:
            firsts[right] = number
        else:
            firsts.insert(right, number)
            lasts.insert(right, number)
            tags.insert(right, tag)
        return True

    def holes(self, upto: int) -> Iterator[Hole[_Tag]]:
        """The numbers from 1 to the higher of `upto` and the highest that are not there, in order."""
        expected, tag = 1, None
        for first, last, its in zip(self._firsts, self._lasts, self._tags, strict=True):
            if first > expected:
                yield Hole(expected, first - 1, tag)
            expected, tag = last + 1, its
        if upto >= expected:
            yield Hole(expected, upto, tag)


def count(runs: Sequence[Run]) -> int:
    """How many numbers are in runs that do not overlap."""
    return sum(last - first + 1 for first, last in runs)


def merged(runs: Sequence[Run]) -> list[Run]:
    """The same numbers as runs in order that neither overlap nor touch."""
    result: list[Run] = []
    for first, last in sorted(runs):
        if result and first <= result[-1][1] + 1:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return result


def split(runs: Sequence[Run], by: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The parts of `runs` that lie in `by`, and those that do not. Both are merged and in order."""
    inside: list[Run] = []
    outside: list[Run] = []
    at = 0
    for first, last in runs:
        while first <= last:
            while at < len(by) and by[at][1] < first:
                at += 1
            if at == len(by) or by[at][0] > last:
                outside.append((first, last))
                break
            if by[at][0] > first:
                outside.append((first, by[at][0] - 1))
                first = by[at][0]  # noqa: PLW2901  what is left of this run
            end = min(last, by[at][1])
            inside.append((first, end))
            first = end + 1  # noqa: PLW2901  what is left of this run
    return inside, outside


def words(runs: Sequence[Run], most: int = 20) -> str:
    """`17, 40-42`; of more than `most` runs the first ones, and how many more there are."""
    told = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:most]]
    if len(runs) > most:
        told.append(f"and {len(runs) - most} more runs")
    return ", ".join(told)


class Recent(Generic[_Key, _Value]):
    """A dictionary that keeps at least the last `most` keys that were put in, and at most twice as many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: dict[_Key, _Value] = {}
        self._old: dict[_Key, _Value] = {}
        self.forgot = False  # whether anything was ever dropped

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: _Key) -> _Value | None:
        """The value of a key; None when it is not, or no longer, known."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def put(self, key: _Key, value: _Value) -> None:
        """Remember it as the most recent."""
        young = self._young
        young[key] = value
        if len(young) >= self._most:
            self.forgot = self.forgot or bool(self._old)
            self._old, self._young = young, {}
