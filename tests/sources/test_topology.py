"""Nodes, cores and caches: this machine's as lscpu tells them, and those of machines made up of files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import psutil
import pytest

from streamer.sources.hardware import Cpu
from streamer.sources.topology import Topology

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def cpu(
    root: Path, number: int, core: int, socket: int, siblings: str, caches: list[tuple[int, str, str, str]], ids: bool = True
) -> None:
    """A CPU with caches (level, type, size, shared_cpu_list); the kernel numbers caches of a kind by their first CPU here."""
    at = f"{CPU}/cpu{number}"
    write(
        root,
        {
            f"{at}/topology/{name}": text
            for name, text in (("core_id", str(core)), ("physical_package_id", str(socket)), ("thread_siblings_list", siblings))
        },
    )
    for index, (level, kind, size, shared) in enumerate(caches):
        of = f"{at}/cache/index{index}"
        write(root, {f"{of}/level": str(level), f"{of}/type": kind, f"{of}/size": size, f"{of}/shared_cpu_list": shared})
        if ids:
            write(root, {f"{of}/id": shared.replace(",", "-").split("-")[0]})


def node(root: Path, number: int, cpus: list[int], memory_kb: int, distance: str) -> None:
    at = f"{NODE}/node{number}"
    write(root, {
        f"{at}/meminfo": f"Node {number} MemTotal:       {memory_kb} kB\nNode {number} MemFree:  1 kB",
        f"{at}/distance": distance,
        f"{at}/hugepages/hugepages-2048kB/nr_hugepages": str(number),
        f"{at}/hugepages/hugepages-1048576kB/nr_hugepages": "0",
    })  # fmt: skip
    for each in cpus:
        (root / at / f"cpu{each}").mkdir()


@pytest.mark.live
def test_this_machine_as_lscpu_tells_it() -> None:
    """Sockets, nodes, cores and their threads; and the sum of each kind of cache."""
    rows = subprocess.run(["lscpu", "-p=CPU,CORE,SOCKET,NODE"], capture_output=True, text=True, check=True).stdout.splitlines()
    theirs = {tuple(int(word or 0) for word in row.split(",")) for row in rows if not row.startswith("#")}
    nodes = Topology(Path("/")).read()
    assert {(thread, core.socket_id, node.node_id) for node in nodes for core in node.cores for thread in core.threads} == {
        (thread, socket, node) for thread, _, socket, node in theirs
    }
    assert sum(len(node.cores) for node in nodes) == len({row[1] for row in theirs})
    table = subprocess.run(
        ["lscpu", "-B", "-C=LEVEL,TYPE,ALL-SIZE"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ours: dict[tuple[int, str], int] = {}
    for owner in (*nodes, *(core for node in nodes for core in node.cores)):
        for cache in owner.caches:
            ours[cache.level, cache.kind] = ours.get((cache.level, cache.kind), 0) + cache.size_bytes
    shared = {(c.level, c.kind, c.id): c.size_bytes for node in nodes for core in node.cores for c in core.shared_caches}
    for (level, kind, _), size in shared.items():
        ours[level, kind] = ours.get((level, kind), 0) + size
    assert ours == {(int(words[0]), words[1]): int(words[2]) for words in map(str.split, table[1:])}


def test_two_sockets_with_threads_and_part_shared_caches(tmp_path: Path) -> None:
    """Threads of a core stand together; what a core has alone, what some share and what the whole node shares are apart."""
    for number in range(16):
        core, socket = number % 8, number % 8 // 4
        siblings = f"{core},{core + 8}"
        pair = f"{core // 2 * 2}-{core // 2 * 2 + 1},{core // 2 * 2 + 8}-{core // 2 * 2 + 9}"
        whole = "0-3,8-11" if socket == 0 else "4-7,12-15"
        caches = [
            (1, "Data", "32K", siblings),
            (1, "Instruction", "64K", siblings),
            (2, "Unified", "2M", pair),
            (3, "Unified", "1G", whole),
        ]
        cpu(tmp_path, number, core % 4, socket, siblings, caches)
    node(tmp_path, 0, [0, 1, 2, 3, 8, 9, 10, 11], 1000, "10 21")
    node(tmp_path, 1, [4, 5, 6, 7, 12, 13, 14, 15], 2000, "21 10")
    node(tmp_path, 10, [], 500, "17 28")  # memory alone
    write(tmp_path, {f"{CPU}/online": "0-15"})
    zero, one, ten = msgspec.to_builtins(Topology(tmp_path).read())
    assert [(n["node_id"], n["memory_bytes"], n["distances"]) for n in (zero, one, ten)] == [
        (0, 1_024_000, [10, 21]), (1, 2_048_000, [21, 10]), (10, 512_000, [17, 28]),
    ]  # fmt: skip
    assert one["huge_pages"] == [{"page_size_bytes": 2 << 20, "num_pages": 1}, {"page_size_bytes": 1 << 30, "num_pages": 0}]
    assert [core["threads"] for core in one["cores"]] == [[4, 12], [5, 13], [6, 14], [7, 15]]
    assert [(core["core_id"], core["socket_id"]) for core in one["cores"]] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert one["cores"][2]["caches"] == [
        {"id": 6, "level": 1, "kind": "Data", "size_bytes": 32 << 10}, {"id": 6, "level": 1, "kind": "Instruction", "size_bytes": 64 << 10},
    ]  # fmt: skip
    assert (
        one["cores"][2]["shared_caches"]
        == one["cores"][3]["shared_caches"]
        == [{"id": 6, "level": 2, "kind": "Unified", "size_bytes": 2 << 20}]
    )
    assert one["caches"] == [{"id": 4, "level": 3, "kind": "Unified", "size_bytes": 1 << 30}]
    assert "cores" not in ten and "caches" not in ten


def test_without_nodes_all_cores_are_one(tmp_path: Path) -> None:
    """A kernel without NUMA; caches without numbers are numbered by their first CPU; a CPU that is offline is none."""
    for number in range(2):
        cpu(tmp_path, number, number, 0, str(number), [(1, "Data", "32K", str(number)), (2, "Unified", "512K", "0-1")], ids=False)
    write(tmp_path, {
        f"{CPU}/cpu2/online": "0", f"{CPU}/cpufreq/x": "", f"{CPU}/online": "0-1", "proc/meminfo": "MemTotal:  100 kB",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "3",
    })  # fmt: skip
    (found,) = Topology(tmp_path).read()
    assert (found.node_id, found.memory_bytes, found.distances) == (0, 102_400, [])
    assert [pages.num_pages for pages in found.huge_pages] == [3]
    assert [(core.threads, [cache.id for cache in core.caches]) for core in found.cores] == [([0], [0]), ([1], [1])]
    assert [(cache.id, cache.level) for cache in found.caches] == [(0, 2)]


def test_a_cpu_that_goes_is_not_told_any_more(tmp_path: Path) -> None:
    """What is kept is read anew when the kernel's list of CPUs changes; memory always."""
    for number in range(2):
        cpu(tmp_path, number, number, 0, str(number), [])
    node(tmp_path, 0, [0, 1], 1000, "10")
    write(tmp_path, {f"{CPU}/online": "0-1"})
    topology = Topology(tmp_path)
    assert [core.threads for core in topology.read()[0].cores] == [[0], [1]]
    shutil.rmtree(tmp_path / CPU / "cpu1/topology")
    write(tmp_path, {f"{CPU}/online": "0", f"{NODE}/node0/meminfo": "Node 0 MemTotal: 7 kB"})
    (found,) = topology.read()
    assert ([core.threads for core in found.cores], found.memory_bytes) == ([[0]], 7168)


