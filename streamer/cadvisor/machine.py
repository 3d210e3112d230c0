"""`HostInfo` as cAdvisor tells of the machine. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import UNSET

from streamer.cadvisor import shapes_machine as s
from streamer.cadvisor import shapes_v2 as v2
from streamer.cadvisor.go import nano
from streamer.cadvisor.samples import fs_type
from streamer.model.machine import Cache, HugePages
from streamer.model.messages import HostInfo
from streamer.model.stats import FilesystemUsage

_UNKNOWN: Final = "Unknown"


def machine_info(host: HostInfo) -> s.MachineInfo:
    """Everything about the machine; what is not known is 0, empty or `Unknown`."""
    return s.MachineInfo(
        timestamp=nano(host.time),
        vendor_id=_text(host.cpu_vendor),
        num_cores=host.num_cores,
        num_physical_cores=_number(host.num_physical_cores),
        num_sockets=_number(host.num_sockets) or 1,  # of a machine that does not tell
        cpu_frequency_khz=_number(host.cpu_frequency_khz),
        memory_capacity=host.memory_capacity_bytes,
        swap_capacity=host.swap_capacity_bytes,
        memory_by_type={kind.kind: s.MemoryByType(kind.capacity_bytes, kind.count) for kind in host.memory_modules},
        nvm=s.Nvm(0, 0, 0),
        hugepages=_huge_pages(host.huge_pages),
        machine_id=_text(host.machine_id),
        system_uuid=_text(host.system_uuid) or _text(host.machine_id),  # the same fallback
        boot_id=host.boot_id,
        filesystems=[
            s.MachineFilesystem(fs.device, fs.capacity_bytes, fs_type(fs.fstype), _number(fs.inodes), fs.inodes is not UNSET)
            for fs in host.filesystems
        ],
        disk_map={
            f"{disk.major}:{disk.minor}": s.DiskInfo(
                disk.name, disk.major, disk.minor, disk.size_bytes, _text(disk.scheduler, "none")
            )
            for disk in host.disks
        },
        network_devices=[
            s.NetInfo(device.name, _text(device.mac_address), _number(device.speed_mbit, -1), _number(device.mtu))
            for device in host.network_devices
        ],
        topology=[
            s.NodeInfo(
                node.node_id,
                node.memory_bytes,
                _huge_pages(node.huge_pages),
                [
                    s.CoreInfo(core.core_id, core.threads, _caches(core.caches), _caches(core.shared_caches), core.socket_id)
                    for core in node.cores
                ],
                _caches(node.caches),
                node.distances or None,
            )
            for node in host.topology
        ],
        cloud_provider=_text(host.cloud_provider, _UNKNOWN),
        instance_type=_text(host.instance_type, _UNKNOWN),
        instance_id=_text(host.instance_id),
    )


def version_info(host: HostInfo) -> s.VersionInfo:
    """`cadvisor_version` tells that this is no cAdvisor: its number would be taken for an early one."""
    return s.VersionInfo(
        kernel_version=host.kernel_version,
        container_os_version=host.os,
        docker_version=_text(host.docker_version),
        docker_api_version=_text(host.docker_api_version),
        cadvisor_version=f"streamer-{host.streamer_version}",
        cadvisor_revision="",
    )


def attributes(host: HostInfo) -> v2.Attributes:
    machine, version = machine_info(host), version_info(host)
    both = {**_fields(machine), **_fields(version)}
    return v2.Attributes(**{name: both[name] for name in v2.Attributes.__struct_fields__})


def disk_names(host: HostInfo | None) -> dict[tuple[int, int], str]:
    """/dev/NAME of whole disks, by (major, minor)."""
    return {(disk.major, disk.minor): f"/dev/{disk.name}" for disk in host.disks} if host is not None else {}


def fs_infos(timestamp: str, measured: Sequence[FilesystemUsage], engine_devices: frozenset[str]) -> list[v2.FsInfo]:
    """v2's file systems. `engine_devices`: those that hold containers' writable layers."""
    return [
        v2.FsInfo(
            timestamp=timestamp,
            device=fs.device,
            mountpoint=_text(fs.mountpoint),
            capacity=fs.capacity_bytes,
            available=_number(fs.available_bytes),
            usage=fs.usage_bytes,
            labels=_labels(fs, engine_devices) or None,
            inodes=None if fs.inodes is UNSET else fs.inodes,
            inodes_free=None if fs.inodes_free is UNSET else fs.inodes_free,
        )
        for fs in measured
    ]


ROOT_LABEL: Final = "root"
IMAGES_LABEL: Final = "docker-images"


def _labels(fs: FilesystemUsage, engine_devices: frozenset[str]) -> list[str]:
    told = ((IMAGES_LABEL, fs.device in engine_devices), (ROOT_LABEL, fs.mountpoint == "/"))
    return [label for label, holds in told if holds]


def _huge_pages(pages: Sequence[HugePages]) -> list[s.HugePagesInfo] | None:
    return [s.HugePagesInfo(each.page_size_bytes // 1024, each.num_pages) for each in pages] or None


def _caches(caches: Sequence[Cache]) -> list[s.CacheInfo] | None:
    return [s.CacheInfo(cache.id, cache.size_bytes, cache.kind, cache.level) for cache in caches] or None


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _text(value: Any, otherwise: str = "") -> str:
    return otherwise if value is UNSET else str(value)


def _number(value: Any, otherwise: int = 0) -> int:
    return otherwise if value is UNSET else int(value)
