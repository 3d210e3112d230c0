"""What a container uses now, by its two newest samples, and how that was of late. Pure.

A rate is the growth of a counter by the time between two samples; what the kernel does not count has none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import sub
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from streamer.memory import INDEX, RATED, Container

MOST_POINTS: Final = 600


def _as(text: str) -> Meta:
    return Meta(description=text)


class Rates(Struct, omit_defaults=True, kw_only=True):
    """What a container uses, between its two newest samples, and of how much. What is not known is left out."""

    cpu_cores: Annotated[float, _as("CPUs in use: CPU seconds in a second.")] | UnsetType = UNSET
    cpu_limit_cores: Annotated[float, _as("CPUs that it may use; absent: no limit.")] | UnsetType = UNSET
    cpu_throttled_ratio: Annotated[float, _as("Share of the enforcement periods in which the CPU limit held it back, 0 to 1.")] | UnsetType = UNSET  # fmt: skip
    memory_working_set_bytes: Annotated[int, _as("In the newest sample.")] | UnsetType = UNSET
    memory_limit_bytes: Annotated[int, _as("Absent: no limit.")] | UnsetType = UNSET
    io_read_bytes_per_second: int | UnsetType = UNSET
    io_write_bytes_per_second: int | UnsetType = UNSET
    network_rx_bytes_per_second: int | UnsetType = UNSET
    network_tx_bytes_per_second: int | UnsetType = UNSET
    psi_cpu_some_percent: Annotated[float, _as("Time in which some task waited for a CPU.")] | UnsetType = UNSET
    psi_memory_some_percent: Annotated[float, _as("Time in which some task waited for memory.")] | UnsetType = UNSET
    psi_io_some_percent: Annotated[float, _as("Time in which some task waited for I/O.")] | UnsetType = UNSET


_SHORTEST_NS: Final = 10_000_000
"""Two samples closer to each other give no rate: the clock's and the kernel's own grain would be most of it."""

_CPU, _PERIODS, _THROTTLED, _MEMORY = map(
    RATED.index, ("cpu_usage_ns", "cpu_periods", "cpu_throttled_periods", "memory_working_set_bytes")
)
_BYTES: Final = tuple(
    (f"{name}_per_second", RATED.index(name))
    for name in ("io_read_bytes", "io_write_bytes", "network_rx_bytes", "network_tx_bytes")
)
_PRESSURE: Final = tuple(
    (f"psi_{resource}_some_percent", RATED.index(f"psi_{resource}_some_ns")) for resource in ("cpu", "memory", "io")
)


def rates(container: Container) -> Rates:
    """Of a live container; one that has ended uses nothing, and of it nothing is known."""
    if container.deleted_ms:
        return Rates()
    found = _limits(container)
    looks = container.looks
    if looks:
        found.memory_working_set_bytes = looks[-1][1][_MEMORY]
    if len(looks) == 2:
        (began_ns, before), (ended_ns, after) = looks
        if ended_ns - began_ns >= _SHORTEST_NS:
            _between(found, before, after, ended_ns - began_ns)
    return found


def _limits(container: Container) -> Rates:
    spec = container.facts.get("spec")
    found = Rates()
    if spec is not None:
        found.memory_limit_bytes = spec.memory_limit_bytes or UNSET
        if spec.cpu_quota_us and spec.cpu_period_us:
            found.cpu_limit_cores = round(spec.cpu_quota_us / spec.cpu_period_us, 4)
    return found


def _between(found: Rates, before: tuple[Any, ...], after: tuple[Any, ...], passed_ns: int) -> None:
    cpu = _growth(before, after, _CPU)
    if cpu is not None:
        found.cpu_cores = round(cpu / passed_ns, 4)
    periods, throttled = _growth(before, after, _PERIODS), _growth(before, after, _THROTTLED)
    if periods and throttled is not None:
        found.cpu_throttled_ratio = round(min(1.0, throttled / periods), 4)
    elif throttled == 0 and found.cpu_limit_cores is not UNSET:  # it has a limit, and did not run
        found.cpu_throttled_ratio = 0.0
    for name, column in _BYTES:
        if (grown := _growth(before, after, column)) is not None:
            setattr(found, name, grown * 1_000_000_000 // passed_ns)
    for name, column in _PRESSURE:
        if (grown := _growth(before, after, column)) is not None:
            setattr(found, name, round(min(100.0, 100 * grown / passed_ns), 2))


def _growth(before: tuple[Any, ...], after: tuple[Any, ...], column: int) -> int | None:
    first, last = before[column], after[column]
    return max(0, last - first) if first is not UNSET and last is not UNSET else None


# of late


class Series(Struct, omit_defaults=True):
    """How a container's use was, column by column: each number is the mean between its time and the one before it.

    id           incarnation
    time_ms      ends of the spans, rising; the other columns have a number for each of them, null where it is not known
    """

    id: str
    time_ms: list[int]
    cpu_cores: list[float | None] | UnsetType = UNSET
    memory_working_set_bytes: list[int | None] | UnsetType = UNSET
    io_bytes_per_second: list[int | None] | UnsetType = UNSET
    network_bytes_per_second: list[int | None] | UnsetType = UNSET


_Point = tuple[int, tuple[Any, ...]]
"""Time in ns, and of `_DRAWN` the values."""
_DRAWN: Final = tuple(INDEX[RATED[column]] for column in (_CPU, _MEMORY, *(column for _, column in _BYTES)))


def series(container: Container, since_ms: int, points: int) -> Series:
    """At most `points` of what was after `since_ms` (0: all that is in memory), evenly thinned, the newest always there."""
    found = _thinned(_after(container, since_ms), points)
    if len(found) < len(("from", "to")):
        return Series(container.key[2], [])
    times_ns, values = zip(*found, strict=True)
    cpu, memory, read, written, received, sent = zip(*values, strict=True)
    spans_ns = list(map(sub, times_ns[1:], times_ns))
    cores = [None if used is None else round(used / span_ns, 4) for used, span_ns in zip(_grown(cpu), spans_ns, strict=True)]
    held = [None if size is UNSET else size for size in memory[1:]]
    drawn = (cores, held, _per_second(read, written, spans_ns), _per_second(received, sent, spans_ns))
    known: list[Any] = [UNSET if column.count(None) == len(column) else column for column in drawn]
    return Series(container.key[2], [time_ns // 1_000_000 for time_ns in times_ns[1:]], *known)


def _grown(counter: Sequence[Any]) -> list[int | None]:
    """From each to the next; None where one of them is not known."""
    if counter.count(UNSET) == len(counter):
        return [None] * (len(counter) - 1)
    if UNSET in counter:
        return [None if UNSET in (before, after) else max(0, after - before) for before, after in pairwise(counter)]
    return [after - before if after > before else 0 for before, after in pairwise(counter)]


def _per_second(one: Sequence[Any], other: Sequence[Any], spans_ns: Sequence[int]) -> list[int | None]:
    """Of two counters the sum, or the one that is known."""
    return [
        None if a is None and b is None else ((a or 0) + (b or 0)) * 1_000_000_000 // span_ns
        for a, b, span_ns in zip(_grown(one), _grown(other), spans_ns, strict=True)
    ]


def _after(container: Container, since_ms: int) -> list[_Point]:
    """The samples after this time, and the one before them, from which the first of them is measured.

    They are unpacked from the newest back, so as few as possible are asked for: a page that asks every second wants one.
    """
    if not since_ms:
        return _rising(container.samples.columns(_DRAWN))
    most = 4
    while True:
        found = container.samples.columns(_DRAWN, most)
        begun = bisect_right(found, since_ms, key=_time_ms)
        if begun or len(found) < most:
            return _rising(found[max(0, begun - 1) :])
        most *= 4


def _rising(points: list[_Point]) -> list[_Point]:
    """Those since the clock was set back last: what was before then has no place on the same axis."""
    for place in range(len(points) - 1, 0, -1):
        if points[place][0] <= points[place - 1][0]:
            return points[place:]
    return points


def _time_ms(point: _Point) -> int:
    return point[0] // 1_000_000


def _thinned(points: list[_Point], most: int) -> list[_Point]:
    if len(points) <= most + 1:
        return points
    last = len(points) - 1
    return [points[last * place // most] for place in range(most + 1)]
