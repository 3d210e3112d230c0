"""The recent samples of one container."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

from streamer.model import stats
from streamer.model.stats import IoDevice, NetworkInterface

COLUMNS: Final[tuple[str, ...]] = (*stats.COLUMNS, *(f"network_{suffix}" for suffix, _ in stats.NETWORK))
"""Of `StatsSample.values`: the fields of `ContainerStats` that are numbers, in their order."""

INDEX: Final[dict[str, int]] = {name: position for position, name in enumerate(COLUMNS)}


class StatsSample(msgspec.Struct, frozen=True, gc=False):
    """One look at one container, as its `ContainerStats` told.

    time_ns     wall clock, ns since 1970
    values      one for each of `COLUMNS`, `UNSET` where the kernel gave none
    interfaces  network counters by interface
    devices     block I/O by device
    """

    time_ns: int
    values: tuple[Any, ...]
    interfaces: tuple[NetworkInterface, ...] = ()
    devices: tuple[IoDevice, ...] = ()


LONGEST_GAP_NS: Final = 60_000_000_000


class Samples:
    """The newest samples, as many as `most`."""

    __slots__ = ("_kept",)

    def __init__(self, most: int) -> None:
        self._kept: deque[StatsSample] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that they take."""
        return 3000 * len(self._kept)

    def add(self, sample: StatsSample) -> None:
        """Append one that is newer than all others."""
        self._kept.append(sample)

    def newest(self, most: int = -1, start_ns: int = 0, end_ns: int = 0, *, thin: bool = False) -> list[StatsSample]:
        """The newest `most` (-1: all, 0: none) of those from `start_ns` to `end_ns` (0: open), the oldest first.

        thin    while nothing but the time changes, leave out samples, so that the time between two grows from the first
                pause on to twice the last one, up to `LONGEST_GAP_NS`; the newest of all is always there
        """
        kept = [
            s
            for s in (_thinned(self._kept) if thin else self._kept)
            if s.time_ns >= start_ns and (not end_ns or s.time_ns <= end_ns)
        ]
        return kept[max(0, len(kept) - most) :] if most >= 0 else kept


def _thinned(samples: deque[StatsSample]) -> list[StatsSample]:
    thinned: list[StatsSample] = []
    before, gap = None, 0
    for sample in samples:
        if before is None or (sample.values, sample.interfaces, sample.devices) != (
            before.values,
            before.interfaces,
            before.devices,
        ):
            thinned.append(sample)
            gap = 0
        elif sample.time_ns - thinned[-1].time_ns >= gap:
            gap = min(LONGEST_GAP_NS, 2 * (gap or sample.time_ns - thinned[-1].time_ns))
            thinned.append(sample)
        before = sample
    if before is not None and thinned[-1] is not before:
        thinned.append(before)
    return thinned
