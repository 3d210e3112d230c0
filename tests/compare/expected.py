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
    # what a container is
    Expected("*.labels", "only theirs", _LABELS),
    Expected("*.labels.*", "only theirs", _LABELS),
    Expected("/metrics *{container_label_*}", "label", _LABELS),
    Expected("*.envs", "only theirs", _ENVS),
    Expected("*.envs.*", "only theirs", _ENVS),
    Expected("/metrics *{container_env_*}", "label", _ENVS),
    # what is asked
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
