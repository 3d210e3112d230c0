"""What a container uses now, by its two newest samples, and how that was of late. Pure.

A rate is the growth of a counter by the time between two samples; what the kernel does not count has none.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from streamer.memory import INDEX, Container

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

_CPU: Final = INDEX["cpu_usage_ns"]
_PERIODS: Final = INDEX["cpu_periods"]
_THROTTLED: Final = INDEX["cpu_throttled_periods"]
_MEMORY: Final = INDEX["memory_working_set_bytes"]
_BYTES: Final = tuple(
    (f"{name}_per_second", INDEX[name]) for name in ("io_read_bytes", "io_write_bytes", "network_rx_bytes", "network_tx_bytes")
)
_PRESSURE: Final = tuple((f"psi_{resource}_some_percent", INDEX[f"psi_{resource}_some_ns"]) for resource in ("cpu", "memory", "io"))


def rates(container: Container) -> Rates:
    """Of a live container; one that has ended uses nothing, and of it nothing is known."""
    if container.deleted_ms:
        return Rates()
    found = _limits(container)
    samples = container.samples.newest(2)
    if samples:
        found.memory_working_set_bytes = samples[-1].values[_MEMORY]
    if len(samples) == 2 and (passed_ns := samples[1].time_ns - samples[0].time_ns) >= _SHORTEST_NS:
        _between(found, samples[0].values, samples[1].values, passed_ns)
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
_DRAWN: Final = (_CPU, _MEMORY, *(column for _, column in _BYTES))


def series(container: Container, since_ms: int, points: int) -> Series:
    """At most `points` of what was after `since_ms` (0: all that is in memory), evenly thinned, the newest always there."""
    found = _thinned(_after(container, since_ms), points)
    columns: list[list[Any]] = [[], [], [], []]
    for (began_ns, before), (ended_ns, after) in pairwise(found):
        span_ns = ended_ns - began_ns
        cpu = _growth(before, after, 0)
        columns[0].append(None if cpu is None else round(cpu / span_ns, 4))
        columns[1].append(None if after[1] is UNSET else after[1])
        columns[2].append(_per_second(before, after, 2, span_ns))
        columns[3].append(_per_second(before, after, 4, span_ns))
    known = [column if any(number is not None for number in column) else UNSET for column in columns]
    return Series(container.key[2], [time_ns // 1_000_000 for time_ns, _ in found[1:]], *known)


def _per_second(before: tuple[Any, ...], after: tuple[Any, ...], first: int, span_ns: int) -> int | None:
    """Of two counters that stand side by side, the sum, or the one that is known."""
    one, other = _growth(before, after, first), _growth(before, after, first + 1)
    if one is None and other is None:
        return None
    return ((one or 0) + (other or 0)) * 1_000_000_000 // span_ns


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
