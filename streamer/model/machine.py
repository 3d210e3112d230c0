"""Facts about the machine and the versions on it: `HostInfo` says them, the sidecar serves them."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType


class Filesystem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A mounted block-device file system."""

    device: str
    mountpoint: str
    fstype: str
    capacity_bytes: int
    inodes: int | UnsetType = UNSET


class Disk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A block device (`/sys/block`), without loop, ram and optical ones."""

    name: str
    major: int
    minor: int
    size_bytes: int
    scheduler: str | UnsetType = UNSET


class NetworkDevice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network device of the host (`/sys/class/net`), without lo, veth and bridges of runtimes."""

    name: str
    mac_address: str | UnsetType = UNSET
    mtu: int | UnsetType = UNSET
    speed_mbit: int | UnsetType = UNSET


class HugePages(Struct, frozen=True, kw_only=True):
    """Pages of one size set aside (`/sys/kernel/mm/hugepages`)."""

    page_size_bytes: int
    num_pages: int


class MemoryModules(Struct, frozen=True, kw_only=True):
    """Memory modules of one kind (`/sys/devices/system/edac`)."""

    kind: str
    capacity_bytes: int
    count: int


class Cache(Struct, frozen=True, kw_only=True):
    """A CPU cache (`/sys/devices/system/cpu/cpu*/cache/index*`). `kind`: Data, Instruction or Unified."""

    id: int
    level: int
    kind: str
    size_bytes: int


class Core(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A physical core: the logical CPUs on it, the caches that are its own, those that it shares with others of its node only in part."""

    core_id: int
    socket_id: int
    threads: list[int]
    caches: list[Cache] = []
    shared_caches: list[Cache] = []


class NumaNode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A NUMA node (`/sys/devices/system/node`). `caches`: those that all of its cores share; `distances`: to each node, in order."""

    node_id: int
    memory_bytes: int
    huge_pages: list[HugePages] = []
    cores: list[Core] = []
    caches: list[Cache] = []
    distances: list[int] = []


class HostFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Machine and version facts, as far as this host tells them."""

    boot_id: str
    boot_time_ms: int
    kernel_version: str
    os: str
    architecture: str
    cgroup_mode: str  # v1, v2, hybrid
    num_cores: int
    num_physical_cores: int | UnsetType = UNSET
    num_sockets: int | UnsetType = UNSET
    cpu_frequency_khz: int | UnsetType = UNSET
    cpu_vendor: str | UnsetType = UNSET
    cpu_model: str | UnsetType = UNSET
    memory_capacity_bytes: int
    swap_capacity_bytes: int
    system_uuid: str | UnsetType = UNSET
    machine_id: str | UnsetType = UNSET
    docker_version: str | UnsetType = UNSET
    docker_api_version: str | UnsetType = UNSET
    streamer_version: str = ""
    filesystems: list[Filesystem] = []
    disks: list[Disk] = []
    network_devices: list[NetworkDevice] = []
    huge_pages: list[HugePages] = []
    memory_modules: list[MemoryModules] = []
    topology: list[NumaNode] = []
    cloud_provider: str | UnsetType = UNSET
    instance_type: str | UnsetType = UNSET
    instance_id: str | UnsetType = UNSET
