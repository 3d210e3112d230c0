"""Statistics of a container's CPU and memory over its last minute, hour and day, made as its samples come in.

What each number means:

minute  of the samples themselves, since the last full minute ended: CPU rates between two samples in a row, and working
        sets. A minute ends with the first sample that is 60 s or more after the end of the one before, so samples that
        come seldom make long ones.
hour    of the minutes that ended in the last 3600 s. `mean`: theirs, weighted by the time that they cover; `max`: their
        highest; `count`: how many; percentiles and `std`: **of their 90th percentiles**.
day     the same of hours that ended in the last 86400 s and of the one that has begun, an hour standing for its `ninety`.

`mean` of CPU is exact also where samples are missing: time used by time passed. A pause covers 60 s at most, whatever
`percent_complete` is then: it says how much of the span was looked at.

A clock that is set back stands still for them between these two samples, and goes on from there.

Samples wait until there are some, or somebody asks: a minute of one that does nothing is taken in at once.

The p-th percentile of n sorted values is the value at p*(n+1), counted from 1 and interpolated between neighbours.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from math import isqrt
from operator import mul, sub
from struct import Struct as Layout
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

_SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * _SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS
DAY_NS: Final = 24 * HOUR_NS

_SHORTEST_NS: Final = 10_000_000
"""Two samples closer to each other give no rate: the clock's and the kernel's own grain would be most of it."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Statistics of CPU (millicores) or memory (bytes); all 0 and not `present` where nothing was measured."""

    present: bool = False
    mean: int = 0
    std: int = 0
    max: int = 0
    fifty: int = 0
    ninety: int = 0
    ninetyfive: int = 0
    count: int = 0


class Span(msgspec.Struct, frozen=True):
    """Statistics over a minute, an hour or a day, and which share of it was looked at."""

    percent_complete: int = 0
    cpu: Usage = Usage()
    memory: Usage = Usage()


class Derived(msgspec.Struct, frozen=True):
    """What `Summary` knows now. time_ns: of the newest sample, 0 before the first."""

    time_ns: int = 0
    latest_cpu_millicores: int = 0
    latest_memory_bytes: int = 0
    minute: Span = Span()
    hour: Span = Span()
    day: Span = Span()


class _Part(NamedTuple):
    """A minute that has ended, or an hour: what its hour or day is made of. *_known: False where it was not measured."""

    end_ns: int
    covered_ms: int
    cpu_known: bool
    cpu_mean: int
    cpu_max: int
    cpu_ninety: int
    memory_known: bool
    memory_mean: int
    memory_max: int
    memory_ninety: int


_PART: Final = Layout("<QI?III?QQQ")
_FLAT_BYTES: Final = 500  # the object and its numbers
_SPAN_BYTES: Final = 400
_WAITING_BYTES: Final = sys.getsizeof((0, 0, 0)) + 8  # its numbers are the sample's
_TOGETHER: Final = 16
_MOST_MILLICORES: Final = 2**32 - 1


def percentile(ordered: Sequence[int], hundredths: int) -> int:
    """Of sorted values, rounded down.

    >>> percentile(range(1, 106), 70)
    74
    """
    whole, rest = divmod(hundredths * (len(ordered) + 1), 100)
    if whole < 1:
        return ordered[0]
    if whole >= len(ordered):
        return ordered[-1]
    below = ordered[whole - 1]
    return below + (ordered[whole] - below) * rest // 100


