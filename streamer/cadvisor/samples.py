"""A sample as cAdvisor's `ContainerStats`, v1 and v2. Pure, and made to be fast: an answer may hold tens of thousands.

What is constant, or zero as a whole, is one shared object. PSI totals are microseconds there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from msgspec import UNSET, structs

from streamer.cadvisor import shapes as s
from streamer.cadvisor import shapes_v2 as v2
from streamer.cadvisor.go import rfc3339
from streamer.memory import INDEX, StatsSample
from streamer.model.stats import FilesystemUsage, IoDevice, NetworkInterface

_NO_PRESSURE: Final = s.Pressure(0, 0, 0, 0)
_NO_PSI: Final = s.Psi(_NO_PRESSURE, _NO_PRESSURE)
_NO_CFS: Final = s.CpuCfs(0, 0, 0, 0, 0)
_NO_SCHEDSTAT: Final = s.CpuSchedstat(0, 0, 0)
_NO_NUMA: Final = s.NumaStats()
_NO_MEMORY_EVENTS: Final = s.MemoryEvents(0, 0)
_NO_DISK_IO: Final = s.DiskIo(psi=_NO_PSI)
_NO_LOAD: Final = s.LoadStats(0, 0, 0, 0, 0)
_NO_RESCTRL: Final = s.Resctrl()
_NO_CPUSET: Final = s.Cpuset(0)
_NO_HEALTH: Final = s.Health("")
_NO_NETWORK_V2: Final = v2.NetworkStatsV2(tcp=s.NO_TCP, tcp6=s.NO_TCP, udp=s.NO_UDP, udp6=s.NO_UDP, tcp_advanced=s.NO_TCP_ADVANCED)
_NO_CPU: Final = s.CpuStats(s.CpuUsage(0, 0, 0), _NO_CFS, _NO_SCHEDSTAT, 0, 0, _NO_PSI)
_NO_FAULTS: Final = s.MemoryFaults(0, 0, _NO_NUMA)
_MEMORY_STATS: Final[Callable[..., s.MemoryStats]] = s.MemoryStats  # 17 numbers in a row, which a type checker cannot count
_NO_MEMORY: Final = _MEMORY_STATS(*[0] * 17, _NO_FAULTS, _NO_FAULTS, _NO_PSI, _NO_MEMORY_EVENTS)
_NO_PROCESSES: Final = s.ProcessStats(0, 0, 0)


def _columns(*names: str) -> Any:
    return itemgetter(*(INDEX[name] for name in names))


def _psi_columns(resource: str) -> Any:
    return _columns(*(f"psi_{resource}_{share}_{what}" for share in ("full", "some") for what in ("ns", "avg10_percent")))


_USAGE: Final = _columns("cpu_usage_ns", "cpu_user_ns", "cpu_system_ns")
_CFS: Final = _columns("cpu_periods", "cpu_throttled_periods", "cpu_throttled_ns", "cpu_burst_periods", "cpu_burst_ns")
_MEMORY: Final = _columns(
    "memory_usage_bytes",
    "memory_peak_bytes",
    "memory_cache_bytes",
    "memory_rss_bytes",
    "memory_swap_bytes",
    "memory_mapped_file_bytes",
    "memory_working_set_bytes",
    "memory_active_file_bytes",
    "memory_inactive_file_bytes",
    "memory_dirty_bytes",
    "memory_writeback_bytes",
    "memory_pgscan_pages",
    "memory_pgsteal_pages",
    "memory_workingset_refault_file_pages",
    "memory_workingset_refault_anon_pages",
    "memory_failcnt",
    "memory_kernel_bytes",
)
"""In the order of the first fields of `MemoryStats`."""
_FAULTS: Final = _columns("memory_page_faults", "memory_major_page_faults")
_MEMORY_EVENTS: Final = _columns("memory_high_events", "memory_max_events")
_PROCESSES: Final = _columns("processes", "threads")
_CPU_PSI, _MEMORY_PSI, _IO_PSI = (_psi_columns(resource) for resource in ("cpu", "memory", "io"))
_KILLS: Final = INDEX["memory_oom_kills"]


class About(NamedTuple):
    """What the samples of one container have in common.

    disks        names of whole disks, /dev/NAME, by (major, minor)
    threads_max  0: no limit
    oom_kills    where the kernel does not count them in each sample
    """

    disks: Mapping[tuple[int, int], str] = {}
    threads_max: int = 0
    oom_kills: int = 0


def all_stats(taken: Sequence[StatsSample], about: About) -> list[s.ContainerStats]:
    """v1's samples. Those of a container that does nothing differ in their time alone, and share the rest."""
    stats: list[s.ContainerStats] = []
    before: StatsSample | None = None
    for sample in taken:
        if before is not None and _alike(sample, before):
            stats.append(structs.replace(stats[-1], timestamp=rfc3339(sample.time_ns)))
        else:
            stats.append(container_stats(sample, about))
        before = sample
    return stats


def _alike(one: StatsSample, other: StatsSample) -> bool:
    return one.values == other.values and one.interfaces == other.interfaces and one.devices == other.devices


