"""THE TABLE of the families `container_*` and `machine_*`: what each is called, and where its value stands.

Names, types, labels and help are those that dashboards and rules know from cAdvisor
(https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md); a new family is one row here.
What the agent does not read has no row: health checks, load average, task states, huge pages and NUMA by container, open files,
sockets, TCP and UDP states, perf events, resctrl, referenced memory, io.cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from msgspec import UNSET, UnsetType

from streamer.model.machine import Cache
from streamer.model.messages import HostInfo

_NS: Final = 1_000_000_000
_MS: Final = 1_000
"""What a column's number is divided by to become seconds."""

Kind = Literal["counter", "gauge"]


class Measured(NamedTuple):
    """Columns of the newest `container.stats`; the sample's time.

    columns   for each series: labels besides the container's, as text with a comma at the end, and the column
    divisor   the column's number divided by this is the value
    limited   only of containers with a CPU limit
    """

    columns: tuple[tuple[str, str], ...]
    divisor: int = 1
    limited: bool = False


class Known(NamedTuple):
    """A fact about the container: an attribute of `container_metrics.Facts`. As of now, so without a time."""

    fact: str


class Seen(NamedTuple):
    """The time of the scrape, of every container that is there."""


class Specified(NamedTuple):
    """A limit or share: a field of `ContainerSpec`; no time. `limited`: only of containers with a CPU limit."""

    field: str
    limited: bool = False


class PerInterface(NamedTuple):
    """A field of each `NetworkInterface`; label `interface`; the sample's time."""

    field: str


class PerDevice(NamedTuple):
    """I/O by block device; label `device`; the sample's time.

    operations   labels besides, and a field of each `IoDevice`
    disk         a field of `FilesystemUsage.disk`, of disks that are not among the former
    numbered     labels `major` and `minor`, too
    """

    operations: tuple[tuple[str, str], ...] = ()
    disk: str = ""
    divisor: int = 1
    numbered: bool = False


class PerFilesystem(NamedTuple):
    """A field of each `FilesystemUsage`; label `device`; the sample's time."""

    field: str


class Family(NamedTuple):
    """One metric family of containers."""

    name: str
    kind: Kind
    help: str
    source: Measured | Known | Seen | Specified | PerInterface | PerDevice | PerFilesystem


def _column(name: str, divisor: int = 1, *, labels: str = "", limited: bool = False) -> Measured:
    return Measured(((labels, name),), divisor, limited)


def _faults(kind: str, column: str) -> tuple[tuple[str, str], ...]:
    # the kernel counts faults of the cgroups below as the cgroup's own, so both scopes say the same
    return tuple((f'failure_type="{kind}",scope="{scope}",', column) for scope in ("container", "hierarchy"))


