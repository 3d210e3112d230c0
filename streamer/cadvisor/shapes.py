"""The JSON of cAdvisor's API v1: names, order and presence of every key that this program fills.

Source: the public model types of cAdvisor v0.60 (`lib/model`), checked against the answers of a running one.
A field without a default is always there; one with a default is left out while it has that value (Go's omitempty).
`cpu`, `diskio`, `memory` and `processes` of a sample are always there, with zeros where nothing is measured: scripts expect
them. `network` is there where there are interfaces, as in v0.60: its zeros are three kilobytes, nine tenths of an idle
sample. Go clients of every age read either. Times are RFC3339Nano (`go.rfc3339`).

Optional keys never filled, because nothing here measures them, are not in these types: `per_cpu_usage`, `envs`,
`hugetlb`, `accelerators`, `custom_metrics`, `perf_stats`, `perf_uncore_stats`, `referenced_memory`, `ulimits`,
`numa_stats`' nodes, `io_queued` to `io_time`, `io_cost_*`, `num_books`, `num_drawers`. What is required and not measured is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct, defstruct

from streamer.cadvisor.go import ZERO_TIME

# a container and its limits


class ContainerReference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which container. `name`: its cgroup path. Of a runtime's container also `id`, `aliases` and whose they are."""

    id: str = ""
    name: str
    aliases: list[str] = []
    namespace: str = ""


class CpuSpec(Struct, frozen=True, omit_defaults=True):
    """`limit`: shares; `quota` in `period`: microseconds; `mask`: CPUs as the kernel lists them."""

    limit: int
    max_limit: int
    mask: str = ""
    quota: int = 0
    period: int = 0


class MemorySpec(Struct, frozen=True, omit_defaults=True):
    """Bytes. `swap_limit`: memory and swap."""

    limit: int = 0
    reservation: int = 0
    swap_limit: int = 0


class ProcessSpec(Struct, frozen=True, omit_defaults=True):
    limit: int = 0


class ContainerSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a container may use. `has_*`: whether its samples have that part."""

    creation_time: str
    start_time: str
    labels: dict[str, str] = {}
    has_cpu: bool
    cpu: CpuSpec
    has_memory: bool
    memory: MemorySpec
    has_hugetlb: bool
    has_network: bool
    has_processes: bool
    processes: ProcessSpec
    has_filesystem: bool
    has_diskio: bool
    has_custom_metrics: bool
    image: str = ""


NO_CPU_LIMIT: Final = CpuSpec(0, 0)
NO_MEMORY_LIMIT: Final = MemorySpec()

# a sample


class CpuUsage(Struct, frozen=True, gc=False):
    """Nanoseconds since the container was made."""

    total: int
    user: int
    system: int


class CpuCfs(Struct, frozen=True, gc=False):
    """Work of the CPU limit; times in nanoseconds."""

    periods: int
    throttled_periods: int
    throttled_time: int
    bursts_periods: int
    burst_time: int


class CpuSchedstat(Struct, frozen=True, gc=False):
    run_time: int
    runqueue_time: int
    run_periods: int


class Pressure(Struct, frozen=True, gc=False):
    """`total` in microseconds; averages in percent."""

    total: int
    avg10: float
    avg60: float
    avg300: float


class Psi(Struct, frozen=True, gc=False):
    full: Pressure
    some: Pressure


class CpuStats(Struct, frozen=True, gc=False):
    usage: CpuUsage
    cfs: CpuCfs
    schedstat: CpuSchedstat
    load_average: int
    load_d_average: int
    psi: Psi


class NumaStats(Struct, frozen=True, gc=False):
    """Always `{}`."""


class MemoryFaults(Struct, frozen=True, gc=False):
    pgfault: int
    pgmajfault: int
    numa_stats: NumaStats


class MemoryEvents(Struct, frozen=True, gc=False):
    high: int
    max: int


class MemoryStats(Struct, frozen=True, gc=False):
    """Bytes, but `pg*`, `workingset_*` and `failcnt`."""

    usage: int
    max_usage: int
    cache: int
    rss: int
    swap: int
    mapped_file: int
    working_set: int
    total_active_file: int
    total_inactive_file: int
    file_dirty: int
    file_writeback: int
    pgscan: int
    pgsteal: int
    workingset_refault_file: int
    workingset_refault_anon: int
    failcnt: int
    kernel: int
    container_data: MemoryFaults
    hierarchical_data: MemoryFaults
    psi: Psi
    events: MemoryEvents


class ReadWrite(Struct, frozen=True, gc=False, rename="pascal"):
    """Keys `Read` and `Write`."""

    read: int
    write: int


class PerDisk(Struct, frozen=True, gc=False):
    """`device`: /dev/NAME of a whole disk, else empty."""

    device: str
    major: int
    minor: int
    stats: ReadWrite


class DiskIo(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    io_service_bytes: list[PerDisk] = []
    io_serviced: list[PerDisk] = []
    psi: Psi


class InterfaceStats(Struct, frozen=True, gc=False):
    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class TcpStat(Struct, frozen=True, gc=False, rename="pascal"):
    """Sockets by state; keys capitalised."""

    established: int = 0
    syn_sent: int = 0
    syn_recv: int = 0
    fin_wait1: int = 0
    fin_wait2: int = 0
    time_wait: int = 0
    close: int = 0
    close_wait: int = 0
    last_ack: int = 0
    listen: int = 0
    closing: int = 0


class UdpStat(Struct, frozen=True, gc=False, rename="pascal"):
    """Keys capitalised."""

    listen: int = 0
    dropped: int = 0
    rx_queued: int = 0
    tx_queued: int = 0


_TCP_ADVANCED: Final = """
RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs
OutRsts InCsumErrors EmbryonicRsts SyncookiesSent SyncookiesRecv SyncookiesFailed PruneCalled RcvPruned OfoPruned OutOfWindowIcmps
LockDroppedIcmps TW TWRecycled TWKilled TCPTimeWaitOverflow TCPTimeouts TCPSpuriousRTOs TCPLossProbes TCPLossProbeRecovery
TCPRenoRecoveryFail TCPSackRecoveryFail TCPRenoFailures TCPSackFailures TCPLossFailures DelayedACKs DelayedACKLocked DelayedACKLost
ListenOverflows ListenDrops TCPHPHits TCPPureAcks TCPHPAcks TCPRenoRecovery TCPSackRecovery TCPSACKReneging TCPFACKReorder
TCPSACKReorder TCPRenoReorder TCPTSReorder TCPFullUndo TCPPartialUndo TCPDSACKUndo TCPLossUndo TCPFastRetrans TCPSlowStartRetrans
TCPLostRetransmit TCPRetransFail TCPRcvCollapsed TCPDSACKOldSent TCPDSACKOfoSent TCPDSACKRecv TCPDSACKOfoRecv TCPAbortOnData
TCPAbortOnClose TCPAbortOnMemory TCPAbortOnTimeout TCPAbortOnLinger TCPAbortFailed TCPMemoryPressures TCPMemoryPressuresChrono
TCPSACKDiscard TCPDSACKIgnoredOld TCPDSACKIgnoredNoUndo TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPSackShifted TCPSackMerged
TCPSackShiftFallback TCPBacklogDrop PFMemallocDrop TCPMinTTLDrop TCPDeferAcceptDrop IPReversePathFilter TCPReqQFullDoCookies
TCPReqQFullDrop TCPFastOpenActive TCPFastOpenActiveFail TCPFastOpenPassive TCPFastOpenPassiveFail TCPFastOpenListenOverflow
TCPFastOpenCookieReqd TCPSynRetrans TCPOrigDataSent PAWSActive PAWSEstab
"""

if TYPE_CHECKING:

    class TcpAdvancedStat(Struct, frozen=True):
        """The kernel's TCP counters (snmp, netstat), one field for each key above; always 0 here."""

