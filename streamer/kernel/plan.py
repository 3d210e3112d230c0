"""Which kernel files one sample is made of, and where their numbers go: worked out once, shared by all cgroups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from streamer.kernel.files import Parser, Wanted, parse_devices, parser
from streamer.kernel.hierarchy import UNIFIED, Hierarchies
from streamer.model.stats import FILES, INDEX, STATS, IoDevice, Layout

_DEVICE_COUNTERS: Final = {INDEX[f"io_{name}"]: place for place, name in enumerate(IoDevice.__struct_fields__[2:])}
"""Column of a sum over all block devices -> place of the same among the numbers of one."""

_SIZES: Final[dict[Layout, int]] = {"single": 64, "flat": 448, "nested": 448, "operations": 448, "pressure": 448}
"""Bytes to ask for at first; a file that fills them is read again with more. Up to some 470 Python need not ask malloc."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelFile:
    """One file of the table with the numbers that are wanted of it.

    controllers  v1: in which hierarchies it may stand, the preferred one first
    columns      where the numbers go in a sample
    by_name      opened anew for each sample, because a descriptor held open tells old news: on v1 the kernel keeps the
                 list behind cgroup.procs for a second after its last use and shows it again to the same open file,
                 so that one who looks every second sees the same list for ever (kernel/cgroup/cgroup-v1.c, pidlists)
    """

    name: str
    layout: Layout
    controllers: tuple[str, ...]
    wanted: tuple[Wanted, ...]
    columns: tuple[int, ...]
    by_name: bool


class Plan(NamedTuple):
    """How to read the cgroups that have just these files.

    Numbers are collected in the order of the files behind one leading `ABSENT`: first those of `tables`, then the lengths
    of `lists`, and last the working set. `usage` and `inactive` are where its parts are (0: not there); `charged` are
    those of the usage where no file tells it, which is then the very last. `pick` puts all of them in the order of the
    columns. `by_device` are the places among `tables` of the files that tell of block devices one by one; `follows` those
    of files that say nothing new unless another does, each with that other one's.
    """

    tables: tuple[KernelFile, ...]
    lists: tuple[KernelFile, ...]
    parsers: tuple[Parser, ...]
    sizes: list[int]
    by_device: frozenset[int]
    follows: tuple[tuple[int, int], ...]
    usage: int
    inactive: int
    charged: tuple[int, int] | None
    pick: Callable[[Sequence[Any]], tuple[Any, ...]]


@cache
def kernel_files(v2: bool, processes_from: tuple[str, ...]) -> tuple[KernelFile, ...]:
    """All files of the table for a hierarchy, in its order. `processes_from`: v1 hierarchies whose cgroup.procs would do."""
    places: dict[str, list[tuple[Wanted, int]]] = {}
    for column, stat in enumerate(STATS):
        name, _, key = (stat.v2 if v2 else stat.v1).partition(":")
        if name:
            places.setdefault(name, []).append((Wanted(key, stat.scale_v2 if v2 else stat.scale_v1, stat.number), column))
    files = []
    for name, wanted in places.items():
        controller, layout, _ = FILES[name]
        many = layout == "lines"
        controllers = tuple(dict.fromkeys((controller, *processes_from))) if many and not v2 else (UNIFIED if v2 else controller,)
        files.append(
            KernelFile(
                name, layout, controllers, tuple(want for want, _ in wanted), tuple(column for _, column in wanted), many and not v2
            )
        )
    return tuple(files)


def files_for(hierarchies: Hierarchies) -> tuple[KernelFile, ...]:
    """The files that a cgroup of this host may have."""
    return kernel_files(hierarchies.mode == "v2", hierarchies.watched)


@cache
def plan_for(files: tuple[KernelFile, ...], *, root: bool = False) -> Plan:
    """The plan for the cgroups that have these files. `root`: for the one above all, which on v2 has no memory.current."""
    lists = tuple(file for file in files if file.layout == "lines")
    tables = tuple(file for file in files if file not in lists)
    names = [file.name for file in tables]
    columns = [column for file in (*tables, *lists) for column in file.columns]
    places = [0] * len(STATS)
    for place, column in enumerate(columns, start=1):
        places[column] = place
    places[INDEX["memory_working_set_bytes"]] = len(columns) + 1
    charged, usage = (places[INDEX["memory_rss_bytes"]], places[INDEX["memory_cache_bytes"]]), INDEX["memory_usage_bytes"]
    summed = root and not places[usage] and all(charged)
    if summed:
        places[usage] = len(columns) + 2
    return Plan(
        tables,
        lists,
        tuple(_parser(file) for file in tables),
        [_SIZES[file.layout] for file in tables],
        frozenset(place for place, file in enumerate(tables) if _DEVICE_COUNTERS.keys() & set(file.columns)),
        tuple((names.index(file.name), names.index(leader)) for file in tables if (leader := FILES[file.name].follows) in names),
        places[usage],
        places[INDEX["memory_inactive_file_bytes"]],
        charged if summed else None,
        itemgetter(*places),
    )


def devices(plan: Plan, text: Callable[[int], bytes]) -> tuple[IoDevice, ...]:
    """What was done on each block device; devices on which nothing was done are left out. `text`: of a table, by its place."""
    found: dict[tuple[int, int], list[int]] = {}
    for place in plan.by_device:
        file = plan.tables[place]
        for device, numbers in (parse_devices(file.layout, file.wanted, text(place)) or {}).items():
            counters = found.setdefault(device, [0] * len(_DEVICE_COUNTERS))
            for column, number in zip(file.columns, numbers, strict=True):
                counters[_DEVICE_COUNTERS[column]] = number
    return tuple(IoDevice(*device, *counters) for device, counters in sorted(found.items()) if any(counters))


@cache
def _parser(file: KernelFile) -> Parser:
    return parser(file.layout, file.wanted)  # what it has learnt of the file's layout serves every plan that has the file