def container_stats(sample: StatsSample, about: About) -> s.ContainerStats:
    """v1's sample. What the kernel did not give is 0."""
    given = sample.values
    kills = given[_KILLS]
    values = [0 if value is UNSET else value for value in given]
    pgfault, pgmajfault = _FAULTS(values)
    faults = s.MemoryFaults(pgfault, pgmajfault, _NO_NUMA)
    processes, threads = _PROCESSES(values)
    memory_events = _MEMORY_EVENTS(values)
    cfs = _CFS(values)
    return s.ContainerStats(
        timestamp=rfc3339(sample.time_ns),
        cpu=s.CpuStats(
            s.CpuUsage(*_USAGE(values)), s.CpuCfs(*cfs) if any(cfs) else _NO_CFS, _NO_SCHEDSTAT, 0, 0, _psi(_CPU_PSI(values))
        ),
        diskio=_disk_io(sample.devices, _psi(_IO_PSI(values)), about.disks),
        memory=_MEMORY_STATS(
            *_MEMORY(values),
            faults,
            faults,
            _psi(_MEMORY_PSI(values)),
            s.MemoryEvents(*memory_events) if any(memory_events) else _NO_MEMORY_EVENTS,
        ),
        network=_network(sample.interfaces) if sample.interfaces else None,
        task_stats=_NO_LOAD,
        processes=s.ProcessStats(processes, 0, 0, threads, about.threads_max),
        resctrl=_NO_RESCTRL,
        cpuset=_NO_CPUSET,
        oom_events=about.oom_kills if kills is UNSET else kills,
        health=_NO_HEALTH,
    )