# fmt: off
# One family per line.
CONTAINER: Final[tuple[Family, ...]] = (
    Family("container_last_seen", "gauge", "Last time a container was seen by the exporter", Seen()),
    Family("container_creation_time_seconds", "gauge", "Container creation time since unix epoch in seconds.", Known("created")),
    Family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", Known("started")),
    Family("container_oom_events_total", "counter", "Count of out of memory events observed for the container", Known("oom_kills")),
    # limits and shares
    Family("container_spec_cpu_period", "gauge", "CPU period of the container.", Specified("cpu_period_us")),
    Family("container_spec_cpu_quota", "gauge", "CPU quota of the container.", Specified("cpu_quota_us", limited=True)),
    Family("container_spec_cpu_shares", "gauge", "CPU share of the container.", Specified("cpu_shares")),
    Family("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", Specified("memory_limit_bytes")),
    Family("container_spec_memory_swap_limit_bytes", "gauge", "Memory swap limit for the container.", Specified("memory_swap_limit_bytes")),
    Family("container_spec_memory_reservation_limit_bytes", "gauge", "Memory reservation limit for the container.", Specified("memory_reservation_bytes")),
    Family("container_threads_max", "gauge", "Maximum number of threads allowed inside the container, infinity if value is zero", Specified("pids_limit")),
    # CPU
    Family("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", _column("cpu_usage_ns", _NS, labels='cpu="total",')),
    Family("container_cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds.", _column("cpu_user_ns", _NS)),
    Family("container_cpu_system_seconds_total", "counter", "Cumulative system cpu time consumed in seconds.", _column("cpu_system_ns", _NS)),
    Family("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", _column("cpu_periods", limited=True)),
    Family("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", _column("cpu_throttled_periods", limited=True)),
    Family("container_cpu_cfs_throttled_seconds_total", "counter", "Total time duration the container has been throttled.", _column("cpu_throttled_ns", _NS, limited=True)),
    Family("container_cpu_cfs_burst_periods_total", "counter", "Number of periods when burst occurs.", _column("cpu_burst_periods", limited=True)),
    Family("container_cpu_cfs_burst_seconds_total", "counter", "Total time duration the container has been bursted.", _column("cpu_burst_ns", _NS, limited=True)),
    # memory
    Family("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory regardless of when it was accessed", _column("memory_usage_bytes")),
    Family("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", _column("memory_working_set_bytes")),
    Family("container_memory_rss", "gauge", "Size of RSS in bytes.", _column("memory_rss_bytes")),
    Family("container_memory_cache", "gauge", "Number of bytes of page cache memory.", _column("memory_cache_bytes")),
    Family("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", _column("memory_mapped_file_bytes")),
    Family("container_memory_kernel_usage", "gauge", "Size of kernel memory allocated in bytes.", _column("memory_kernel_bytes")),
    Family("container_memory_swap", "gauge", "Container swap usage in bytes.", _column("memory_swap_bytes")),
    Family("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes", _column("memory_peak_bytes")),
    Family("container_memory_failcnt", "counter", "Number of memory usage hits limits", _column("memory_failcnt")),
    Family("container_memory_total_active_file_bytes", "gauge", "Current total active file in bytes.", _column("memory_active_file_bytes")),
    Family("container_memory_total_inactive_file_bytes", "gauge", "Current total inactive file in bytes.", _column("memory_inactive_file_bytes")),
    Family("container_memory_file_dirty_bytes", "gauge", "Number of bytes of file cache that has been modified but not yet written back to disk.", _column("memory_dirty_bytes")),
    Family("container_memory_file_writeback_bytes", "gauge", "Number of bytes of file cache that is currently being written back to disk.", _column("memory_writeback_bytes")),
    Family("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.", Measured((*_faults("pgfault", "memory_page_faults"), *_faults("pgmajfault", "memory_major_page_faults")))),
    Family("container_memory_events_high_total", "counter", "Cumulative count of memory.high throttle events for the container", _column("memory_high_events")),
    Family("container_memory_events_max_total", "counter", "Cumulative count of memory.max limit hit events for the container", _column("memory_max_events")),
    Family("container_memory_pgscan_total", "counter", "Cumulative number of pages scanned by the page reclaim algorithm.", _column("memory_pgscan_pages")),
    Family("container_memory_pgsteal_total", "counter", "Cumulative number of pages reclaimed by the page reclaim algorithm.", _column("memory_pgsteal_pages")),
    Family("container_memory_workingset_refault_file_total", "counter", "Cumulative number of refaults of previously evicted file pages.", _column("memory_workingset_refault_file_pages")),
    Family("container_memory_workingset_refault_anon_total", "counter", "Cumulative number of refaults of previously evicted anonymous pages.", _column("memory_workingset_refault_anon_pages")),
    # file systems
    Family("container_fs_limit_bytes", "gauge", "Number of bytes that can be consumed by the container on this filesystem.", PerFilesystem("capacity_bytes")),
    Family("container_fs_usage_bytes", "gauge", "Number of bytes that are consumed by the container on this filesystem.", PerFilesystem("usage_bytes")),
    Family("container_fs_inodes_total", "gauge", "Number of Inodes", PerFilesystem("inodes")),
    Family("container_fs_inodes_free", "gauge", "Number of available Inodes", PerFilesystem("inodes_free")),
    # block I/O
    Family("container_fs_reads_bytes_total", "counter", "Cumulative count of bytes read", PerDevice((("", "read_bytes"),))),
    Family("container_fs_reads_total", "counter", "Cumulative count of reads completed", PerDevice((("", "read_operations"),), "reads_completed")),
    Family("container_fs_sector_reads_total", "counter", "Cumulative count of sector reads completed", PerDevice(disk="sectors_read")),
    Family("container_fs_reads_merged_total", "counter", "Cumulative count of reads merged", PerDevice(disk="reads_merged")),
    Family("container_fs_read_seconds_total", "counter", "Cumulative count of seconds spent reading", PerDevice(disk="read_time_ms", divisor=_MS)),
    Family("container_fs_writes_bytes_total", "counter", "Cumulative count of bytes written", PerDevice((("", "write_bytes"),))),
    Family("container_fs_writes_total", "counter", "Cumulative count of writes completed", PerDevice((("", "write_operations"),), "writes_completed")),
    Family("container_fs_sector_writes_total", "counter", "Cumulative count of sector writes completed", PerDevice(disk="sectors_written")),
    Family("container_fs_writes_merged_total", "counter", "Cumulative count of writes merged", PerDevice(disk="writes_merged")),
    Family("container_fs_write_seconds_total", "counter", "Cumulative count of seconds spent writing", PerDevice(disk="write_time_ms", divisor=_MS)),
    Family("container_fs_io_current", "gauge", "Number of I/Os currently in progress", PerDevice(disk="io_in_progress")),
    Family("container_fs_io_time_seconds_total", "counter", "Cumulative count of seconds spent doing I/Os", PerDevice(disk="io_time_ms", divisor=_MS)),
    Family("container_fs_io_time_weighted_seconds_total", "counter", "Cumulative weighted I/O time in seconds", PerDevice(disk="weighted_io_time_ms", divisor=_MS)),
    Family("container_blkio_device_usage_total", "counter", "Blkio Device bytes usage", PerDevice((('operation="Read",', "read_bytes"), ('operation="Write",', "write_bytes")), numbered=True)),
    # network
    Family("container_network_receive_bytes_total", "counter", "Cumulative count of bytes received", PerInterface("rx_bytes")),
    Family("container_network_receive_packets_total", "counter", "Cumulative count of packets received", PerInterface("rx_packets")),
    Family("container_network_receive_packets_dropped_total", "counter", "Cumulative count of packets dropped while receiving", PerInterface("rx_drops")),
    Family("container_network_receive_errors_total", "counter", "Cumulative count of errors encountered while receiving", PerInterface("rx_errors")),
    Family("container_network_transmit_bytes_total", "counter", "Cumulative count of bytes transmitted", PerInterface("tx_bytes")),
    Family("container_network_transmit_packets_total", "counter", "Cumulative count of packets transmitted", PerInterface("tx_packets")),
    Family("container_network_transmit_packets_dropped_total", "counter", "Cumulative count of packets dropped while transmitting", PerInterface("tx_drops")),
    Family("container_network_transmit_errors_total", "counter", "Cumulative count of errors encountered while transmitting", PerInterface("tx_errors")),
    # processes
    Family("container_processes", "gauge", "Number of processes running inside the container.", _column("processes")),
    Family("container_threads", "gauge", "Number of threads running inside the container", _column("threads")),
    # pressure
    Family("container_pressure_cpu_waiting_seconds_total", "counter", "Total time duration tasks in the container have waited due to CPU congestion.", _column("psi_cpu_some_ns", _NS)),
    Family("container_pressure_cpu_stalled_seconds_total", "counter", "Total time duration no tasks in the container could make progress due to CPU congestion.", _column("psi_cpu_full_ns", _NS)),
    Family("container_pressure_memory_waiting_seconds_total", "counter", "Total time duration tasks in the container have waited due to memory congestion.", _column("psi_memory_some_ns", _NS)),
    Family("container_pressure_memory_stalled_seconds_total", "counter", "Total time duration no tasks in the container could make progress due to memory congestion.", _column("psi_memory_full_ns", _NS)),
    Family("container_pressure_io_waiting_seconds_total", "counter", "Total time duration tasks in the container have waited due to IO congestion.", _column("psi_io_some_ns", _NS)),
    Family("container_pressure_io_stalled_seconds_total", "counter", "Total time duration no tasks in the container could make progress due to IO congestion.", _column("psi_io_full_ns", _NS)),
)
# fmt: on