else:
    TcpAdvancedStat = defstruct(
        "TcpAdvancedStat", [(key, int, 0) for key in _TCP_ADVANCED.split()], module=__name__, frozen=True, gc=False
    )

NO_TCP: Final = TcpStat()
NO_UDP: Final = UdpStat()
NO_TCP_ADVANCED: Final = TcpAdvancedStat()


class NetworkStats(InterfaceStats, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The first interface's counters, then all of them."""

    interfaces: list[InterfaceStats] = []
    tcp: TcpStat
    tcp6: TcpStat
    udp: UdpStat
    udp6: UdpStat
    tcp_advanced: TcpAdvancedStat


class FsStats(Struct, frozen=True, gc=False, kw_only=True):
    """A file system: bytes and milliseconds. Of a container, `usage` is what it takes, `base_usage` its writable layer alone,
    `inodes` how many it uses."""

    device: str
    type: str
    capacity: int
    usage: int
    base_usage: int
    available: int
    has_inodes: bool
    inodes: int
    inodes_free: int
    reads_completed: int
    reads_merged: int
    sectors_read: int
    read_time: int
    writes_completed: int
    writes_merged: int
    sectors_written: int
    write_time: int
    io_in_progress: int
    io_time: int
    weighted_io_time: int


class LoadStats(Struct, frozen=True, gc=False):
    nr_sleeping: int
    nr_running: int
    nr_stopped: int
    nr_uninterruptible: int
    nr_io_wait: int


class ProcessStats(Struct, frozen=True, gc=False, omit_defaults=True):
    """`threads_max`: the limit, left out when there is none."""

    process_count: int
    fd_count: int
    socket_count: int
    threads_current: int = 0
    threads_max: int = 0


class Resctrl(Struct, frozen=True, gc=False):
    """Always `{}`."""


class Cpuset(Struct, frozen=True, gc=False):
    memory_migrate: int


class Health(Struct, frozen=True, gc=False):
    status: str


class ContainerStats(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One sample. Counters are cumulative."""

    timestamp: str
    cpu: CpuStats
    diskio: DiskIo
    memory: MemoryStats
    network: NetworkStats | None = None
    filesystem: list[FsStats] = []
    task_stats: LoadStats
    processes: ProcessStats
    resctrl: Resctrl
    cpuset: Cpuset
    oom_events: int = 0
    health: Health


class ContainerInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container: reference, direct subcontainers, limits, samples (the oldest first)."""

    id: str = ""
    name: str
    aliases: list[str] = []
    namespace: str = ""
    subcontainers: list[ContainerReference] = []
    spec: ContainerSpec
    stats: list[ContainerStats] = []


# events


class OomEventData(Struct, frozen=True):
    """`constraint`: the kernel's word, CONSTRAINT_MEMCG and so on, "" when it is not known."""

    pid: int
    process_name: str
    constraint: str


class DeletionEventData(Struct, frozen=True):
    """`exit_code`: -1 when it is not known."""

    exit_code: int


class EventData(Struct, frozen=True, omit_defaults=True):
    oom: OomEventData | None = None
    container_deletion: DeletionEventData | None = None


class Event(Struct, frozen=True):
    """`event_type`: oom, oomKill, containerCreation or containerDeletion."""

    container_name: str
    timestamp: str
    event_type: str
    event_data: EventData


NO_SPEC: Final = ContainerSpec(
    creation_time=ZERO_TIME, start_time=ZERO_TIME, has_cpu=False, cpu=NO_CPU_LIMIT, has_memory=False, memory=NO_MEMORY_LIMIT,
    has_hugetlb=False, has_network=False, has_processes=False, processes=ProcessSpec(), has_filesystem=False, has_diskio=False,
    has_custom_metrics=False,
)  # fmt: skip
"""Of a folder that is not watched itself."""