def test_a_host_that_tells_nothing_has_no_topology(tmp_path: Path) -> None:
    """No /sys below the host's root."""
    assert Topology(tmp_path).read() == []


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({f"{CPU}/cpu{n}/topology/core_cpus_list": f"{n % 4},{n % 4 + 4}" for n in range(8)}, 4),
        ({f"{CPU}/cpu{n}/topology/thread_siblings_list": f"{n}" for n in range(3)}, 3),
        ({f"{CPU}/cpuidle/current_driver": "none"}, msgspec.UNSET),
        ({}, msgspec.UNSET),
        (
            {
                "proc/cpuinfo": "".join(
                    f"processor\t: {n}\nphysical id\t: {n % 2}\nsiblings\t: 8\ncore id\t\t: {n}\ncpu cores\t: 6\n\n"
                    for n in range(4)
                )
            },
            12,
        ),
    ],
)
def test_physical_cores(files: dict[str, str], cores: object, tmp_path: Path) -> None:
    """By the threads that each has; where the kernel does not list these, by what it says of each socket."""
    write(tmp_path, files)
    assert Cpu(tmp_path).cores == cores


def test_physical_cores_of_this_machine() -> None:
    assert Cpu(Path("/")).cores == (psutil.cpu_count(logical=False) or msgspec.UNSET)
