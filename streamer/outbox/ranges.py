"""A set of whole numbers as runs without a hole: a million numbers in order take no more room than ten. Pure."""

from __future__ import annotations

from bisect import bisect_right


class Ranges:
    """Numbers are added in runs, in any order."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._first, number) - 1
        return at >= 0 and number <= self._last[at]

    def __iter__(self) -> zip[tuple[int, int]]:
        return zip(self._first, self._last, strict=True)

    def add(self, first: int, last: int) -> None:
        """Add `first`..`last`."""
        begin = bisect_right(self._first, first) - 1
        if begin < 0 or self._last[begin] < first - 1:
            begin += 1
        end = bisect_right(self._first, last + 1)
        if begin < end:
            first, last = min(first, self._first[begin]), max(last, self._last[end - 1])
        self._first[begin:end], self._last[begin:end] = [first], [last]

    def copy(self) -> Ranges:
        """The same numbers, apart."""
        other = Ranges()
        other._first, other._last = self._first.copy(), self._last.copy()
        return other
