"""A sample of a container, and how it lies in a row of integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET, structs

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


Row = tuple[Any, ...]
"""The numbers of a sample: integers, whose differences are exact; floats only in a layout that is not `even`."""

_SHARES: Final = tuple(INDEX[row.name] for row in stats.STATS if row.number is float)
_NETWORK: Final = slice(INDEX["network_rx_bytes"], INDEX["network_tx_drops"] + 1)
_IO: Final = slice(INDEX["io_read_bytes"], INDEX["io_write_operations"] + 1)
_KNOWN_LAYOUTS: Final = 1024


class _Hundredths(dict[float, int]):
    """0.29 -> 29; remembers, as a lookup takes a tenth of the time, and there are 10001 at most."""

    def __missing__(self, share: float) -> int:
        """Raises ValueError or OverflowError for what is no such number from 0 to 100, TypeError for none at all."""
        number = round(share * 100)
        if number / 100 != share or not 0 <= number <= 10_000:
            raise ValueError(share)
        self[share] = number
        return number


_hundredths_of: Final = _Hundredths().__getitem__


_astuple: Final = structs.astuple


class LayoutKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What samples of one layout have in common.

    absent      positions of the columns that they do not have
    interfaces  names
    devices     major and minor
    sums        the interface is the only one and its counters are those of the columns; the same of the device
    even        all shares have two decimals at most, as the kernel writes them, and stand in the row as hundredths
    """

    absent: tuple[int, ...]
    interfaces: tuple[str, ...]
    devices: tuple[tuple[int, int], ...]
    sums: tuple[bool, bool]
    even: bool


class Layout:
    """Between a sample and its row: the whole numbers, the shares, the counters of each interface and device."""

    def __init__(self, key: LayoutKey) -> None:
        self.key = key
        present = [position for position in range(len(COLUMNS)) if position not in set(key.absent)]
        shares = [position for position in present if position in _SHARES]
        whole = [position for position in present if position not in _SHARES]
        self._whole, self._shares = len(whole), len(shares)
        self._whole_of, self._shares_of, self._absent_of = _getter(whole), _getter(shares), _getter(key.absent)
        self._absent = (UNSET,) * len(key.absent)
        # a row's columns and one UNSET behind them, put in order
        at = {position: index for index, position in enumerate([*whole, *shares])}
        self._at = [at.get(position, len(present)) for position in range(len(COLUMNS))]
        self._values_of = _getter(self._at)

    def row(self, values: tuple[Any, ...], interfaces: Sequence[NetworkInterface], devices: Sequence[IoDevice]) -> Row | None:
        """The numbers of a sample, None if it has another layout. A column that is newly absent is UNSET in it.

        Raises:
            TypeError, ValueError, OverflowError: the same, of a share.
        """
        if self._absent and self._absent_of(values) != self._absent:
            return None
        network, io = self._network(values, interfaces), self._io(values, devices)
        if network is None or io is None:
            return None
        shares = self._shares_of(values)
        if self.key.even:
            shares = tuple(map(_hundredths_of, shares))
        return self._whole_of(values) + shares + network + io

    def _network(self, values: tuple[Any, ...], interfaces: Sequence[NetworkInterface]) -> Row | None:
        """What the interfaces' counters say beyond the columns; None if these are other interfaces."""
        known = self.key.interfaces
        if self.key.sums[0]:
            return () if len(interfaces) == 1 and _astuple(interfaces[0]) == known + values[_NETWORK] else None
        if not interfaces and not known:
            return ()
        if tuple([interface.name for interface in interfaces]) != known:
            return None
        return tuple([number for interface in interfaces for number in _astuple(interface)[1:]])

    def _io(self, values: tuple[Any, ...], devices: Sequence[IoDevice]) -> Row | None:
        """The same of devices."""
        known = self.key.devices
        if self.key.sums[1]:
            return () if len(devices) == 1 and _astuple(devices[0]) == known[0] + values[_IO] else None
        if not devices and not known:
            return ()
        if tuple([(device.major, device.minor) for device in devices]) != known:
            return None
        return tuple([number for device in devices for number in _astuple(device)[2:]])

    def reader(self, columns: Sequence[int]) -> Reader:
        """For these columns, all of them whole numbers."""
        return _reader(self, tuple(columns))

    def places(self, columns: Sequence[int]) -> list[int | None]:
        """Where in a row these columns, all of them whole numbers, stand; None for those that it does not have."""
        return [at if (at := self._at[column]) < self._whole else None for column in columns]

    def sample(self, time_ns: int, row: Row) -> StatsSample:
        """The sample of a row."""
        key, end = self.key, self._whole + self._shares
        shares = row[self._whole : end]
        if key.even:
            shares = tuple([number / 100 for number in shares])
        values = self._values_of((*row[: self._whole], *shares, UNSET))
        if key.sums[0]:
            interfaces: tuple[NetworkInterface, ...] = (NetworkInterface(key.interfaces[0], *values[_NETWORK]),)
        else:
            size = len(stats.NETWORK)
            interfaces = tuple([NetworkInterface(name, *row[end + i * size :][:size]) for i, name in enumerate(key.interfaces)])
            end += size * len(interfaces)
        if key.sums[1]:
            devices: tuple[IoDevice, ...] = (IoDevice(*key.devices[0], *values[_IO]),)
        else:
            size = len(IoDevice.__struct_fields__) - 2
            devices = tuple([IoDevice(*number, *row[end + i * size :][:size]) for i, number in enumerate(key.devices)])
        return StatsSample(time_ns, values, interfaces, devices)


