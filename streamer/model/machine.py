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
