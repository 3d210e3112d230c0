"""What a container uses now, by its two newest samples, and how that was of late. Pure.

A rate is the growth of a counter by the time between two samples; what the kernel does not count has none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from streamer.memory import INDEX, Container, StatsSample

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


def series(container: Container, since_ms: int, points: int) -> Series:
    """At most `points` of what was after `since_ms` (0: all that is in memory), evenly thinned, the newest always there."""
    samples = _thinned(_after(container, since_ms), points)
    spans = [(a.values, b.values, b.time_ns - a.time_ns) for a, b in pairwise(samples)]

    def column(read: Callable[[Any, Any, int], Any]) -> Any:
        numbers = [read(*span) for span in spans]
        return numbers if any(number is not None for number in numbers) else UNSET

    return Series(
        container.key[2],
        [_time_ms(sample) for sample in samples[1:]],
        column(lambda a, b, ns: round(grown / ns, 4) if (grown := _growth(a, b, _CPU)) is not None else None),
        column(lambda _a, b, _ns: b[_MEMORY] if b[_MEMORY] is not UNSET else None),
        column(lambda a, b, ns: _per_second(a, b, ns, _BYTES[:2])),
        column(lambda a, b, ns: _per_second(a, b, ns, _BYTES[2:])),
    )


def _per_second(before: Any, after: Any, passed_ns: int, columns: tuple[tuple[str, int], ...]) -> int | None:
    grown = [growth for _, column in columns if (growth := _growth(before, after, column)) is not None]
    return sum(grown) * 1_000_000_000 // passed_ns if grown else None


def _after(container: Container, since_ms: int) -> list[StatsSample]:
    """The samples after this time, and the one before them, from which the first of them is measured.

    They are unpacked from the newest back, so as few as possible are asked for: a page that asks every second wants one.
    """
    most = 4
    while True:
        found = container.samples.newest(most)
        begun = bisect_right(found, since_ms, key=_time_ms)
        if begun or len(found) < most:
            return found[max(0, begun - 1) :]
        most *= 4


def _time_ms(sample: StatsSample) -> int:
    return sample.time_ns // 1_000_000


def _thinned(samples: list[StatsSample], points: int) -> list[StatsSample]:
    if len(samples) <= points + 1:
        return samples
    last = len(samples) - 1
    return [samples[last * place // points] for place in range(points + 1)]
