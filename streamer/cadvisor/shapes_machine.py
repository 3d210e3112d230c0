"""The JSON of cAdvisor's machine and version information (`shapes.py`, where the rules stand)."""

from __future__ import annotations

from msgspec import Struct


class MemoryByType(Struct, frozen=True):
    capacity: int
    dimm_count: int


class Nvm(Struct, frozen=True, rename={"app_direct_mode_capacity": "app direct_mode_capacity"}):
    """The key `app direct_mode_capacity` has a space in it."""

    memory_mode_capacity: int
    app_direct_mode_capacity: int
    avg_power_budget: int


class HugePagesInfo(Struct, frozen=True):
    """`page_size` in kB."""

    page_size: int
    num_pages: int


class MachineFilesystem(Struct, frozen=True):
    device: str
    capacity: int
    type: str
    inodes: int
    has_inodes: bool


class DiskInfo(Struct, frozen=True):
    name: str
    major: int
    minor: int
    size: int
    scheduler: str


class NetInfo(Struct, frozen=True):
    """`speed` in Mbit/s, -1 when the device does not say."""

    name: str
    mac_address: str
    speed: int
    mtu: int


class CacheInfo(Struct, frozen=True):
    id: int
    size: int
    type: str
    level: int


class CoreInfo(Struct, frozen=True):
    core_id: int
    thread_ids: list[int]
    caches: list[CacheInfo] | None
    uncore_caches: list[CacheInfo] | None
    socket_id: int


class NodeInfo(Struct, frozen=True):
    node_id: int
    memory: int
    hugepages: list[HugePagesInfo] | None
    cores: list[CoreInfo]
    caches: list[CacheInfo] | None
    distances: list[int] | None


class MachineInfo(Struct, frozen=True, kw_only=True):
    timestamp: str
    vendor_id: str
    num_cores: int
    num_physical_cores: int
    num_sockets: int
    cpu_frequency_khz: int
    memory_capacity: int
    swap_capacity: int
    memory_by_type: dict[str, MemoryByType]
    nvm: Nvm
    hugepages: list[HugePagesInfo] | None
    machine_id: str
    system_uuid: str
    boot_id: str
    filesystems: list[MachineFilesystem]
    disk_map: dict[str, DiskInfo]
    network_devices: list[NetInfo]
    topology: list[NodeInfo]
    cloud_provider: str
    instance_type: str
    instance_id: str


class VersionInfo(Struct, frozen=True, kw_only=True):
    kernel_version: str
    container_os_version: str
    docker_version: str
    docker_api_version: str
    cadvisor_version: str
    cadvisor_revision: str
