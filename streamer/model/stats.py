"""WHAT WE MEASURE: one row per statistic. Readers, messages, schemas, metrics and docs are derived from this table.

A row names the column, its unit, whether it only grows (`counter`) or moves freely (`gauge`), and where the kernel
gives it on each hierarchy. `file:key` addresses one number; how a file is laid out stands in `FILES`.
Sources: Documentation/admin-guide/cgroup-v2.rst, Documentation/admin-guide/cgroup-v1/*.rst, Documentation/accounting/psi.rst.

A new statistic is one new row here, at the end of its group.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

ABSENT: Final = msgspec.UNSET
"""The value of a column that the kernel did not give. Never 0, never null: the key is left out."""

Layout = Literal["single", "flat", "nested", "pressure", "operations", "lines"]
"""How a kernel file is laid out:

`single`      one integer, or `max`                        memory.current
`flat`        `key value` a line                            memory.stat
`nested`      `device key=value …` a line, summed           io.stat
`operations`  `device Operation value` a line, summed       blkio.throttle.io_serviced (v1)
`pressure`    `some avg10=… total=…`, key `some.total`      cpu.pressure
`lines`       the number of lines                           cgroup.procs
"""


class File(NamedTuple):
    """A kernel file: the controller whose hierarchy holds it on v1 (on v2 all share one), and its layout.

    `follows`: a file of the same cgroup and controller that says something new whenever this one does, no later than an
    instant after it. Once that one has stood still from one look to the next, this one need not be read until it moves.
    (Where sums over children lose what a removed child had counted, a sum that stands still may hide that this one fell.)
    """

    controller: str
    layout: Layout
    follows: str = ""


FILES: Final[dict[str, File]] = {
    # cgroup v2
    "cpu.stat": File("cpu", "flat"),  # also v1, with other keys
    "cpu.pressure": File("cpu", "pressure"),
    "memory.current": File("memory", "single"),
    "memory.peak": File("memory", "single"),
    "memory.swap.current": File("memory", "single"),
    "memory.stat": File("memory", "flat"),  # also v1, with other keys
    "memory.events": File("memory", "flat"),
    "memory.pressure": File("memory", "pressure"),
    "io.stat": File("io", "nested"),
    "io.pressure": File("io", "pressure"),
    "pids.current": File("pids", "single"),  # also v1
    "cgroup.procs": File("pids", "lines"),  # also v1, in every hierarchy
    # cgroup v1
    "cpuacct.usage": File("cpuacct", "single"),
    # who is found running by a tick is charged the time before it, too (kernel/sched/core.c, scheduler_tick; cputime.c)
    "cpuacct.stat": File("cpuacct", "flat", "cpuacct.usage"),
    "memory.usage_in_bytes": File("memory", "single"),
    "memory.max_usage_in_bytes": File("memory", "single"),
    "memory.failcnt": File("memory", "single"),
    "memory.oom_control": File("memory", "flat"),
    # every bio is counted, and its bytes before that, unless a part of a larger one (block/blk-throttle.c)
    "blkio.throttle.io_service_bytes_recursive": File("blkio", "operations", "blkio.throttle.io_serviced_recursive"),
    "blkio.throttle.io_serviced_recursive": File("blkio", "operations"),
}


class Stat(NamedTuple):
    """One column of `ContainerStats`.

    `v2`, `v1`: `file:key`, or `file` for a `single` or `lines` file, or "" where that hierarchy has no such value.
    `scale` (v2, v1): the kernel's number times this is the column's unit.
    `derived`: not read from one file; `kernel/cgroup.py` computes it from other columns.
    """

    name: str
    unit: str
    kind: Literal["counter", "gauge"]
    v2: str
    v1: str
    help: str
    scale_v2: int = 1
    scale_v1: int = 1
    number: type = int
    derived: bool = False


_TICK_NS: Final = 10_000_000  # USER_HZ is 100 on every architecture Linux runs containers on


def _pressure(resource: str) -> list[Stat]:
    rows = []
    for share in ("some", "full"):
        who = "at least one task" if share == "some" else "every non-idle task"
        at = f"{resource}.pressure:{share}"
        rows.append(
            Stat(
                f"psi_{resource}_{share}_ns",
                "ns",
                "counter",
                f"{at}.total",
                "",
                f"Time in which {who} waited for {resource} (PSI).",
                scale_v2=1000,
            )
        )
        rows.append(
            Stat(
                f"psi_{resource}_{share}_avg10_percent",
                "percent",
                "gauge",
                f"{at}.avg10",
                "",
                f"Share of the last 10 s in which {who} waited for {resource} (PSI).",
                number=float,
            )
        )
    return rows


# fmt: off
# One statistic per line.
STATS: Final[tuple[Stat, ...]] = (
    # CPU
    Stat("cpu_usage_ns", "ns", "counter", "cpu.stat:usage_usec", "cpuacct.usage", "CPU time used.", 1000),
    Stat("cpu_user_ns", "ns", "counter", "cpu.stat:user_usec", "cpuacct.stat:user", "CPU time in user mode.", 1000, _TICK_NS),
    Stat("cpu_system_ns", "ns", "counter", "cpu.stat:system_usec", "cpuacct.stat:system", "CPU time in kernel mode.", 1000, _TICK_NS),
    Stat("cpu_periods", "periods", "counter", "cpu.stat:nr_periods", "cpu.stat:nr_periods", "Enforcement periods of the CPU limit that have passed."),
    Stat("cpu_throttled_periods", "periods", "counter", "cpu.stat:nr_throttled", "cpu.stat:nr_throttled", "Periods in which the CPU limit held tasks back."),
    Stat("cpu_throttled_ns", "ns", "counter", "cpu.stat:throttled_usec", "cpu.stat:throttled_time", "Time for which the CPU limit held tasks back.", 1000),
    Stat("cpu_burst_periods", "periods", "counter", "cpu.stat:nr_bursts", "cpu.stat:nr_bursts", "Periods in which saved-up CPU time was spent."),
    Stat("cpu_burst_ns", "ns", "counter", "cpu.stat:burst_usec", "cpu.stat:burst_time", "Saved-up CPU time that was spent.", 1000),
    # memory
    Stat("memory_usage_bytes", "bytes", "gauge", "memory.current", "memory.usage_in_bytes", "Memory charged, page cache included."),
    Stat("memory_working_set_bytes", "bytes", "gauge", "", "", "Usage less inactive file cache: what the kernel cannot easily take back.", derived=True),
    Stat("memory_rss_bytes", "bytes", "gauge", "memory.stat:anon", "memory.stat:total_rss", "Anonymous memory."),
    Stat("memory_cache_bytes", "bytes", "gauge", "memory.stat:file", "memory.stat:total_cache", "Page cache."),
    Stat("memory_mapped_file_bytes", "bytes", "gauge", "memory.stat:file_mapped", "memory.stat:total_mapped_file", "Page cache that is mapped."),
    Stat("memory_shmem_bytes", "bytes", "gauge", "memory.stat:shmem", "memory.stat:total_shmem", "Shared memory and tmpfs."),
    Stat("memory_active_file_bytes", "bytes", "gauge", "memory.stat:active_file", "memory.stat:total_active_file", "Page cache on the active list."),
    Stat("memory_inactive_file_bytes", "bytes", "gauge", "memory.stat:inactive_file", "memory.stat:total_inactive_file", "Page cache on the inactive list."),
    Stat("memory_dirty_bytes", "bytes", "gauge", "memory.stat:file_dirty", "memory.stat:total_dirty", "Page cache waiting to be written."),
    Stat("memory_writeback_bytes", "bytes", "gauge", "memory.stat:file_writeback", "memory.stat:total_writeback", "Page cache being written."),
    Stat("memory_kernel_bytes", "bytes", "gauge", "memory.stat:kernel", "", "Kernel memory."),
    Stat("memory_swap_bytes", "bytes", "gauge", "memory.swap.current", "memory.stat:total_swap", "Swap used."),
    Stat("memory_peak_bytes", "bytes", "gauge", "memory.peak", "memory.max_usage_in_bytes", "Highest usage so far."),
    Stat("memory_page_faults", "faults", "counter", "memory.stat:pgfault", "memory.stat:total_pgfault", "Page faults."),
    Stat("memory_major_page_faults", "faults", "counter", "memory.stat:pgmajfault", "memory.stat:total_pgmajfault", "Page faults that had to read from a device."),
    Stat("memory_failcnt", "events", "counter", "", "memory.failcnt", "Times the memory limit was hit."),
    Stat("memory_high_events", "events", "counter", "memory.events:high", "", "Times tasks were throttled over memory.high."),
    Stat("memory_max_events", "events", "counter", "memory.events:max", "", "Times usage was about to go over memory.max."),
    Stat("memory_oom_events", "events", "counter", "memory.events:oom", "", "Times an allocation was about to fail at the limit."),
    Stat("memory_oom_kills", "processes", "counter", "memory.events:oom_kill", "memory.oom_control:oom_kill", "Processes that the OOM killer ended."),
    Stat("memory_pgscan_pages", "pages", "counter", "memory.stat:pgscan", "", "Pages looked at for reclaim."),
    Stat("memory_pgsteal_pages", "pages", "counter", "memory.stat:pgsteal", "", "Pages reclaimed."),
    Stat("memory_workingset_refault_file_pages", "pages", "counter", "memory.stat:workingset_refault_file", "memory.stat:total_workingset_refault_file", "Evicted file pages that were needed again."),
    Stat("memory_workingset_refault_anon_pages", "pages", "counter", "memory.stat:workingset_refault_anon", "memory.stat:total_workingset_refault_anon", "Evicted anonymous pages that were needed again."),
    # block I/O
    Stat("io_read_bytes", "bytes", "counter", "io.stat:rbytes", "blkio.throttle.io_service_bytes_recursive:Read", "Bytes read from block devices."),
    Stat("io_write_bytes", "bytes", "counter", "io.stat:wbytes", "blkio.throttle.io_service_bytes_recursive:Write", "Bytes written to block devices."),
    Stat("io_read_operations", "operations", "counter", "io.stat:rios", "blkio.throttle.io_serviced_recursive:Read", "Read operations on block devices."),
    Stat("io_write_operations", "operations", "counter", "io.stat:wios", "blkio.throttle.io_serviced_recursive:Write", "Write operations on block devices."),
    # processes
    Stat("processes", "processes", "gauge", "cgroup.procs", "cgroup.procs", "Processes in the cgroup itself (not in cgroups below it)."),
    Stat("threads", "threads", "gauge", "pids.current", "pids.current", "Threads, cgroups below included."),
    # pressure
    *_pressure("cpu"),
    *_pressure("memory"),
    *_pressure("io"),
)
# fmt: on

COLUMNS: Final[tuple[str, ...]] = tuple(stat.name for stat in STATS)
INDEX: Final[dict[str, int]] = {name: position for position, name in enumerate(COLUMNS)}

NETWORK: Final[tuple[tuple[str, int], ...]] = (
    # column suffix, position among the numbers of a line of /proc/<pid>/net/dev (proc(5))
    ("rx_bytes", 0),
    ("rx_packets", 1),
    ("rx_errors", 2),
    ("rx_drops", 3),
    ("tx_bytes", 8),
    ("tx_packets", 9),
    ("tx_errors", 10),
    ("tx_drops", 11),
)
"""Counters of a network interface, summed as `network_<suffix>` and listed per interface."""


_InterfaceCounter = Annotated[int, msgspec.Meta(extra_json_schema={"x-kind": "counter"})]


class NetworkInterface(msgspec.Struct, frozen=True, array_like=False):
    """One interface inside the container's network namespace; counters as the kernel keeps them (proc(5), net/dev)."""

    name: str
    rx_bytes: _InterfaceCounter
    rx_packets: _InterfaceCounter
    rx_errors: _InterfaceCounter
    rx_drops: _InterfaceCounter
    tx_bytes: _InterfaceCounter
    tx_packets: _InterfaceCounter
    tx_errors: _InterfaceCounter
    tx_drops: _InterfaceCounter