def _psi(columns: tuple[Any, Any, Any, Any]) -> s.Psi:
    full_ns, full_avg10, some_ns, some_avg10 = columns
    if not full_ns and not some_ns:
        return _NO_PSI
    return s.Psi(s.Pressure(full_ns // 1000, full_avg10, 0, 0), s.Pressure(some_ns // 1000, some_avg10, 0, 0))


def _disk_io(devices: Sequence[IoDevice], psi: s.Psi, disks: Mapping[tuple[int, int], str]) -> s.DiskIo:
    if not devices:
        return _NO_DISK_IO if psi is _NO_PSI else s.DiskIo(psi=psi)
    of_bytes, operations = [], []
    for d in devices:
        name = disks.get((d.major, d.minor), "")
        of_bytes.append(s.PerDisk(name, d.major, d.minor, s.ReadWrite(d.read_bytes, d.write_bytes)))
        operations.append(s.PerDisk(name, d.major, d.minor, s.ReadWrite(d.read_operations, d.write_operations)))
    return s.DiskIo(io_service_bytes=of_bytes, io_serviced=operations, psi=psi)


def _counters(interface: NetworkInterface) -> tuple[Any, ...]:
    i = interface
    return (
        i.name, i.rx_bytes, i.rx_packets, i.rx_errors, i.rx_drops, i.tx_bytes, i.tx_packets, i.tx_errors, i.tx_drops
    )  # fmt: skip


def _network(interfaces: Sequence[NetworkInterface]) -> s.NetworkStats:
    counters = [_counters(interface) for interface in interfaces]
    return s.NetworkStats(
        *counters[0],
        interfaces=[s.InterfaceStats(*of_one) for of_one in counters],
        tcp=s.NO_TCP,
        tcp6=s.NO_TCP,
        udp=s.NO_UDP,
        udp6=s.NO_UDP,
        tcp_advanced=s.NO_TCP_ADVANCED,
    )


# file systems


def fs_stats(usage: FilesystemUsage, *, of_machine: bool) -> s.FsStats:
    """How full a file system is; of a container, what it takes of one."""
    disk = usage.disk
    inodes = usage.inodes if of_machine else usage.inodes_used
    return s.FsStats(
        device=usage.device,
        type=fs_type(usage.fstype),
        capacity=usage.capacity_bytes,
        usage=usage.usage_bytes,
        base_usage=_or_zero(usage.layer_bytes),
        available=_or_zero(usage.available_bytes) if of_machine else 0,
        has_inodes=of_machine and inodes is not UNSET,
        inodes=_or_zero(inodes),
        inodes_free=_or_zero(usage.inodes_free) if of_machine else 0,
        **(
            dict.fromkeys(_DISK_FIELDS, 0)
            if disk is UNSET
            else {field: getattr(disk, ours) for field, ours in _DISK_FIELDS.items()}
        ),
    )


_DISK_FIELDS: Final = {
    # FsStats' name -> ours
    "reads_completed": "reads_completed",
    "reads_merged": "reads_merged",
    "sectors_read": "sectors_read",
    "read_time": "read_time_ms",
    "writes_completed": "writes_completed",
    "writes_merged": "writes_merged",
    "sectors_written": "sectors_written",
    "write_time": "write_time_ms",
    "io_in_progress": "io_in_progress",
    "io_time": "io_time_ms",
    "weighted_io_time": "weighted_io_time_ms",
}


def fs_type(fstype: Any) -> str:
    """cAdvisor's kinds of file systems: what is no kind of its own is `vfs`."""
    return fstype if fstype in ("zfs", "nfs", "btrfs") else "vfs"


def _or_zero(value: Any) -> int:
    return 0 if value is UNSET else int(value)


# v2, made of v1


def cpu_rates(taken: Sequence[StatsSample]) -> Iterator[v2.CpuInst | None]:
    """CPU use between each sample and the one before it. None for the first, when one of them does not have it, and when time or a
    counter went back."""
    before: tuple[Any, Any, Any] | None = None
    before_ns = 0
    for sample in taken:
        usage, time_ns = _USAGE(sample.values), sample.time_ns
        rate = None
        if before is not None and time_ns > before_ns and usage[0] is not UNSET and before[0] is not UNSET:
            passed = time_ns - before_ns
            used = [0 if UNSET in (now, then) else now - then for now, then in zip(usage, before, strict=True)]
            if min(used) >= 0:
                rate = v2.CpuInst(v2.CpuInstUsage(*(part * 1_000_000_000 // passed for part in used)))
        yield rate
        before, before_ns = usage, time_ns


def stats_v2(stat: s.ContainerStats, rate: v2.CpuInst | None, spec: s.ContainerSpec) -> v2.ContainerStatsV2:
    """v2.1's sample: the parts that the spec has."""
    fs = stat.filesystem
    return v2.ContainerStatsV2(
        timestamp=stat.timestamp,
        cpu=stat.cpu if spec.has_cpu else None,
        cpu_inst=rate if spec.has_cpu else None,
        diskio=stat.diskio if spec.has_diskio else None,
        memory=stat.memory if spec.has_memory else None,
        network=network_v2(stat.network) if spec.has_network else None,
        processes=stat.processes if spec.has_processes else None,
        filesystem=v2.FilesystemUsageV2(fs[0].usage, fs[0].base_usage, fs[0].inodes) if len(fs) == 1 else None,
        resctrl=_NO_RESCTRL,
    )


def deprecated_stats(stat: s.ContainerStats, rate: v2.CpuInst | None, spec: s.ContainerSpec) -> v2.DeprecatedContainerStats:
    """v2.0's sample."""
    return v2.DeprecatedContainerStats(
        timestamp=stat.timestamp,
        has_cpu=spec.has_cpu,
        cpu=stat.cpu if spec.has_cpu else _NO_CPU,
        cpu_inst=rate if spec.has_cpu else None,
        has_diskio=spec.has_diskio,
        diskio=stat.diskio if spec.has_diskio else _NO_DISK_IO,
        has_memory=spec.has_memory,
        memory=stat.memory if spec.has_memory else _NO_MEMORY,
        has_hugetlb=False,
        has_network=spec.has_network,
        network=network_v2(stat.network) if spec.has_network else _NO_NETWORK_V2,
        has_processes=False,
        processes=_NO_PROCESSES,
        has_filesystem=spec.has_filesystem,
        filesystem=stat.filesystem,
        has_load=False,
        load_stats=_NO_LOAD,
        has_custom_metrics=False,
        resctrl=_NO_RESCTRL,
    )


def machine_stats(stat: s.ContainerStats, rate: v2.CpuInst | None, spec: s.ContainerSpec) -> v2.MachineStats:
    """v2.1's sample of the root cgroup."""
    return v2.MachineStats(
        timestamp=stat.timestamp,
        cpu=stat.cpu if spec.has_cpu else None,
        cpu_inst=rate if spec.has_cpu else None,
        memory=stat.memory if spec.has_memory else None,
        network=network_v2(stat.network) if spec.has_network else None,
        filesystem=[_machine_fs(fs) for fs in stat.filesystem],
    )


def network_v2(network: s.NetworkStats | None) -> v2.NetworkStatsV2:
    if network is None:
        return _NO_NETWORK_V2
    return v2.NetworkStatsV2(
        interfaces=network.interfaces, tcp=s.NO_TCP, tcp6=s.NO_TCP, udp=s.NO_UDP, udp6=s.NO_UDP, tcp_advanced=s.NO_TCP_ADVANCED
    )


_MS: Final = 1_000_000


def _machine_fs(fs: s.FsStats) -> v2.MachineFsStats:
    return v2.MachineFsStats(
        device=fs.device,
        type=fs.type,
        capacity=fs.capacity,
        usage=fs.usage,
        available=fs.available,
        inodes_free=fs.inodes_free if fs.has_inodes else None,
        disk=v2.DiskStats(
            reads_completed=fs.reads_completed,
            reads_merged=fs.reads_merged,
            sectors_read=fs.sectors_read,
            read_duration=fs.read_time * _MS,
            writes_completed=fs.writes_completed,
            writes_merged=fs.writes_merged,
            sectors_written=fs.sectors_written,
            write_duration=fs.write_time * _MS,
            io_in_progress=fs.io_in_progress,
            io_duration=fs.io_time * _MS,
            weighted_io_duration=fs.weighted_io_time * _MS,
        ),
    )
