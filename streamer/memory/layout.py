"""A sample of a container, and the row that is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET

from streamer.model import stats
from streamer.model.stats import IoDevice, NetworkInterface

COLUMNS: Final[tuple[str, ...]] = (*stats.COLUMNS, *(f"network_{suffix}" for suffix, _ in stats.NETWORK))
"""Of `StatsSample.values`: the fields of `ContainerStats` that are numbers, in their order."""

INDEX: Final[dict[str, int]] = {name: position for position, name in enumerate(COLUMNS)}

Row = tuple[Any, ...]
"""A sample but for its time: one value for each of `COLUMNS`, then the interfaces and the devices, as in `ContainerStats`."""

_pack: Final = msgspec.msgpack.Encoder(enc_hook={UNSET: None}.get).encode  # a method of C: some rows have many of them


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


def packed(row: Row) -> bytes:
    """A row as MessagePack, nil for `UNSET`.

    Raises:
        OverflowError: a number beyond 64 bits.
    """
    return _pack(row)


def sample_of(time_ns: int, unpacked: Sequence[Any]) -> StatsSample:
    """The sample of a row that was packed."""
    *values, interfaces, devices = unpacked
    return StatsSample(
        time_ns,
        _restored(values),
        tuple([NetworkInterface(**interface) for interface in interfaces or ()]),
        tuple([IoDevice(**device) for device in devices or ()]),
    )


def reader(columns: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Reads these columns from a row that was packed."""
    if len(columns) == 1:
        (column,) = columns
        return lambda unpacked: _restored((unpacked[column],))
    read = itemgetter(*columns)
    return lambda unpacked: _restored(read(unpacked))


def _restored(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple([UNSET if value is None else value for value in values])
