"""Samples in cAdvisor's shapes: every key that a real one answers with, the values, and what is zero or left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, structs

from streamer.cadvisor import InfoRequest, RequestOptions
from streamer.cadvisor.samples import About, container_stats
from streamer.cadvisor.shapes import TcpAdvancedStat
from streamer.cadvisor.shapes_v2 import ProcessInfo
from streamer.memory import COLUMNS, StatsSample
from streamer.model.examples import EXAMPLES
from streamer.model.stats import FilesystemUsage, IoDevice, NetworkInterface
from tests.cadvisor.conftest import WEB, House, raw

ANSWERED = json.loads((Path(__file__).parent / "answered.json").read_text())
"""What cAdvisor v0.60.5 answered on a host with Docker: its keys, and whether text, number or truth stands there."""

NOT_MEASURED = {"per_cpu_usage"}
MORE_THAN_ASKED = {
    "mask",  # there only with its cpuset group on
    "processes",  # left out since v0.60 unless its process group is on; before, always there
    "threads_current",
    "threads_max",
    "limit",  # of processes
    "io_service_bytes",  # this host had no I/O on whole disks
    "io_serviced",
    "oom_events",
    "uncore_caches",  # null there
}


def as_json(value: object) -> Any:
    return json.loads(msgspec.json.encode(value))


def compare(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Every difference in keys and kinds of values that is not one of the above."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if "*" in theirs:  # keys are data
            return [d for value in ours.values() for d in compare(value, theirs["*"], f"{at}.*")] if theirs["*"] is not None else []
        found = [f"{at}.{key} is missing" for key in theirs.keys() - ours.keys() - NOT_MEASURED]
        found += [f"{at}.{key} is new" for key in ours.keys() - theirs.keys() - MORE_THAN_ASKED if not at.endswith("tcp_advanced")]
        common = [key for key in theirs if key in ours]
        if common != [key for key in ours if key in theirs]:
            found.append(f"{at}: another order")
        return found + [d for key in common if key != "uncore_caches" for d in compare(ours[key], theirs[key], f"{at}.{key}")]
    if isinstance(theirs, list) and isinstance(ours, list):
        return [d for value in ours for d in compare(value, theirs[0], f"{at}[]")] if theirs else []
    kind = {bool: "bool", int: "number", float: "number", str: "text"}.get(type(ours), "null")
    return [] if kind == theirs else [f"{at} is {kind}, not {theirs}"]


@pytest.fixture
def full(house: House) -> House:
    """Everything that can be measured was, of a container and of the machine."""
    example = EXAMPLES["container.lifecycle"]["container.lifecycle"]
    filesystem = FilesystemUsage(
        device="/dev/vda", fstype="ext4", capacity_bytes=100, usage_bytes=30, layer_bytes=20, inodes_used=3
    )
    limits = structs.replace(example.spec, memory_reservation_bytes=1 << 20)
    house.tell.created(WEB, name="web", aliases=["web"], cgroup_path=f"/docker/{WEB}", spec=limits)
    house.docker(cpu_usage_ns=0, cpu_user_ns=0, cpu_system_ns=0)
    house.docker(filesystems=[filesystem], io_devices=[IoDevice(259, 0, 1, 2, 3, 4), IoDevice(7, 0, 5, 6, 7, 8)])
    house.raw("/")
    house.sampled("/", cpu_usage_ns=0, cpu_user_ns=0, cpu_system_ns=0)
    house.sampled("/", filesystems=EXAMPLES["container.stats"]["container.stats"].filesystems)  # type: ignore[attr-defined]
    return house


async def test_answers_have_the_keys_of_a_real_cadvisor(full: House) -> None:
    """Names, order and kinds, on every endpoint's shape."""
    ask, docker = full.operations, RequestOptions("docker")
    answers = {
        "v1 container": await ask.docker_container("web"),
        "v1 machine": await ask.machine_info(),
        "v2.0 sample": next(ask.each_deprecated("web", docker))[1][-1],
        "v2.1 container": (await ask.requested_containers_v2("web", docker))[f"/docker/{WEB}"],
        "v2.1 machine sample": (await ask.machine_stats())[-1],
        "v2 attributes": await ask.attributes(),
        "v2 summary": (await ask.derived_stats("web", docker))[f"/docker/{WEB}"],
        "v2 storage": (await ask.fs_info(label="root"))[0],
    }
    for name, answer in answers.items():
        told = as_json(answer)
        if "stats" in told:
            told["stats"] = told["stats"][-1:]  # the newest has everything
        assert compare(told, ANSWERED[name]) == [], name


