"""What differs from cAdvisor on purpose, and why: the record of it. What no row names must not differ.

A row is checked against what was found, so it hides exactly what it says. Rows that nothing matches are not wrong: which
files there are depends on the kernel and the cgroup version.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from tests.compare.fields import glob
from tests.compare.tree import Difference


@dataclass(frozen=True, slots=True)
class Expected:
    """Differences at paths like this (`*` is any run of characters), of these kinds (separated by `|`, "" is any)."""

    path: str
    kinds: str
    reason: str

    def fits(self, difference: Difference) -> bool:
        """Whether the difference is one of these."""
        return (not self.kinds or difference.kind in self.kinds.split("|")) and _compiled(self.path).fullmatch(
            difference.path
        ) is not None


@functools.cache
def _compiled(path: str) -> re.Pattern[str]:
    return glob(path)


_PER_CPU: Final = (
    "usage per CPU is not read: on cgroup v1 a file as long as the machine has CPUs for each container, and v2 has none"
)
_KERNEL: Final = "memory.kmem is deprecated in the kernel and not read: 0, as cAdvisor itself says on cgroup v2"
_PSI: Final = "of pressure, total and avg10 are kept: the longer averages follow from total"
_OPERATIONS: Final = "bytes and operations are kept as read and written: Sync, Async, Discard and Total are other views of the same"
_PROCESSES: Final = "processes and threads are always counted; cAdvisor has them behind a flag"
_LABELS: Final = "labels are told by an allow-list"
_ENVS: Final = "environment variables are never told: they hold secrets"
_DOCKER_VERSION: Final = "which Docker runs is told; cAdvisor left these empty"
_VERSION: Final = "the version is ours"
_OWN: Final = "about the agent itself, which is another program"
_GO: Final = "about the Go runtime, which is not there"
_SUBTREE: Final = "on v1, faults and refaults are counted over the cgroup and all below it, as every other number is; cAdvisor takes the cgroup's own"
_NOT_GIVEN: Final = "what the kernel did not give is no series, and not 0"
_NOT_READ: Final = "not read: zero in cAdvisor, too, unless its load reader is turned on"
_NO_LIMIT: Final = "no limit is the machine's capacity, or left out; cAdvisor tells cgroup v1's largest number"
_BORN: Final = "the kernel does not tell when a cgroup was made: said only where it was seen, or its runtime knows"
_MASK: Final = "the CPUs it may run on are told; cAdvisor leaves them out unless its cpuset metrics are on"
_NETWORK: Final = "a container has the counters of a network of its own; the host's network is the root's"
_INTERFACES: Final = "ifb devices mirror the traffic of others"
_FILESYSTEMS: Final = "file systems on block devices; tmpfs and overlays take memory, or the room of another one"
_LAYER: Final = (
    "of a container, what it takes of a file system, and when that was measured; cAdvisor repeats the whole disk's counters in each"
)
_MEASURED: Final = "file systems are measured less often than samples are taken: said of the newest one"
_DISK_SECONDS: Final = "seconds of disks are seconds; cAdvisor divides milliseconds by 1e9"
_NUMBERED: Final = "a device without a known name is told apart by its number"
_HEALTH: Final = "health checks are not told"
_NOW: Final = "facts are as of the scrape: a time of their own would make them stale"
_MAINFRAME: Final = "books and drawers (s390x) and non-volatile memory (libipmctl) are not read"
_TOPOLOGY: Final = "caches and nodes are told; cAdvisor has them behind a flag"
_STATUS: Final = "what does not exist is 404, what makes no sense 400, with the same text; cAdvisor says 500 to all"
_METHODS: Final = "nothing can be changed, so GET, HEAD and the documented POST are all"
_REDIRECTS: Final = "paths are answered, or refused, where they are"
_ZRAM: Final = "compressed memory is no disk"
_PANIC: Final = "a negative number is refused; cAdvisor panics and closes the connection"

EXPECTED: Final = (
    # samples
    Expected("*.cpu.usage.per_cpu_usage", "only theirs", _PER_CPU),
    Expected("*.cpu_inst.usage.per_cpu_usage", "only theirs", _PER_CPU),
    Expected('/metrics container_cpu_usage_seconds_total{cpu="cpu*"}', "only theirs", _PER_CPU),
    Expected('/metrics container_cpu_usage_seconds_total{cpu="total"}', "only ours", _PER_CPU),
    Expected("*.memory.kernel", "only theirs|value", _KERNEL),
    Expected("/metrics container_memory_kernel_usage*", "only theirs|value", _KERNEL),
    Expected("*.psi.*.avg60", "only theirs|value", _PSI),
    Expected("*.psi.*.avg300", "only theirs|value", _PSI),
    Expected("*.diskio.*.stats.Sync", "only theirs", _OPERATIONS),
    Expected("*.diskio.*.stats.Async", "only theirs", _OPERATIONS),
    Expected("*.diskio.*.stats.Discard", "only theirs", _OPERATIONS),
    Expected("*.diskio.*.stats.Total", "only theirs", _OPERATIONS),
    Expected('/metrics container_blkio_device_usage_total{*operation="Async"*}', "only theirs", _OPERATIONS),
    Expected('/metrics container_blkio_device_usage_total{*operation="Sync"*}', "only theirs", _OPERATIONS),
    Expected('/metrics container_blkio_device_usage_total{*operation="Discard"*}', "only theirs", _OPERATIONS),
    Expected('/metrics container_blkio_device_usage_total{*operation="Total"*}', "only theirs", _OPERATIONS),
    Expected("*.processes", "only ours", _PROCESSES),
    Expected("*.processes.process_count", "value", _PROCESSES),
    Expected("*.processes.threads_current", "only ours|value", _PROCESSES),
    Expected("*.processes.threads_max", "only ours|value", _PROCESSES),
    Expected("*.has_processes", "value", _PROCESSES),
    Expected("*.spec.processes.limit", "only ours", _PROCESSES),
    Expected("SpecV2.processes.limit", "only ours", _PROCESSES),
    Expected("/metrics container_processes", "only ours", _PROCESSES),
    Expected("/metrics container_threads", "only ours", _PROCESSES),
    Expected("/metrics container_threads_max", "only ours", _PROCESSES),
    Expected("*.memory.*_data.pg*fault", "value", _SUBTREE),
    Expected("*.memory.workingset_refault_*", "value", _SUBTREE),
    Expected("/metrics container_memory_failures_total{*", "value", _SUBTREE),
    Expected("/metrics container_memory_workingset_refault_*", "value", _SUBTREE),
    Expected("/metrics container_cpu_*er_seconds_total", "only theirs", _NOT_GIVEN),
    Expected("/metrics container_cpu_system_seconds_total", "only theirs", _NOT_GIVEN),
    Expected("/metrics container_memory_events_*_total", "only theirs", _NOT_GIVEN),
    Expected("/metrics container_memory_pg*_total", "only theirs", _NOT_GIVEN),
    Expected("/metrics container_pressure_*", "only theirs", _NOT_GIVEN),
    Expected("Summary.*_usage.cpu.present", "value", _NOT_GIVEN),
    Expected("/metrics container_cpu_load_*average_10s", "only theirs", _NOT_READ),
    Expected("/metrics container_tasks_state", "only theirs", _NOT_READ),
    Expected("*.health.status", "value", _HEALTH),
    Expected("/metrics container_health_state", "only theirs", _HEALTH),
    # networks
    Expected("*.has_network", "value", _NETWORK),
    Expected("*.network", "only theirs|only ours", _NETWORK),
    Expected("*.network.interfaces", "only theirs", _NETWORK),
    Expected("*.network.interfaces[]", "only theirs", _INTERFACES),
    Expected("*.network.name", "value", _INTERFACES),
    Expected("*.network.*x_*", "value", _INTERFACES),
    Expected('/metrics container_network_*{interface="ifb*"}', "only theirs", _INTERFACES),
    Expected("/metrics container_network_*", "only theirs|only ours", _NETWORK),
    Expected("*.network_devices[]", "only theirs", _INTERFACES),
    # file systems and disks
    Expected("*.filesystems[]", "only theirs", _FILESYSTEMS),
    Expected("Storage[]", "only theirs", _FILESYSTEMS),
    Expected("*.filesystem", "only theirs", _MEASURED),
    Expected("*.filesystem[]", "only theirs", _FILESYSTEMS),
    *(
        Expected(f"*.filesystem[].{field}", "value", _LAYER)
        for field in ("*s_completed", "*s_merged", "sectors_*", "*_time", "io_in_progress")
    ),
    *(
        Expected(f"/metrics container_fs_{name}{{*", kinds, reason)
        for name, kinds, reason in (
            ("*_seconds_total", "value", _DISK_SECONDS),
            ("*_bytes", "timestamp", _LAYER),
            ("*", "only theirs|label", _FILESYSTEMS),
        )
    ),
    Expected('/metrics container_fs_*{device="*:*"}', "only ours", _NUMBERED),
    Expected("/metrics container_fs_*", "only theirs", _NUMBERED),
    Expected('/metrics container_blkio_device_usage_total{device="*:*",*}', "only ours", _NUMBERED),
    Expected("/metrics container_blkio_device_usage_total{major=*}", "only theirs", _NUMBERED),
    Expected("*.disk_map.*", "only theirs", _ZRAM),
    # what a container is
    Expected("*.memory.limit", "value", _NO_LIMIT),
    Expected("*.memory.swap_limit", "only theirs|value", _NO_LIMIT),
    Expected("*.memory.reservation", "only theirs|value", _NO_LIMIT),
    Expected("*.cpu.mask", "only ours", _MASK),
    Expected("*.creation_time", "value", _BORN),
    Expected("Event.timestamp", "value", _BORN),
    Expected("Events[]", "only ours", _BORN),
    Expected("/metrics container_creation_time_seconds", "only theirs", _BORN),
    Expected("/metrics container_start_time_seconds", "only theirs", _BORN),
    Expected("/metrics container_oom_events_total", "timestamp", _NOW),
    Expected("/metrics machine_*{*", "timestamp", _NOW),
    Expected("/metrics machine_cpu_books", "only theirs", _MAINFRAME),
    Expected("/metrics machine_cpu_drawers", "only theirs", _MAINFRAME),
    Expected("/metrics machine_nvm_*", "only theirs", _MAINFRAME),
    Expected("/metrics machine_cpu_cache_capacity_bytes", "only ours", _TOPOLOGY),
    Expected("/metrics machine_node_*", "only ours", _TOPOLOGY),
    Expected("Processes[]", "only ours", "of a cgroup in any hierarchy; cAdvisor looks in that of the CPU alone"),
    Expected("*.labels", "only theirs", _LABELS),
    Expected("*.labels.*", "only theirs", _LABELS),
    Expected("/metrics *{container_label_*}", "label", _LABELS),
    Expected("*.envs", "only theirs", _ENVS),
    Expected("*.envs.*", "only theirs", _ENVS),
    Expected("/metrics *{container_env_*}", "label", _ENVS),
    # what is asked
    Expected("refusal *", "status", _STATUS),
    Expected("/api/v9/machine", "status", _STATUS),
    Expected("ContainerByName", "status", _STATUS),
    Expected("Container", "status", _METHODS),
    Expected("/api", "status", _REDIRECTS),
    Expected("/api/*//*", "status", _REDIRECTS),
    Expected("/validate", "status", _REDIRECTS),
    Expected("/metrics content-type", "header", "names need no escaping, so the scheme is not told"),
    Expected("SiblingsByPrefix[]", "only theirs", "the subcontainers of /a are below /a/; cAdvisor's are also those of /ab"),
    Expected(
        "EventsSinceUnixTime[]", "only theirs", "start_time and end_time are understood as Unix time too, as cAdvisor documents"
    ),
    Expected('refusal of the body {"num_stats":-5}*', "status", _PANIC),
    Expected("refusal /api/v1.3/events?all_events=true&max_events=-5*", "status", _PANIC),
    Expected("JSON escapes", "body", "<, > and & are written as they are, which every JSON parser reads as the same"),
    # about the agent
    Expected("Version", "value", _VERSION),
    Expected("Attributes.cadvisor_version", "value", _VERSION),
    Expected("Attributes.docker_version", "value", _DOCKER_VERSION),
    Expected("Attributes.docker_api_version", "value", _DOCKER_VERSION),
    Expected("/metrics cadvisor_version_info*", "", _VERSION),
    Expected("/metrics process_*", "", _OWN),
    Expected("/metrics streamer_*", "only ours", _OWN),
    Expected("/metrics go_*", "only theirs", _GO),
)


def reason_of(difference: Difference) -> Expected | None:
    """The row that expects this difference."""
    return next((row for row in EXPECTED if row.fits(difference)), None)


# What no question here can show.
NOT_ASKED: Final = {
    "times in another zone than UTC": "cAdvisor writes its host's zone; UTC is the same instant, and what streams say",
    "max_events": "the newest events of the container that is asked about; cAdvisor cuts before it looks whose they are",
    "watchers of events": "each has a bounded queue and is told what it missed; cAdvisor waits for the slowest, and discovery with it",
    "OOM kills from before the start": "each kill is one event by its number in the kernel log; cAdvisor tells all in the log again at each start",
    "OOM kills that cAdvisor does not see": "host-wide kills, whole groups and reports that the kernel cut are told too, with the counters as second witness",
    "a container whose details are missing": "is told at once with what is known; cAdvisor leaves it out, or keeps it without a name",
    "samples": "Docker is asked when something happens to a container; cAdvisor asks it for each sample",
    "inotify at its limits": "is made up for by looking; cAdvisor does not start, or misses what overflowed",
}
