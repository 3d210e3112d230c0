"""What a value in cAdvisor's JSON is: a fact, a counter, a gauge or a time, and how far two honest readers of it may be apart.

A path begins with the type of what was asked for, so that the same object has the same paths wherever it is found:
`Container.stats[].cpu.usage.total` in `/containers`, `/subcontainers` and `/docker` of every v1. `[]` is an element of a list,
`.*` any key of a map whose keys are data (names of containers, labels, devices).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["fact", "counter", "gauge", "time", "any"]

MIB: Final = 1 << 20
LATE_SECONDS: Final = 5.0  # between the newest samples of two that sample every second or two
NO_TIME: Final = "0001-01-01T00:00:00Z"  # Go's zero time: not known


@dataclass(frozen=True, slots=True)
class Rule:
    """How a value is compared; times are in seconds.

    fact     equal
    counter  between the samples before and after it, one interval to spare on both sides, and `absolute` or `relative` (of the
             larger one)
    gauge    between the least and the largest of those samples, `absolute` or `relative` (of the larger one) to spare
    time     RFC 3339 in UTC with at most nanoseconds, `absolute` apart; whether it is known at all is a fact
    any      only its type: what it says depends on how long the one who is asked has been running

    `fraction`: a number that may have digits after its point. Anything else that Go reads into an integer must not.
    """

    kind: Kind = "fact"
    absolute: float = 0.0
    relative: float = 0.0
    fraction: bool = False


_FACT: Final = Rule()

# path -> the keys by which the elements of a list are told apart. All other lists have an order that means something.
KEYED: Final[dict[str, tuple[str, ...]]] = {
    "Containers": ("name",),
    "Container.subcontainers": ("name",),
    "*.filesystems": ("device",),
    "*.filesystem": ("device",),
    "*.network_devices": ("name",),
    "*.interfaces": ("name",),
    "*.hugepages": ("page_size",),
    "*.topology": ("node_id",),
    "*.cores": ("core_id",),
    "*.ulimits": ("name",),
    "*.diskio.*": ("major", "minor"),
    "SiblingsByPrefix": ("name",),
    "EventsSinceUnixTime": ("container_name", "event_type"),
    "Events": ("container_name", "event_type"),
    "EventsNewest": ("container_name", "event_type"),
    "Storage": ("device", "mountpoint"),
    "Storage[].labels": (),  # a set of words
    "Processes": ("pid",),
}

# What is in an answer that holds many of a type.
ELEMENTS: Final = {
    "Containers[]": "Container",
    "SiblingsByPrefix[]": "Container",
    "ContainerByName.*": "Container",
    "ContainerV2ByName.*": "ContainerV2",
    "SamplesV20ByName.*": "SamplesV20",
    "SpecV2ByName.*": "SpecV2",
    "SummaryByName.*": "Summary",
    "Events[]": "Event",
    "EventsNewest[]": "Event",
    "EventsSinceUnixTime[]": "Event",
}

# Objects that say which container they are about, and by which key; and maps whose keys are containers.
NAMES_ITS_CONTAINER: Final = {"Container": "name", "Event": "container_name"}
BY_CONTAINER: Final = ("ContainerByName", "ContainerV2ByName", "SamplesV20ByName", "SpecV2ByName", "SummaryByName")

# What of a sample is measured less often than samples are taken: compared between the newest ones.
SELDOM: Final = "filesystem"

# Maps whose keys are data.
NAMED: Final = (
    "*ByName", "AppMetrics*", "*.labels", "*.envs", "*.disk_map", "*.memory_by_type", "*.custom_metrics", "*.hugetlb", "*.numa_stats.*",
)  # fmt: skip

# Lists of samples, oldest first: aligned by their `timestamp`.
SAMPLES: Final = ("Container.stats", "ContainerV2.stats", "SamplesV20", "MachineStats")

_MEMORY: Final = Rule("gauge", absolute=2 * MIB, relative=0.1)
_RATE: Final = Rule("gauge", absolute=3e8, relative=0.5)  # nanocores: two readers' seconds do not begin together
_COUNTER: Final = Rule("counter")
_ANY: Final = Rule("any", fraction=True)

# The first row that fits decides; what no row fits is a fact.
_RULES: Final[tuple[tuple[str, Rule], ...]] = (
    ("*.spec.creation_time", Rule("time", absolute=1.5)),
    ("*.spec.start_time", Rule("time", absolute=1.5)),
    ("SpecV2.creation_time", Rule("time", absolute=1.5)),
    ("SpecV2.start_time", Rule("time", absolute=1.5)),
    ("*.spec.*", _FACT),
    ("SpecV2.*", _FACT),
    ("Summary.timestamp", Rule("time", absolute=LATE_SECONDS)),
    ("Summary.latest_usage.cpu", Rule("gauge", absolute=300)),
    ("Summary.latest_usage.memory", _MEMORY),
    ("Summary.*.present", _FACT),
    # Whole minutes since the start of the one who is asked, which are not the other's minutes: of the same order.
    ("Summary.minute_usage.memory.std", Rule("any")),
    ("Summary.minute_usage.memory.count", Rule("any")),
    ("Summary.minute_usage.memory.*", Rule("gauge", absolute=64 * MIB, relative=0.9)),
    ("Summary.minute_usage.cpu.std", Rule("any")),
    ("Summary.minute_usage.cpu.count", Rule("any")),
    ("Summary.minute_usage.cpu.*", Rule("gauge", absolute=500, relative=0.9)),
    ("Summary.*", Rule("any")),
    ("Event.timestamp", Rule("time", absolute=2.0)),
    ("Machine.timestamp", Rule("time", absolute=1e9)),  # when it was looked at
    ("*.timestamp", Rule("time", absolute=LATE_SECONDS)),
    ("Attributes.cpu_frequency_khz", Rule("gauge", relative=0.2)),  # from /proc/cpuinfo it is that of the moment
    ("Machine.cpu_frequency_khz", Rule("gauge", relative=0.2)),
    ("*.cpu_inst.*", _RATE),
    ("*.cpu.usage.user", Rule("counter", absolute=3e7)),  # told in ticks of 10 ms
    ("*.cpu.usage.system", Rule("counter", absolute=3e7)),
    ("*.cpu.usage.*", _COUNTER),
    ("*.cpu.cfs.*", _COUNTER),
    ("*.cpu.schedstat.*", _COUNTER),
    ("*.cpu.load_average", Rule("gauge", absolute=1000)),
    ("*.cpu.load_d_average", Rule("gauge", absolute=1000)),
    ("*.psi.*.total", _COUNTER),
    ("*.psi.*", Rule("gauge", absolute=5.0, fraction=True)),  # avg10, avg60, avg300: percent
    ("*.memory.failcnt", _COUNTER),
    ("*.memory.*_data.pg*", Rule("counter", absolute=50)),
    ("*.memory.pgscan", _COUNTER),
    ("*.memory.pgsteal", _COUNTER),
    ("*.memory.workingset_refault_*", _COUNTER),
    ("*.memory.events.*", _COUNTER),
    ("*.memory.*", _MEMORY),
    ("*.hugetlb.*.failcnt", _COUNTER),
    ("*.hugetlb.*", _MEMORY),
    ("*.diskio.io_queued[]*.stats.*", Rule("gauge", absolute=64)),
    ("*.diskio.*[].stats.*", _COUNTER),
    ("*.network.*tx_*", Rule("counter", absolute=2)),
    ("*.network.*rx_*", Rule("counter", absolute=2)),
    ("*.network.tcp*.*", Rule("gauge", absolute=20, relative=0.5)),
    ("*.network.udp*.*", Rule("gauge", absolute=20, relative=0.5)),
    ("*.filesystem[].capacity", _FACT),
    ("*.filesystem[].inodes", Rule("gauge", absolute=10)),
    ("*.filesystem[].has_inodes", _FACT),
    ("*.filesystem[].device", _FACT),
    ("*.filesystem[].type", _FACT),
    ("*.filesystem[].inodes_free", Rule("gauge", absolute=2000, relative=0.01)),
    ("*.filesystem[].*io_in_progress", Rule("gauge", absolute=64)),
    ("*.filesystem[].usage", Rule("gauge", absolute=64 * MIB, relative=0.01)),
    ("*.filesystem[].base_usage", Rule("gauge", absolute=64 * MIB, relative=0.01)),
    ("*.filesystem[].available", Rule("gauge", absolute=64 * MIB, relative=0.01)),
    ("*.filesystem[].*", Rule("counter", relative=0.01)),  # what a disk has done until some seconds ago
    ("*.filesystem.containter_inode_usage", Rule("gauge", absolute=10, relative=0.1)),
    ("*.filesystem.*", Rule("gauge", absolute=4 * MIB, relative=0.1)),
    ("*.task_stats.*", Rule("gauge", absolute=5, relative=0.2)),
    ("*.load_stats.*", Rule("gauge", absolute=5, relative=0.2)),
    ("*.processes.threads_max", _FACT),
    ("*.processes.ulimits[].*", _FACT),
    ("*.processes.*_count", Rule("gauge", absolute=10, relative=0.2)),
    ("*.processes.threads_current", Rule("gauge", absolute=10, relative=0.2)),
    ("*.referenced_memory", _MEMORY),
    ("*.oom_events", Rule("any")),  # since the start of the one who is asked
    ("Storage[].available", Rule("gauge", absolute=64 * MIB, relative=0.01)),
    ("Storage[].usage", Rule("gauge", absolute=64 * MIB, relative=0.01)),
    ("Storage[].inodes_free", Rule("gauge", absolute=2000, relative=0.01)),
    ("Processes[].rss", _MEMORY),
    ("Processes[].virtual_size", _MEMORY),
    ("Processes[].percent_*", _ANY),
    ("Processes[].running_time", _ANY),
    ("Processes[].status", _ANY),
    ("Processes[].psr", _ANY),
    ("Processes[].fd_count", Rule("gauge", absolute=5)),
)


def glob(pattern: str) -> re.Pattern[str]:
    """A pattern in which `*` is any run of characters, and nothing else is special."""
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")))


_COMPILED: Final = [(glob(pattern), rule) for pattern, rule in _RULES]
_KEYED: Final = [(glob(pattern), keys) for pattern, keys in KEYED.items()]
_NAMED: Final = [glob(pattern) for pattern in NAMED]


@functools.cache
def rule_of(path: str) -> Rule:
    """How the value at this path is compared."""
    return next((rule for pattern, rule in _COMPILED if pattern.fullmatch(path)), _FACT)


@functools.cache
def keys_of(path: str) -> tuple[str, ...] | None:
    """By which keys the elements of the list at this path are told apart; () by themselves; None where their order counts."""
    return next((keys for pattern, keys in _KEYED if pattern.fullmatch(path)), None)


@functools.cache
def is_named(path: str) -> bool:
    """Whether the keys of the object at this path are data."""
    return any(pattern.fullmatch(path) for pattern in _NAMED)
