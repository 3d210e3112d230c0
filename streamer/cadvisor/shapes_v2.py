"""The JSON of cAdvisor's API v2.0 and v2.1, as far as it differs from v1's (`shapes.py`, where the rules stand)."""

from __future__ import annotations

from msgspec import Struct, field

from streamer.cadvisor.shapes import (
    CpuSpec,
    CpuStats,
    DiskIo,
    FsStats,
    InterfaceStats,
    LoadStats,
    MemorySpec,
    MemoryStats,
    ProcessSpec,
    ProcessStats,
    Resctrl,
    TcpAdvancedStat,
    TcpStat,
    UdpStat,
)
from streamer.cadvisor.shapes_machine import DiskInfo, HugePagesInfo, MachineFilesystem, NetInfo, NodeInfo


class ContainerSpecV2(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """v1's, with aliases; `cpu` without quota and period."""

    creation_time: str
    start_time: str
    aliases: list[str] = []
    namespace: str = ""
    labels: dict[str, str] = {}
    has_cpu: bool
    cpu: CpuSpec
    has_memory: bool
    memory: MemorySpec
    has_hugetlb: bool
    has_custom_metrics: bool
    has_processes: bool
    processes: ProcessSpec
    has_network: bool
    has_filesystem: bool
    has_diskio: bool
    image: str = ""


class CpuInstUsage(Struct, frozen=True, gc=False):
    """Nanocores: CPU time in a second of time."""

    total: int
    user: int
    system: int


class CpuInst(Struct, frozen=True, gc=False):
    usage: CpuInstUsage


class NetworkStatsV2(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    interfaces: list[InterfaceStats] = []
    tcp: TcpStat
    tcp6: TcpStat
    udp: UdpStat
    udp6: UdpStat
    tcp_advanced: TcpAdvancedStat


class FilesystemUsageV2(Struct, frozen=True, gc=False, rename={"total": "totalUsageBytes", "base": "baseUsageBytes", "inodes": "containter_inode_usage"}):  # fmt: skip
    """What a container takes of its file system. The key `containter_inode_usage` is misspelt."""

    total: int
    base: int
    inodes: int


class ContainerStatsV2(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One sample; each part only if the spec has it."""

    timestamp: str
    cpu: CpuStats | None = None
    cpu_inst: CpuInst | None = None
    diskio: DiskIo | None = None
    memory: MemoryStats | None = None
    network: NetworkStatsV2 | None = None
    processes: ProcessStats | None = None
    filesystem: FilesystemUsageV2 | None = None
    resctrl: Resctrl


class ContainerInfoV2(Struct, frozen=True, kw_only=True, omit_defaults=True):
    spec: ContainerSpecV2
    stats: list[ContainerStatsV2] = []


class DeprecatedContainerStats(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """v2.0's sample: everything is there, zeros where `has_*` is false. `has_processes` and `has_load` never are true."""

    timestamp: str
    has_cpu: bool
    cpu: CpuStats
    cpu_inst: CpuInst | None = None
    has_diskio: bool
    diskio: DiskIo
    has_memory: bool
    memory: MemoryStats
    has_hugetlb: bool
    has_network: bool
    network: NetworkStatsV2
    has_processes: bool
    processes: ProcessStats
    has_filesystem: bool
    filesystem: list[FsStats] = []
    has_load: bool
    load_stats: LoadStats
    has_custom_metrics: bool
    resctrl: Resctrl


class DiskStats(Struct, frozen=True, gc=False, kw_only=True):
    """Durations in nanoseconds."""

    reads_completed: int
    reads_merged: int
    sectors_read: int
    read_duration: int
    writes_completed: int
    writes_merged: int
    sectors_written: int
    write_duration: int
    io_in_progress: int
    io_duration: int
    weighted_io_duration: int


class MachineFsStats(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A file system of the machine. The disk's counters stand under the key `inline`."""

    device: str
    type: str
    capacity: int
    usage: int
    available: int
    inodes_free: int | None = None
    disk: DiskStats = field(name="inline")


class MachineStats(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A sample of the whole machine."""

    timestamp: str
    cpu: CpuStats | None = None
    cpu_inst: CpuInst | None = None
    memory: MemoryStats | None = None
    network: NetworkStatsV2 | None = None
    filesystem: list[MachineFsStats] = []


class Attributes(Struct, frozen=True, kw_only=True):
    """Versions and machine in one."""

    kernel_version: str
    container_os_version: str
    docker_version: str
    docker_api_version: str
    cadvisor_version: str
    num_cores: int
    cpu_frequency_khz: int
    memory_capacity: int
    machine_id: str
    system_uuid: str
    hugepages: list[HugePagesInfo] | None
    filesystems: list[MachineFilesystem]
    disk_map: dict[str, DiskInfo]
    network_devices: list[NetInfo]
    topology: list[NodeInfo]
    cloud_provider: str
    instance_type: str


class Percentiles(Struct, frozen=True, kw_only=True):
    present: bool
    mean: int
    std: int
    max: int
    fifty: int
    ninety: int
    ninetyfive: int
    count: int


class Usage(Struct, frozen=True, kw_only=True):
    """`cpu` in millicores, `memory`: working set in bytes."""

    percent_complete: int
    cpu: Percentiles
    memory: Percentiles


class InstantUsage(Struct, frozen=True):
    cpu: int
    memory: int


class DerivedStats(Struct, frozen=True, kw_only=True):
    timestamp: str
    latest_usage: InstantUsage
    minute_usage: Usage
    hour_usage: Usage
    day_usage: Usage


class FsInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file system of the machine; bytes."""

    timestamp: str
    device: str
    mountpoint: str
    capacity: int
    available: int
    usage: int
    labels: list[str] | None
    inodes: int | None = None
    inodes_free: int | None = None


class ProcessInfo(Struct, frozen=True, kw_only=True):
    """A process; sizes in bytes."""

    user: str
    pid: int
    parent_pid: int
    start_time: str
    percent_cpu: float
    percent_mem: float
    rss: int
    virtual_size: int
    status: str
    running_time: str
    cgroup_path: str
    cmd: str
    fd_count: int
    psr: int