def usage(values: Sequence[int], mean: int | None = None, highest: int | None = None) -> Usage:
    """Statistics of these values; `mean` and `highest` where they are known better than by them."""
    count = len(values)
    if not count:
        return Usage()
    one = values[0]
    if values.count(one) == count:
        return Usage(True, one if mean is None else mean, 0, one if highest is None else highest, one, one, one, count)
    ordered, total = sorted(values), sum(values)
    # n * sum of squares - square of the sum: exact in integers, also where all values are large and alike
    spread = count * sum(map(mul, values, values)) - total * total
    return Usage(
        True,
        total // count if mean is None else mean,
        isqrt(spread // (count * (count - 1))),
        ordered[-1] if highest is None else highest,
        percentile(ordered, 50),
        percentile(ordered, 90),
        percentile(ordered, 95),
        count,
    )


class Summary:
    """Takes in samples one by one; keeps those of the present minute, and the minutes and hours that ended lately.

    After a day some 5 KB; a young container costs what its minute has samples.
    """

    __slots__ = (
        "_ahead_ns", "_covered_ns", "_cpu", "_hour_from_ns", "_hours", "_latest", "_memories", "_minute", "_minute_from_ns", "_minutes",
        "_passed_ns", "_rates", "_room", "_spans", "_time_ns", "_told_ns", "_used_ns", "_waiting",
    )  # fmt: skip

    def __init__(self, turn: int = 0) -> None:
        """`turn`: different ones let those that begin together take in what waits at different times."""
        self._room = 1 + turn % _TOGETHER  # for samples that wait
        self._waiting: list[tuple[int, Any, Any]] = []  # the arguments of `add`
        self._told_ns = 0  # when the newest sample says that it was taken
        self._time_ns = 0  # the same, and never earlier than that of a sample before; all times below are of this kind
        self._ahead_ns = 0  # by so much
        self._latest = (0, 0)  # millicores, bytes
        self._cpu: tuple[int, int] | None = None  # time and CPU time from which the next rate counts
        # the present minute
        self._minute_from_ns = self._covered_ns = 0
        self._used_ns = self._passed_ns = 0  # CPU time, and in which time
        self._rates = array("I")
        self._memories = array("Q")
        # what has ended
        self._minute: Span | None = None
        self._minutes = bytearray()  # of `_PART`, the oldest first
        self._hour_from_ns = 0
        self._hours = bytearray()
        self._spans: tuple[Span, Span] | None = None  # hour and day, once they were asked for

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        spans = (self._minute is not None) + 2 * (self._spans is not None)
        parts = sum(map(sys.getsizeof, (self._rates, self._memories, self._minutes, self._hours)))
        return _FLAT_BYTES + spans * _SPAN_BYTES + parts + _WAITING_BYTES * len(self._waiting)

    def add(self, time_ns: int, cpu_usage_ns: Any, working_set_bytes: Any) -> None:
        """Take in a sample that was taken after the ones before; `UNSET` for what it does not have."""
        self._waiting.append((time_ns, cpu_usage_ns, working_set_bytes))
        if len(self._waiting) >= self._room:
            self._take_in()

    def add_all(self, samples: Sequence[tuple[int, Any, Any]]) -> None:
        """`add` each of these, given as its arguments."""
        self._waiting += samples
        if len(self._waiting) >= self._room:
            self._take_in()

    def _take_in(self) -> None:
        """Take in all that wait; those before an unusual one together."""
        waiting, self._waiting, self._room = self._waiting, [], _TOGETHER
        taken = self._take_in_usual(waiting) if len(waiting) > 1 else 0
        for sample in waiting[taken:]:
            self._take_in_one(*sample)

    def _take_in_usual(self, samples: Sequence[tuple[int, Any, Any]]) -> int:
        """Take in samples like most: all measured, later than those before, counters that do not run backwards.

        Does for all what `_take_in_one` does for each. Returns how many were taken: all, or none.
        """
        if self._cpu is None or self._cpu[0] != self._time_ns or self._ahead_ns:
            return 0
        times, cpus, memories = zip(*samples, strict=True)
        passed = [*map(sub, times, (self._time_ns, *times))]  # as long as the shorter one
        try:
            used = [*map(sub, cpus, (self._cpu[1], *cpus))]
            working_sets = array("Q", memories)
        except TypeError:  # `UNSET`
            return 0
        if min(passed) < _SHORTEST_NS or min(used) < 0:
            return 0
        if any(used):
            millicores = [cpu * 1000 // ns for cpu, ns in zip(used, passed, strict=True)]
            rates = array(
                "I", millicores if max(millicores) <= _MOST_MILLICORES else [min(r, _MOST_MILLICORES) for r in millicores]
            )
        else:
            rates = array("I", bytes(4 * len(samples)))
        covered = passed if max(passed) <= MINUTE_NS else [min(ns, MINUTE_NS) for ns in passed]
        first = 0
        while first < len(samples):
            # up to the sample that ends the minute, or to the last
            end = min(bisect_left(times, self._minute_from_ns + MINUTE_NS) + 1, len(samples))
            at = slice(first, end)
            self._rates += rates[at]
            self._memories += working_sets[at]
            self._used_ns += sum(used[at])
            self._passed_ns += sum(passed[at])
            self._covered_ns += sum(covered[at])
            first = end
            self._told_ns = self._time_ns = times[end - 1]
            self._cpu = (self._time_ns, cpus[end - 1])
            self._latest = (rates[end - 1], memories[end - 1])
            if self._time_ns - self._minute_from_ns >= MINUTE_NS:
                self._end_minute()
        return len(samples)

    def _take_in_one(self, time_ns: int, cpu_usage_ns: Any, working_set_bytes: Any) -> None:
        self._told_ns, time_ns = time_ns, time_ns + self._ahead_ns
        if time_ns < self._time_ns:
            self._ahead_ns += self._time_ns - time_ns
            time_ns, self._cpu = self._time_ns, None
        if not self._time_ns:
            self._minute_from_ns = self._hour_from_ns = time_ns
        else:
            self._covered_ns += min(time_ns - self._time_ns, MINUTE_NS)
        self._time_ns = time_ns
        rate, memory = self._latest
        if cpu_usage_ns is not UNSET:
            before = self._cpu
            if before is None or cpu_usage_ns < before[1]:
                self._cpu = (time_ns, cpu_usage_ns)
            elif (passed_ns := time_ns - before[0]) >= _SHORTEST_NS:
                used_ns = cpu_usage_ns - before[1]
                rate = min(used_ns * 1000 // passed_ns, _MOST_MILLICORES)
                self._rates.append(rate)
                self._used_ns += used_ns
                self._passed_ns += passed_ns
                self._cpu = (time_ns, cpu_usage_ns)
        if working_set_bytes is not UNSET:
            memory = working_set_bytes
            self._memories.append(memory)
        self._latest = (rate, memory)
        if time_ns - self._minute_from_ns >= MINUTE_NS:
            self._end_minute()

    def derived(self) -> Derived:
        """What is known now. Before the first minute has ended, `minute` is what there is of it."""
        self._take_in()
        if self._spans is None:
            self._spans = (self._hour(), self._day())
        return Derived(self._told_ns, *self._latest, self._minute or self._present(), *self._spans)

    def _present(self) -> Span:
        cpu = usage(self._rates, self._used_ns * 1000 // self._passed_ns if self._passed_ns else None)
        return Span(_percent(self._covered_ns, MINUTE_NS), cpu, usage(self._memories))

    def _end_minute(self) -> None:
        now_ns, minute = self._time_ns, self._present()
        self._minute = minute
        self._minutes += _PART.pack(*_part(now_ns, self._covered_ns // 1_000_000, minute))
        if now_ns - self._hour_from_ns >= HOUR_NS:
            self._hours += _PART.pack(*self._hour_begun())
            self._hour_from_ns = now_ns
        _drop(self._minutes, now_ns - HOUR_NS)
        _drop(self._hours, now_ns - DAY_NS)
        self._minute_from_ns = now_ns
        self._covered_ns = self._used_ns = self._passed_ns = 0
        self._rates, self._memories = array("I"), array("Q")
        self._spans = None

    def _hour_begun(self) -> _Part:
        parts = [part for part in _parts(self._minutes) if part.end_ns > self._hour_from_ns]
        return _part(self._time_ns, sum(part.covered_ms for part in parts), _over(parts, HOUR_NS))

    def _hour(self) -> Span:
        return _over(_parts(self._minutes), HOUR_NS)

    def _day(self) -> Span:
        begun = self._hour_begun()
        return _over([*_parts(self._hours), *([begun] if begun.covered_ms else [])], DAY_NS)


def _percent(covered_ns: int, span_ns: int) -> int:
    return min(100, covered_ns * 100 // span_ns)


def _part(end_ns: int, covered_ms: int, span: Span) -> _Part:
    cpu, memory = span.cpu, span.memory
    return _Part(
        end_ns, covered_ms, cpu.present, cpu.mean, cpu.max, cpu.ninety, memory.present, memory.mean, memory.max, memory.ninety
    )  # fmt: skip


def _parts(packed: bytearray) -> list[_Part]:
    return [_Part._make(part) for part in _PART.iter_unpack(packed)]


def _drop(packed: bytearray, until_ns: int) -> None:
    """Let go of what ended by then."""
    while packed and _PART.unpack_from(packed)[0] <= until_ns:
        del packed[: _PART.size]


def _over(parts: Sequence[_Part], span_ns: int) -> Span:
    """Minutes become an hour, hours a day."""
    return Span(
        _percent(sum(part.covered_ms for part in parts) * 1_000_000, span_ns),
        _usage_over([(p.covered_ms, p.cpu_mean, p.cpu_max, p.cpu_ninety) for p in parts if p.cpu_known]),
        _usage_over([(p.covered_ms, p.memory_mean, p.memory_max, p.memory_ninety) for p in parts if p.memory_known]),
    )


def _usage_over(parts: Sequence[tuple[int, int, int, int]]) -> Usage:
    if not parts:
        return Usage()
    weight = sum(covered for covered, *_ in parts)
    mean = sum(covered * mean for covered, mean, *_ in parts) // weight
    return usage([ninety for *_, ninety in parts], mean, max(highest for *_, highest, _ in parts))
