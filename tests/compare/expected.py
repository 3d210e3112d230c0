"""What differs from cAdvisor on purpose, and why: the record of it. What no row names must not differ.

A row is checked against what was found, so it hides exactly what it says. Rows that nothing matches are not wrong: which
files there are depends on the kernel and the cgroup version.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.compare.fields import NO_TIME, glob
from tests.compare.questions import NOBODY
from tests.compare.setting import Setting
from tests.compare.tree import Difference, seconds_of

When = Callable[[Difference, Setting], bool]


@dataclass(frozen=True, slots=True)
class Expected:
    """Differences at paths like this (`*` is any run of characters), of these kinds (separated by `|`, "" is any).

    of    only of containers of these sorts (`setting.py`, separated by `|`); "" is any
    when  only where this holds of the two values
    """

    path: str
    kinds: str
    reason: str
    of: str = ""
    when: When | None = None

    def fits(self, difference: Difference, setting: Setting) -> bool:
        """Whether the difference is one of these."""
        return (
            (not self.kinds or difference.kind in self.kinds.split("|"))
            and _compiled(self.path).fullmatch(difference.path) is not None
            and (not self.of or setting.is_of(difference, self.of))
            and (self.when is None or self.when(difference, setting))
        )


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
_NO_LIMIT: Final = "no limit is the machine's capacity, or left out; cAdvisor tells the largest number of the cgroup version"
_BORN: Final = "the kernel does not tell when a cgroup was made: said only where it was seen, or its runtime knows"
_AGAIN: Final = "a container that is started again was created at its start; cAdvisor tells when Docker made it, however long ago"
_MASK: Final = "the CPUs it may run on are told; cAdvisor leaves them out unless its cpuset metrics are on"
_NETWORK: Final = "a container has the counters of a network of its own; the host's network is the root's"
_ALONE: Final = "a container in a network of its own without an interface has no network; cAdvisor tells one of zeros"
_INTERFACES: Final = "ifb devices mirror the traffic of others"
_FILESYSTEMS: Final = "file systems on block devices; tmpfs and overlays take memory, or the room of another one"
_LAYER: Final = (
    "of a container, what it takes of a file system, and when that was measured; cAdvisor repeats the whole disk's counters in each"
)
_DISK_SECONDS: Final = "seconds of disks are seconds; cAdvisor divides milliseconds by 1e9"
_NUMBERED: Final = "a device without a known name is told apart by its number"
_HEALTH: Final = "health checks are not told"
_NOW: Final = "facts are as of the scrape: a time of their own would make them stale"
_MAINFRAME: Final = "books and drawers (s390x) and non-volatile memory (libipmctl) are not read"
_TOPOLOGY: Final = "caches and nodes are told; cAdvisor has them behind a flag"
_NODE: Final = "a machine without NUMA nodes is node 0, with all memory; cAdvisor says node -1 without any"
_STATUS: Final = "what does not exist is 404, what makes no sense 400, with the same text; cAdvisor says 500 to all"
_DECODER: Final = "what is wrong with a body is said in the JSON decoder's words"
_SCRAPE: Final = "a scrape is answered whatever it is asked with"
_METHODS: Final = "nothing can be changed, so GET, HEAD and the documented POST are all"
_REDIRECTS: Final = "paths are answered, or refused, where they are"
_ZRAM: Final = "compressed memory is no disk"
_PANIC: Final = "a negative number is refused; cAdvisor panics and closes the connection"


_HIGHEST: Final = 2**63 // 4096 * 4096 - 4096
"""Of cgroup v1's limits, which have the size of a page."""
_MAX: Final = 2**64 - 1
"""cgroup v2's `max`."""
_SOON_SECONDS: Final = 2.0
_FOUND_SECONDS: Final = 5.0
_MOUNTED_SECONDS: Final = 60.0


def _statuses(ours: int, theirs: int) -> When:
    return lambda one, _: (one.ours, one.theirs) == (ours, theirs)


def _theirs(*values: object) -> When:
    return lambda one, _: one.theirs in values


def _ours(value: object) -> When:
    return lambda one, _: bool(one.ours == value)