class Reader:
    """Reads some columns of a layout, and follows them from row to row without the others.

    numbers  of a row, or of how much it grew: those of the columns that are there
    values   of these numbers: one for each column, `UNSET` for those that are not
    """

    __slots__ = ("numbers", "values")

    def __init__(self, layout: Layout, columns: tuple[int, ...]) -> None:
        places = layout.places(columns)
        present = [place for place in places if place is not None]
        self.numbers = _getter(present)
        if len(present) == len(columns):
            self.values: Callable[[Row], tuple[Any, ...]] = _itself
        else:
            of_each = _getter([present.index(place) if place is not None else len(present) for place in places])
            self.values = lambda numbers: of_each((*numbers, UNSET))


def _itself(numbers: Row) -> Row:
    return numbers


@lru_cache(_KNOWN_LAYOUTS)
def _reader(layout: Layout, columns: tuple[int, ...]) -> Reader:
    return Reader(layout, columns)


@lru_cache(_KNOWN_LAYOUTS)
def layout_for(key: LayoutKey) -> Layout:
    """One for all containers that look alike."""
    return Layout(key)


def layout_of(values: tuple[Any, ...], interfaces: Sequence[NetworkInterface], devices: Sequence[IoDevice]) -> tuple[Layout, Row]:
    """The layout that fits a sample, and its row."""
    key = LayoutKey(
        tuple([position for position, value in enumerate(values) if value is UNSET]),
        tuple([interface.name for interface in interfaces]),
        tuple([(device.major, device.minor) for device in devices]),
        (
            len(interfaces) == 1 and _astuple(interfaces[0])[1:] == values[_NETWORK],
            len(devices) == 1 and _astuple(devices[0])[2:] == values[_IO],
        ),
        all(_is_even(values[position]) for position in _SHARES),
    )
    layout = layout_for(key)
    return layout, cast(Row, layout.row(values, interfaces, devices))


def _is_even(share: Any) -> bool:
    try:
        return share is UNSET or _hundredths_of(share) is not None
    except (ValueError, OverflowError):
        return False


def _getter(positions: Sequence[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """As `itemgetter`, which gives no tuple for one position or none."""
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda values: tuple([values[position] for position in positions])