def _counted(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra_json_schema={"x-kind": "counter"})


class IoDevice(msgspec.Struct, frozen=True, gc=False):
    """What a container did on one block device; the device's name stands in `HostInfo.disks`."""

    major: int
    minor: int
    read_bytes: Annotated[int, _counted("Bytes read.")]
    write_bytes: Annotated[int, _counted("Bytes written.")]
    read_operations: Annotated[int, _counted("Read operations.")]
    write_operations: Annotated[int, _counted("Write operations.")]


class DiskCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What a block device has done since it was attached: a line of /proc/diskstats (Documentation/admin-guide/iostats.rst)."""

    reads_completed: Annotated[int, _counted("Reads.")]
    reads_merged: Annotated[int, _counted("Reads merged with others.")]
    sectors_read: Annotated[int, _counted("Sectors of 512 bytes read.")]
    read_time_ms: Annotated[int, _counted("Time spent reading.")]
    writes_completed: Annotated[int, _counted("Writes.")]
    writes_merged: Annotated[int, _counted("Writes merged with others.")]
    sectors_written: Annotated[int, _counted("Sectors of 512 bytes written.")]
    write_time_ms: Annotated[int, _counted("Time spent writing.")]
    io_in_progress: Annotated[int, msgspec.Meta(description="Requests under way.")]
    io_time_ms: Annotated[int, _counted("Time in which requests were under way.")]
    weighted_io_time_ms: Annotated[int, _counted("The same, times the requests under way.")]


class FilesystemUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How full a file system is, or how much of one a container takes.

    Of the machine (the root cgroup): each file system on a block device, in one sample in ten seconds. Of a Docker
    container: the one that holds its writable layer; there it is walked through for, so it stands in one sample a minute.
    """

    device: str
    capacity_bytes: int
    usage_bytes: Annotated[
        int, msgspec.Meta(description="In use; of a container: its writable layer and its files of the engine (logs).")
    ]
    fstype: str | msgspec.UnsetType = msgspec.UNSET
    layer_bytes: Annotated[int, msgspec.Meta(description="Of a container: its writable layer alone.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    inodes_used: Annotated[int, msgspec.Meta(description="Of a container: files and directories in it.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    mountpoint: str | msgspec.UnsetType = msgspec.UNSET
    available_bytes: Annotated[int, msgspec.Meta(description="Left for ordinary users.")] | msgspec.UnsetType = msgspec.UNSET
    inodes: Annotated[int, msgspec.Meta(description="That it can hold.")] | msgspec.UnsetType = msgspec.UNSET
    inodes_free: int | msgspec.UnsetType = msgspec.UNSET
    disk: DiskCounters | msgspec.UnsetType = msgspec.UNSET


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One look at one cgroup, as the kernel answered.

    time_ns     wall clock, ns since 1970, when the reading began
    values      one entry per row of `STATS`, in its order; `ABSENT` where the kernel gave none
    interfaces  network counters of the container's namespace, empty where not known or shared with the host
    devices     block devices it did I/O on
    filesystems measured since the sample before, empty otherwise
    """

    time_ns: int
    values: tuple[Any, ...]
    interfaces: tuple[NetworkInterface, ...] = ()
    devices: tuple[IoDevice, ...] = ()
    filesystems: tuple[FilesystemUsage, ...] = ()

    def get(self, column: str) -> Any:
        """The value of a column, or `ABSENT`."""
        return self.values[INDEX[column]]