Series = Iterable[tuple[tuple[object, ...], int | UnsetType]]
"""Values of the labels besides the machine's, and the number."""


class MachineFamily(NamedTuple):
    """One gauge of the machine. `read`: its series, made from the latest `host.info`."""

    name: str
    help: str
    read: Callable[[HostInfo], Series]
    labels: tuple[str, ...] = ()


def _caches(host: HostInfo) -> Series:
    """A cache that several cores of a node share, but not all, stands at each of them."""
    # one core may have two caches of a kind and level in theory; only their sum has a series
    sizes: dict[tuple[object, ...], int] = {}

    def add(node: int, core: object, cache: Cache) -> None:
        key = (node, core, cache.kind, cache.level)
        sizes[key] = sizes.get(key, 0) + cache.size_bytes

    for node in host.topology:
        for core in node.cores:
            for cache in (*core.caches, *core.shared_caches):
                add(node.node_id, core.core_id, cache)
        for cache in node.caches:
            add(node.node_id, "", cache)
    return sizes.items()


def _distances(host: HostInfo) -> Series:
    # the kernel lists the distances in the order of the nodes
    ids = [node.node_id for node in host.topology]
    return [((node.node_id, to), far) for node in host.topology for to, far in zip(ids, node.distances, strict=False)]


# Not here: `machine_thread_siblings_count` and `machine_node_hugepages_count`, gauges that are named like parts of a
# histogram, and off in cAdvisor unless asked for; `/api/v1.3/machine` has both.
# fmt: off
MACHINE: Final[tuple[MachineFamily, ...]] = (
    MachineFamily("machine_cpu_cores", "Number of logical CPU cores.", lambda h: [((), h.num_cores)]),
    MachineFamily("machine_cpu_physical_cores", "Number of physical CPU cores.", lambda h: [((), h.num_physical_cores)]),
    MachineFamily("machine_cpu_sockets", "Number of CPU sockets.", lambda h: [((), h.num_sockets)]),
    MachineFamily("machine_memory_bytes", "Amount of memory installed on the machine.", lambda h: [((), h.memory_capacity_bytes)]),
    MachineFamily("machine_swap_bytes", "Amount of swap memory available on the machine.", lambda h: [((), h.swap_capacity_bytes)]),
    MachineFamily("machine_dimm_count", "Number of RAM DIMM (all types memory modules) value labeled by dimm type.", lambda h: [((k.kind,), k.count) for k in h.memory_modules], ("type",)),
    MachineFamily("machine_dimm_capacity_bytes", "Total RAM DIMM capacity (all types memory modules) value labeled by dimm type.", lambda h: [((k.kind,), k.capacity_bytes) for k in h.memory_modules], ("type",)),
    MachineFamily("machine_cpu_cache_capacity_bytes", "Cache size in bytes assigned to NUMA node and CPU core.", _caches, ("node_id", "core_id", "type", "level")),
    MachineFamily("machine_node_memory_capacity_bytes", "Amount of memory assigned to NUMA node.", lambda h: [((n.node_id,), n.memory_bytes) for n in h.topology], ("node_id",)),
    MachineFamily("machine_node_distance", "Distance between NUMA node and target NUMA node.", _distances, ("node_id", "target_node_id")),
)
# fmt: on

MACHINE_LABELS: Final[tuple[tuple[str, str], ...]] = (
    # label, field of `HostInfo`
    ("machine_id", "machine_id"),
    ("system_uuid", "system_uuid"),
    ("boot_id", "boot_id"),
)


def machine_labels(host: HostInfo) -> tuple[str, ...]:
    """The values of `MACHINE_LABELS`."""
    told = {field: "" if (value := getattr(host, field)) is UNSET else value for _, field in MACHINE_LABELS}
    return tuple(value or told["machine_id"] for value in told.values())  # cAdvisor's fallback for firmware that gives no uuid