def _told(difference: Difference) -> float:
    """Theirs, of a number that has bounds."""
    return float(str(difference.theirs).split()[0])


def _theirs_zero(one: Difference, _: Setting) -> bool:
    return _told(one) == 0


def _more(one: Difference, _: Setting) -> bool:
    return bool(one.ours > _told(one))


def _off_disk(one: Difference, setting: Setting) -> bool:
    """Theirs is a file system that is on no block device."""
    told = _label("device", one.path) if one.path.startswith("/metrics ") else str(one.theirs["device"])
    return not setting.is_on_disk(told)


def _label(name: str, path: str) -> str:
    found = re.search(f'{name}="([^"]*)"', path)
    return found[1] if found else ""


def _mirrors(one: Difference, _: Setting) -> bool:
    """Theirs is a device that mirrors another one, or begins with it."""
    name = one.theirs["name"] if isinstance(one.theirs, dict) else one.theirs
    return re.fullmatch(r"ifb\d+", str(name)) is not None


def _compressed(one: Difference, _: Setting) -> bool:
    return str(one.theirs["name"]).startswith("zram")


def _a_millionth(one: Difference, _: Setting) -> bool:
    """Theirs is ours, divided once more."""
    return 0.5 <= _told(one) * 1e6 / one.ours <= 2 if one.ours else False


def _of_the_whole_disk(one: Difference, setting: Setting) -> bool:
    return bool(one.theirs >= 0.99 * setting.disk_operations)


def _ours_number(one: Difference, _: Setting) -> bool:
    return one.theirs is None and re.fullmatch(r"\d+:\d+", str(one.ours)) is not None


def _all_cpus(one: Difference, _: Setting) -> bool:
    return re.fullmatch(r"0(-\d+)?", str(one.theirs)) is not None


def _first_word(one: Difference, _: Setting) -> bool:
    return bool(str(one.ours).split(" ")[0] == one.theirs)


def _same_beginning(one: Difference, _: Setting) -> bool:
    return all(str(text).startswith("unable to decode the json value: ") for text in (one.ours, one.theirs))


def _since_the_boot(one: Difference, _: Setting) -> bool:
    """Ours is the boot, theirs when /sys/fs/cgroup was mounted soon after."""
    return 0 <= seconds_of(one.theirs) - seconds_of(one.ours) <= _MOUNTED_SECONDS


def _at_its_start(one: Difference, setting: Setting) -> bool:
    """Ours is when Docker started it."""
    started = setting.started.get(one.whose)
    return started is not None and abs(seconds_of(one.ours) - started) <= _SOON_SECONDS


def _when_found(one: Difference, setting: Setting) -> bool:
    """Ours is when ours was started and looked around."""
    return 0 <= seconds_of(one.ours) - setting.began <= _FOUND_SECONDS


