"""The machine in cAdvisor's shapes."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET, to_builtins

from streamer.cadvisor import NotFound, Operations
from streamer.clock import SystemClock
from streamer.memory import Memory
from streamer.model import messages as m
from streamer.model.machine import Core, Disk, Filesystem, MemoryModules, NumaNode
from streamer.model.stats import FilesystemUsage
from tests.cadvisor.conftest import WEB, House
from tests.support.said import Teller


async def machine(house: House, **about: Any) -> dict[str, Any]:
    house.tell.say(m.HOST, **about)
    told: dict[str, Any] = to_builtins(await house.operations.machine_info())
    return told


async def test_the_machine(house: House) -> None:
    """Sizes of pages in kB, disks by number, a key with a space, caches of cores and nodes."""
    told = await machine(house, memory_modules=[MemoryModules(kind="DDR5", capacity_bytes=64, count=2)])
    assert told["nvm"] == {"memory_mode_capacity": 0, "app direct_mode_capacity": 0, "avg_power_budget": 0}
    assert {"page_size": 2048, "num_pages": 0} in told["hugepages"]
    assert told["memory_by_type"] == {"DDR5": {"capacity": 64, "dimm_count": 2}}
    assert told["disk_map"]["259:0"]["name"] == "nvme0n1"
    (node,) = told["topology"]
    core = node["cores"][0]
    assert (core["thread_ids"], core["caches"][0]["type"], core["uncore_caches"][0]["level"]) == ([0, 8], "Data", 2)
    assert node["caches"] == [{"id": 0, "size": 33_554_432, "type": "Unified", "level": 3}]
    assert told["cloud_provider"] == "AWS"


async def test_what_is_not_known_is_zero_empty_or_unknown(house: House) -> None:
    """Never absent: clients in Go have no word for that."""
    told = await machine(
        house, cloud_provider=UNSET, instance_type=UNSET, instance_id=UNSET, num_sockets=UNSET, cpu_vendor=UNSET, topology=[],
        disks=[Disk(name="vda", major=254, minor=0, size_bytes=1)], filesystems=[Filesystem(device="pool", mountpoint="/", fstype="zfs", capacity_bytes=5)],
    )  # fmt: skip
    assert (told["cloud_provider"], told["instance_type"], told["instance_id"]) == ("Unknown", "Unknown", "")
    assert (told["num_sockets"], told["vendor_id"], told["topology"]) == (1, "", [])
    assert told["disk_map"]["254:0"]["scheduler"] == "none"
    assert told["filesystems"] == [{"device": "pool", "capacity": 5, "type": "zfs", "inodes": 0, "has_inodes": False}]


async def test_of_what_there_is_none_is_null(house: House) -> None:
    """As a list in Go to which nothing was appended."""
    node = NumaNode(node_id=0, memory_bytes=1, cores=[Core(core_id=0, socket_id=0, threads=[0])])
    told = await machine(house, huge_pages=[], topology=[node])
    (node_told,) = told["topology"]
    assert (told["hugepages"], node_told["hugepages"], node_told["caches"], node_told["distances"]) == (None, None, None, None)
    assert (node_told["cores"][0]["caches"], node_told["cores"][0]["uncore_caches"]) == (None, None)


async def test_a_host_without_a_file_system_on_a_disk(house: House) -> None:
    """None is an answer, once it has been looked; cAdvisor always knows the label `root`."""
    house.raw("/")
    house.sampled("/", filesystems=[])
    with pytest.raises(NotFound, match="no file system was measured yet"):
        await house.operations.fs_info()
    await machine(house, filesystems=[])
    assert await house.operations.fs_info() == await house.operations.fs_info("root") == []
    with pytest.raises(NotFound, match='non-existent label "docker-images"'):
        await house.operations.fs_info("docker-images")


async def test_versions_and_attributes(house: House) -> None:
    """The version says whose it is; attributes are machine and versions together."""
    version = await house.operations.version_info()
    assert version.cadvisor_version.startswith("streamer-")
    attributes = await house.operations.attributes()
    info = await house.operations.machine_info()
    assert (attributes.kernel_version, attributes.machine_id, attributes.disk_map) == (
        version.kernel_version,
        info.machine_id,
        info.disk_map,
    )


async def test_file_systems_of_the_machine(house: House) -> None:
    """Those that hold containers' layers and the root have labels; others none; no such label is an error."""
    shared = {"capacity_bytes": 100, "usage_bytes": 40}
    house.docker(WEB, filesystems=[FilesystemUsage(device="/dev/vdb", layer_bytes=1, **shared)])
    house.raw("/")
    house.sampled(
        "/",
        filesystems=[
            FilesystemUsage(device=f"/dev/vd{c}", mountpoint=p, **shared) for c, p in (("a", "/"), ("b", "/docker"), ("c", "/c"))
        ],
    )
    found = await house.operations.fs_info()
    assert [(fs.device, fs.labels, fs.usage) for fs in found] == [
        ("/dev/vda", ["root"], 40), ("/dev/vdb", ["docker-images"], 40), ("/dev/vdc", None, 40),
    ]  # fmt: skip
    assert [fs.device for fs in await house.operations.fs_info("docker-images")] == ["/dev/vdb"]
    with pytest.raises(NotFound, match=r'^non-existent label "x"$'):
        await house.operations.fs_info("x")
    with pytest.raises(NotFound, match=r"^cadvisor: no such device$"):
        await house.operations.fs_info(uuid="1-2")


async def test_before_the_machine_told_of_itself() -> None:
    """And where several did: cAdvisor's API is about one."""
    memory = Memory(samples=1)
    operations = Operations(memory, SystemClock())
    with pytest.raises(NotFound, match="not known yet"):
        await operations.machine_info()
    assert await operations.machine_stats() == []
    for host_id in ("a", "b"):
        Teller(memory, host_id=host_id).say(m.HOST)
    with pytest.raises(NotFound, match="several"):
        await operations.version_info()