def test_a_process_has_the_keys_of_a_real_cadvisor() -> None:
    assert list(ProcessInfo.__struct_fields__) == list(ANSWERED["v2 process"])


def test_the_tcp_counters_are_all_there() -> None:
    """99 of them, each zero."""
    told = as_json(TcpAdvancedStat())
    assert list(told) == list(ANSWERED["v1 container"]["stats"][0]["network"]["tcp_advanced"])
    assert set(told.values()) == {0}


async def test_the_values_are_in_cadvisors_units(full: House) -> None:
    """Nanoseconds, bytes; pressure in microseconds; devices by name where they are whole disks."""
    (*_, stat) = (await full.operations.docker_container("web")).stats
    told = as_json(stat)
    assert told["cpu"]["usage"] == {"total": 41_382_915_000, "user": 29_810_442_000, "system": 11_572_473_000}
    assert told["cpu"]["cfs"] == {
        "periods": 9411,
        "throttled_periods": 37,
        "throttled_time": 812_406_000,
        "bursts_periods": 0,
        "burst_time": 0,
    }
    assert told["cpu"]["psi"]["some"] == {"total": 184_027, "avg10": 0.12, "avg60": 0, "avg300": 0}
    memory = told["memory"]
    assert (memory["usage"], memory["max_usage"], memory["working_set"]) == (187_432_960, 203_558_912, 143_290_368)
    assert (memory["kernel"], memory["failcnt"], memory["file_dirty"]) == (5_980_160, 0, 135_168)
    assert memory["container_data"] == memory["hierarchical_data"] == {"pgfault": 388_214, "pgmajfault": 96, "numa_stats": {}}
    assert told["processes"] == {"process_count": 5, "fd_count": 0, "socket_count": 0, "threads_current": 9, "threads_max": 512}
    assert told["diskio"]["io_serviced"] == [
        {"device": "/dev/nvme0n1", "major": 259, "minor": 0, "stats": {"Read": 3, "Write": 4}},
        {"device": "", "major": 7, "minor": 0, "stats": {"Read": 7, "Write": 8}},
    ]
    assert told["diskio"]["io_service_bytes"][1]["stats"] == {"Read": 5, "Write": 6}
    assert (told["network"]["name"], told["network"]["tx_dropped"], len(told["network"]["interfaces"])) == ("eth0", 0, 1)


async def test_file_systems_are_told_with_the_newest_sample(full: House) -> None:
    """Of a container what it takes; of the machine how full they are, with the disk's counters."""
    first, last = (await full.operations.docker_container("web")).stats
    assert first.filesystem == []
    (fs,) = last.filesystem
    assert (fs.type, fs.capacity, fs.usage, fs.base_usage, fs.has_inodes, fs.inodes) == ("vfs", 100, 30, 20, False, 3)
    earlier = await full.operations.docker_container("web", InfoRequest(end=first.timestamp))
    assert [stat.filesystem for stat in earlier.stats] == [[]]
    of_machine = (await full.operations.machine_stats())[-1].filesystem[0]
    assert of_machine.disk.read_duration == 71_002 * 1_000_000
    (root,) = await full.operations.fs_info()
    assert (root.mountpoint, root.labels, root.inodes_free) == ("/", ["root"], 30_100_417)


def sample(**given: Any) -> StatsSample:
    """The kernel gave these columns alone."""
    return StatsSample(1_763_976_000_000_000_000, tuple(given.get(name, UNSET) for name in COLUMNS))


def test_what_the_kernel_did_not_give_is_zero_and_the_parts_are_there() -> None:
    """Scripts expect them; the network is there with its interfaces."""
    told = as_json(container_stats(sample(), About()))
    assert {"cpu", "diskio", "memory", "processes", "task_stats", "resctrl", "cpuset", "health"} < told.keys()
    assert "network" not in told
    assert told["diskio"] == {"psi": told["cpu"]["psi"]}
    assert told["processes"] == {"process_count": 0, "fd_count": 0, "socket_count": 0}
    assert "oom_events" not in told and "filesystem" not in told
    numbers = json.dumps(told).replace('"', "").replace("avg10", "").replace("avg60", "").replace("avg300", "")
    assert not [
        word for word in numbers.replace("{", " ").replace("}", " ").replace(",", " ").split() if word.isdigit() and word != "0"
    ]


