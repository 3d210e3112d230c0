"""NUMA nodes, cores, their threads and caches, as `/sys/devices/system` tells them (Documentation/admin-guide/cputopology.rst)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from streamer.kernel import proc
from streamer.model.machine import Cache, Core, NumaNode
from streamer.sources.hardware import huge_pages, listed, text

_SYSTEM: Final = "sys/devices/system"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Topology:
    """Reads it again and again; what only changes when CPUs come or go is read when they do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._online: str | None = None
        self._found: dict[int, _Cores] = {}

    def read(self) -> list[NumaNode]:
        """The nodes by number; one for all where the kernel knows of none; [] where it does not tell of CPUs either."""
        root, nodes = self._root, _numbered(self._root / _SYSTEM / "node", "node")
        online = text(root / _SYSTEM / "cpu/online")
        if online != self._online:
            self._online = online
            self._found = {number: _cores(root, [cpu for cpu, _ in _numbered(node, "cpu")]) for number, node in nodes}
            if not nodes:
                self._found[0] = _cores(root, [cpu for cpu, _ in _numbered(root / _SYSTEM / "cpu", "cpu")])
        if not nodes:
            cores, caches = self._found[0]
            pages = list(huge_pages(root / "sys/kernel/mm/hugepages"))
            memory = proc.meminfo(root).get("MemTotal", 0)
            return [NumaNode(node_id=0, memory_bytes=memory, huge_pages=pages, cores=cores, caches=caches)] if cores else []
        return [self._node(number, node) for number, node in nodes]

    def _node(self, number: int, node: Path) -> NumaNode:
        cores, caches = self._found.get(number, _Cores([], []))
        memory = re.search(r"MemTotal:\s+(\d+) kB", text(node / "meminfo"))
        return NumaNode(
            node_id=number,
            memory_bytes=int(memory[1]) * 1024 if memory else 0,
            huge_pages=list(huge_pages(node / "hugepages")),
            cores=cores,
            caches=caches,
            distances=[int(word) for word in text(node / "distance").split() if word.isdecimal()],
        )


class _Cores(NamedTuple):
    """The cores of a node, and the caches that all of them share."""

    cores: list[Core]
    caches: list[Cache]


def _cores(root: Path, cpus: list[int]) -> _Cores:
    threads: dict[tuple[int, ...], list[int]] = {}  # by the CPUs of a core: its number is unique within a socket at best
    for cpu in cpus:
        topology = _cpu(root, cpu) / "topology"
        if topology.is_dir():  # else it is offline
            siblings = _list(text(topology / "thread_siblings_list")) or [cpu]
            threads.setdefault(tuple(siblings), []).append(cpu)
    everything = {cpu for core in threads.values() for cpu in core}
    cores, common = [], {}
    for core in threads.values():
        own, shared = [], []
        for cache, users in _caches(root, core[0]):
            if users <= set(core):
                own.append(cache)
            elif users >= everything:
                common[cache.level, cache.kind, cache.id] = cache
            else:
                shared.append(cache)
        for cpu in core[1:]:  # threads of a core share its caches; where one has its own, that is the core's too
            own += [cache for cache, users in _caches(root, cpu) if users <= set(core) and cache not in own]
        topology = _cpu(root, core[0]) / "topology"
        cores.append(
            Core(
                core_id=_number(text(topology / "core_id")),
                socket_id=_number(text(topology / "physical_package_id")),
                threads=core,
                caches=own,
                shared_caches=shared,
            )
        )
    return _Cores(cores, list(common.values()))


def _caches(root: Path, cpu: int) -> Iterator[tuple[Cache, set[int]]]:
    """The caches that a CPU uses, and which CPUs use them."""
    for index in listed(_cpu(root, cpu) / "cache"):
        size = re.fullmatch(r"(\d+)([KMG]?)", text(index / "size"))
        if size is None:  # not a cache, or one of which nothing is known
            continue
        users = set(_list(text(index / "shared_cpu_list"))) or {cpu}
        number = text(index / "id")
        yield (
            Cache(
                id=int(number) if number.isdecimal() else min(users),
                level=_number(text(index / "level")),
                kind=text(index / "type"),
                size_bytes=int(size[1]) * _UNITS[size[2]],
            ),
            users,
        )


def _cpu(root: Path, cpu: int) -> Path:
    return root / _SYSTEM / f"cpu/cpu{cpu}"


def _numbered(directory: Path, name: str) -> list[tuple[int, Path]]:
    """`node0`, `node1`, … in the order of their numbers."""
    found = ((re.fullmatch(rf"{name}(\d+)", path.name), path) for path in listed(directory))
    return sorted((int(match[1]), path) for match, path in found if match)


def _list(said: str) -> list[int]:
    """`0-2,7` -> [0, 1, 2, 7]; [] for another form."""
    if not re.fullmatch(r"\d{1,7}(-\d{1,7})?(,\d{1,7}(-\d{1,7})?)*", said):
        return []
    ends = [part.partition("-") for part in said.split(",")]
    return [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]


def _number(said: str) -> int:
    return int(said) if said.isdecimal() else 0