EXPECTED: Final = (
    # samples
    Expected("*.cpu.usage.per_cpu_usage", "only theirs", _PER_CPU),
    Expected("*.cpu_inst.usage.per_cpu_usage", "only theirs", _PER_CPU),
    Expected('/metrics container_cpu_usage_seconds_total{cpu="cpu*"}', "only theirs", _PER_CPU),
    Expected('/metrics container_cpu_usage_seconds_total{cpu="total"}', "only ours", _PER_CPU),
    Expected("*.memory.kernel", "only theirs", _KERNEL),
    Expected("*.memory.kernel", "value", _KERNEL, when=_ours(0)),
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
    Expected("*.memory.*_data.pg*fault", "value", _SUBTREE, of="parent", when=_more),
    Expected("*.memory.workingset_refault_*", "value", _SUBTREE, of="parent", when=_more),
    Expected("*.memory.file_dirty", "value", "cAdvisor reads it by cgroup v2's name alone: 0 on v1", when=_theirs_zero),
    Expected("/metrics container_memory_failures_total{*", "value", _SUBTREE, of="parent", when=_more),
    Expected("/metrics container_memory_workingset_refault_*", "value", _SUBTREE, of="parent", when=_more),
    Expected("/metrics container_cpu_user_seconds_total", "only theirs", _NOT_GIVEN, of="raw", when=_theirs(0)),
    Expected("/metrics container_cpu_system_seconds_total", "only theirs", _NOT_GIVEN, of="raw", when=_theirs(0)),
    Expected("/metrics container_memory_events_*_total", "only theirs", _NOT_GIVEN, when=_theirs(0)),
    Expected("/metrics container_memory_pg*_total", "only theirs", _NOT_GIVEN, when=_theirs(0)),
    Expected("/metrics container_memory_failcnt", "only theirs", _NOT_GIVEN, when=_theirs(0)),
    *(
        Expected(f"/metrics container_{name}", "only theirs", _NOT_GIVEN, of="root", when=_theirs(0))
        for name in ("memory_max_usage_bytes", "memory_swap", "spec_cpu_period", "spec_cpu_shares")
    ),
    Expected("/metrics machine_cpu_sockets", "only theirs", _NOT_GIVEN),
    Expected("/metrics container_pressure_*", "only theirs", _NOT_GIVEN, when=_theirs(0)),
    Expected("Summary.*_usage.cpu.present", "value", _NOT_GIVEN, of="raw", when=_theirs(True)),
    Expected("/metrics container_cpu_load_*average_10s", "only theirs", _NOT_READ, when=_theirs(0)),
    Expected("/metrics container_tasks_state*", "only theirs", _NOT_READ, when=_theirs(0)),
    Expected("*.health.status", "value", _HEALTH),
    Expected("/metrics container_health_state*", "only theirs", _HEALTH, of="docker"),
    Expected("/metrics container_health_state*", "only theirs", _HEALTH, of="root|raw", when=_theirs(-1)),
    # networks
    Expected("*.has_network", "value", _NETWORK, of="hosted", when=_theirs(True)),
    Expected("*.network", "only theirs", _NETWORK, of="hosted"),
    Expected("*.network.interfaces", "only theirs", _NETWORK, of="hosted"),
    Expected('/metrics container_network_*{interface="*"}', "only theirs", _NETWORK, of="hosted"),
    Expected("*.has_network", "value", _ALONE, of="alone", when=_theirs(True)),
    Expected("*.network", "only theirs", _ALONE, of="alone"),
    Expected("*.network.interfaces[]", "only theirs", _INTERFACES, when=_mirrors),
    Expected("*.network.name", "value", _INTERFACES, when=_mirrors),
    Expected('/metrics container_network_*{interface="ifb*"}', "only theirs", _INTERFACES),
    Expected("*.network_devices[]", "only theirs", _INTERFACES, when=_mirrors),
    # file systems and disks
    Expected("*.filesystems[]", "only theirs", _FILESYSTEMS, when=_off_disk),
    Expected("Storage[]", "only theirs", _FILESYSTEMS, when=_off_disk),
    Expected("*.filesystem[]", "only theirs", _FILESYSTEMS, of="root", when=_off_disk),
    Expected('/metrics container_fs_*{device="*"}', "only theirs", _FILESYSTEMS, of="root|diskless", when=_off_disk),
    Expected("*.filesystem", "only theirs", _FILESYSTEMS, of="diskless"),
    Expected("*.has_filesystem", "value", _FILESYSTEMS, of="diskless", when=_theirs(True)),
    *(
        Expected(f"*.filesystem[].{field}", "value", _LAYER, of="docker", when=_ours(0))
        for field in ("*s_completed", "*s_merged", "sectors_*", "*_time", "io_in_progress")
    ),
    *(
        row
        for name in (
            "inodes_free",
            "inodes_total",
            "io_current",
            "io_time_seconds_total",
            "io_time_weighted_seconds_total",
            "read_seconds_total",
            "reads_merged_total",
            "sector_reads_total",
            "sector_writes_total",
            "write_seconds_total",
            "writes_merged_total",
        )
        for row in (Expected(f'/metrics container_fs_{name}{{device="*"}}', "only theirs", _LAYER, of="docker"),)
    ),
    *(
        Expected(f'/metrics container_fs_{name}_total{{device="*"}}', "only theirs", _LAYER, of="docker", when=_of_the_whole_disk)
        for name in ("reads", "writes")
    ),
    *(
        Expected(f'/metrics container_fs_{name}_seconds_total{{device="*"}}', "value", _DISK_SECONDS, of="root", when=_a_millionth)
        for name in ("io_time", "io_time_weighted", "read", "write")
    ),
    Expected('/metrics container_fs_usage_bytes{device="*"}', "timestamp", _LAYER, of="docker|root"),
    Expected('/metrics container_fs_limit_bytes{device="*"}', "timestamp", _LAYER, of="docker|root"),
    Expected("/metrics container_fs_*{device}", "label", _NUMBERED, when=_ours_number),
    Expected("/metrics container_blkio_device_usage_total{device}", "label", _NUMBERED, when=_ours_number),
    Expected("*.disk_map.*", "only theirs", _ZRAM, when=_compressed),
    # what a container is
    Expected("*.memory.limit", "value", _NO_LIMIT, when=_theirs(_HIGHEST, _MAX)),
    Expected("*.memory.swap_limit", "only theirs", _NO_LIMIT, when=_theirs(_HIGHEST, _MAX)),
    Expected("*.memory.reservation", "only theirs", _NO_LIMIT, when=_theirs(_HIGHEST, _MAX)),
    Expected("*.processes.limit", "only theirs", _NO_LIMIT, when=_theirs(_MAX)),
    Expected("*.cpu.mask", "only ours", _MASK),
    Expected("*.cpu.mask", "only theirs", "without the cpuset controller nothing is told; cAdvisor says all CPUs", when=_all_cpus),
    Expected("*.vendor_id", "value", "the whole name; cAdvisor takes its first word", when=_first_word),
    Expected("*.topology[]", "only ours", _NODE, when=lambda one, _: one.ours["node_id"] == 0),
    Expected("*.topology[]", "only theirs", _NODE, when=lambda one, _: one.theirs["node_id"] == -1),
    Expected("Processes", "status", "cAdvisor has no answer where its `ps` fails", when=_statuses(200, 500)),
    Expected("*.creation_time", "value", _BORN, of="early", when=_ours(NO_TIME)),
    Expected("*.creation_time", "value", _BORN, of="root", when=_since_the_boot),
    Expected("Event.timestamp", "value", _BORN, of="early|there|root", when=_when_found),
    Expected("Event.timestamp", "value", _AGAIN, of="docker", when=_at_its_start),
    Expected("/metrics container_creation_time_seconds", "only theirs", _BORN, of="early"),
    Expected("/metrics container_start_time_seconds", "only theirs", _BORN, of="early"),
    Expected("/metrics container_oom_events_total", "timestamp", _NOW),
    Expected("/metrics machine_*{*", "timestamp", _NOW),
    Expected("/metrics machine_cpu_books", "only theirs", _MAINFRAME),
    Expected("/metrics machine_cpu_drawers", "only theirs", _MAINFRAME),
    Expected("/metrics machine_nvm_*", "only theirs", _MAINFRAME),
    Expected("/metrics machine_cpu_cache_capacity_bytes", "only ours", _TOPOLOGY),
    Expected("/metrics machine_node_*", "only ours", _TOPOLOGY),
    Expected("Processes[]", "only ours", "of a cgroup in any hierarchy; cAdvisor looks in that of the CPU alone", of="raw"),
    Expected("*.labels", "only theirs", _LABELS, of="docker"),
    Expected("*.labels.*", "only theirs", _LABELS, of="docker"),
    Expected("/metrics container_*{container_label_*}", "label", _LABELS, when=_theirs(True)),
    Expected("*.envs", "only theirs", _ENVS, of="docker"),
    Expected("*.envs.*", "only theirs", _ENVS, of="docker"),
    Expected("/metrics container_*{container_env_*}", "label", _ENVS, when=_theirs(True)),
    # what is asked
    *(
        Expected(path, "status", _STATUS, when=_statuses(404, 500))
        for path in (
            "/api/v9/machine",
            "refusal /api/v1.0/docker/",
            "refusal /api/v1.0/subcontainers/",
            "refusal /api/v1.1/docker/",
            "refusal /api/v1.2/events",
            "refusal /api/v1.3/spec/",
            "refusal /api/v1.3/version",
            "refusal /api/v1.3/containers/*",
            f"refusal /api/v1.3/subcontainers/{NOBODY}",
            f"refusal /api/v1.3/docker/{NOBODY}",
            "refusal of a prefix that several have",
            "refusal /api/v2.0/containers/",
            "refusal /api/v2.0/machinestats",
            "refusal /api/v2.1/nonsense",
            "refusal /api/v2.*/…?",
            "refusal /api/v2.*/…?recursive=true",
            "refusal /api/v2.*/…?type=docker",
            "refusal /api/v2.*/ps/…?type=docker&recursive=true",
            f"refusal /api/v2.*/storage?label={NOBODY}",
            f"refusal /api/v2.*/storage?uuid={NOBODY}",
        )
    ),
    *(
        Expected(path, "status", _STATUS, when=_statuses(400, 500))
        for path in (
            "refusal /api/v1.3/docker/a/b",
            "refusal /api/v1.3/events?stream=true&start_time=*",
            "refusal of the body *",
            "refusal /api/v2.*/…?type=nonsense",
            "refusal /api/v2.*/…?count=*",
            "refusal /api/v2.*/…?max_age=x",
            "refusal /api/v2.*/s*/…?type=docker&recursive=true",
            *(
                f"refusal /api/v2.*/{what}"
                for what in ("version?count=x", "attributes?max_age=1", "machine?type=x", "storage?count=x", "events?count=x")
            ),
            "ContainerByName",  # /docker/<name>/
        )
    ),
    Expected("refusal of the body *", "text", _DECODER, when=_same_beginning),
    Expected("Container", "status", _METHODS, when=_statuses(405, 200)),
    Expected("refusal /metrics?type=nonsense", "status", _SCRAPE, when=_statuses(200, 500)),
    Expected("refusal /metrics?max_age=x", "status", _SCRAPE, when=_statuses(200, 500)),
    Expected("/api", "status", _REDIRECTS, when=_statuses(301, 307)),
    Expected("/api/v1.3//machine", "status", _REDIRECTS, when=_statuses(400, 307)),
    Expected("/validate", "status", _REDIRECTS, when=_statuses(404, 307)),
    Expected(f"refusal /api/v1.3/containers/{NOBODY}/../*", "status", _REDIRECTS, when=_statuses(404, 307)),
    Expected("/metrics content-type", "header", "names need no escaping, so the scheme is not told"),
    Expected("SiblingsByPrefix[]", "only theirs", "the subcontainers of /a are below /a/; cAdvisor's are also those of /ab"),
    Expected(
        "EventsSinceUnixTime[]", "only theirs", "start_time and end_time are understood as Unix time too, as cAdvisor documents"
    ),
    Expected('refusal of the body {"num_stats":-5}*', "status", _PANIC, when=_statuses(400, 0)),
    Expected("refusal /api/v1.3/events?all_events=true&max_events=-5*", "status", _PANIC, when=_statuses(400, 0)),
    Expected(
        "EventsNewest[]",
        "only ours",
        "the newest of the container that is asked about; cAdvisor cuts before it looks whose they are",
    ),
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


def reason_of(difference: Difference, setting: Setting) -> Expected | None:
    """The row that expects this difference."""
    return next((row for row in EXPECTED if row.fits(difference, setting)), None)


# What no question here can show.
NOT_ASKED: Final = {
    "times in another zone than UTC": "cAdvisor writes its host's zone; UTC is the same instant, and what streams say",
    "max_events": "the newest events of the container that is asked about; cAdvisor cuts before it looks whose they are",
    "watchers of events": "each has a bounded queue, and for one that is too slow the stream ends; cAdvisor waits for the slowest, and discovery with it",
    "OOM kills from before the start": "each kill is one event by its number in the kernel log; cAdvisor tells all in the log again at each start",
    "OOM kills that cAdvisor does not see": "host-wide kills, whole groups and reports that the kernel cut are told too, with the counters as second witness",
    "a container whose details are missing": "is told at once with what is known; cAdvisor leaves it out, or keeps it without a name",
    "samples": "Docker is asked when something happens to a container; cAdvisor asks it for each sample",
    "inotify at its limits": "is made up for by looking; cAdvisor does not start, or misses what overflowed",
}