def test_kills_are_those_of_the_sample_where_the_kernel_counts_them() -> None:
    """Else those that were told of."""
    assert container_stats(sample(memory_oom_kills=2), About(oom_kills=5)).oom_events == 2
    assert container_stats(sample(), About(oom_kills=5)).oom_events == 5


def test_several_interfaces() -> None:
    """The first one is flattened, all are listed."""
    interfaces = tuple(NetworkInterface(f"eth{n}", n, 0, 0, 0, 0, 0, 0, n) for n in (1, 2))
    network = container_stats(structs.replace(sample(), interfaces=interfaces), About()).network
    assert (network.name, network.rx_bytes, network.tx_dropped) == ("eth1", 1, 1)
    assert [(i.name, i.rx_bytes) for i in network.interfaces] == [("eth1", 1), ("eth2", 2)]


async def test_samples_that_differ_in_time_alone_share_the_rest(house: House) -> None:
    """An answer about hundreds of idle containers is made quickly; what changed is there."""
    for used in (1, 1, 2):
        house.sampled("/lab/one", cpu_usage_ns=used)
    stats = (await house.operations.container_info("/lab/one")).stats
    assert [stat.cpu.usage.total for stat in stats] == [1, 1, 2]
    assert stats[0].memory is stats[1].memory and stats[0].cpu is stats[1].cpu
    assert len({stat.timestamp for stat in stats}) == 3
    house.sampled("/lab/one", cpu_usage_ns=2, io_devices=[IoDevice(1, 1, 1, 1, 1, 1)])
    house.sampled("/lab/one", cpu_usage_ns=2, io_devices=[IoDevice(1, 1, 2, 2, 2, 2)])
    *_, before, after = (await house.operations.container_info("/lab/one")).stats
    assert [stat.diskio.io_serviced[0].stats.read for stat in (before, after)] == [1, 2]


async def test_cpu_rates_are_between_two_samples(house: House) -> None:
    """Nanocores; none for the first, and none where a counter went back."""
    for used in (0, 250_000_000, 750_000_000, 1):
        house.sampled("/lab/one", cpu_usage_ns=used, cpu_user_ns=used, cpu_system_ns=0)
    (info,) = (await house.operations.requested_containers_v2("/lab/one")).values()
    rates = [stat.cpu_inst and stat.cpu_inst.usage for stat in info.stats]
    assert [rate and (rate.total, rate.user, rate.system) for rate in rates] == [
        None, (250_000_000, 250_000_000, 0), (500_000_000, 500_000_000, 0), None,
    ]  # fmt: skip


async def test_a_sample_without_cpu_is_not_one_of_no_cpu(house: House) -> None:
    """The next would seem to have used all at once what the container used in its life."""
    for used in (900_000_000_000, UNSET, 900_000_000_001):
        house.sampled("/lab/one", cpu_usage_ns=used, cpu_user_ns=UNSET, cpu_system_ns=0)
    house.sampled("/lab/one", cpu_usage_ns=900_500_000_001, cpu_user_ns=5, cpu_system_ns=0)
    (info,) = (await house.operations.requested_containers_v2("/lab/one")).values()
    rates = [stat.cpu_inst and stat.cpu_inst.usage for stat in info.stats]
    assert [rate and (rate.total, rate.user) for rate in rates] == [None, None, None, (500_000_000, 0)]


async def test_v2_has_the_parts_that_the_spec_has(house: House) -> None:
    """v2.0 has all of them, with zeros, and says which are real."""
    house.tell.sampled(
        "/lab/one",
        **raw("/lab/one"),
        network_rx_bytes=UNSET,
        network_interfaces=UNSET,
        io_read_bytes=UNSET,
        io_devices=UNSET,
        filesystems=UNSET,
    )
    (info,) = (await house.operations.requested_containers_v2("/lab/one")).values()
    assert as_json(info.stats[0]).keys() == {"timestamp", "cpu", "memory", "processes", "resctrl"}
    assert (info.spec.has_network, info.spec.has_diskio, info.spec.has_processes) == (False, False, True)
    ((_, (old,)),) = house.operations.each_deprecated("/lab/one", RequestOptions())
    assert (old.has_cpu, old.has_network, old.has_diskio, old.has_processes, old.has_load) == (True, False, False, False, False)
    assert (old.cpu.usage.total, old.network.interfaces, old.processes.process_count) == (41_382_915_000, [], 0)
    ((_, folder),) = house.operations.each_requested_v2("/lab", RequestOptions())
    assert as_json(folder).keys() == {"spec"}
