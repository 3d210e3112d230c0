"""WHAT THE HOST TOLD US: the vocabulary between sources and the manager. Past participles, facts only, no decisions.

`time_ns` is wall clock, ns since 1970: when the fact happened, as exactly as the source knows.
A cgroup is named by `path` (below the hierarchy's mount, `/docker/<id>`) and told apart from an earlier one of the
same name by `inode` (the directory's, unique within boot and hierarchy).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from streamer.model.machine import HostFacts
from streamer.model.spec import ContainerSpec
from streamer.model.stats import Sample


class Appeared(Struct, frozen=True):
    """A cgroup is there.

    found  `live`: it was made while we watched; `startup`: it was there when we first looked; `reconciled`: a later
           scan found it
    """

    path: str
    hierarchy: str
    inode: int
    time_ns: int
    found: Literal["live", "startup", "reconciled"]
    spec: ContainerSpec


class Joined(Struct, frozen=True):
    """A process was seen in a cgroup that was new or empty before. `pid` 0: in a cgroup below it."""

    path: str
    inode: int
    time_ns: int
    pid: int


class SpecRead(Struct, frozen=True):
    """The limits of a cgroup were read again."""

    path: str
    inode: int
    time_ns: int
    spec: ContainerSpec


class Sampled(Struct, frozen=True, gc=False):
    """A regular look at a cgroup."""

    path: str
    inode: int
    sample: Sample


class Emptied(Struct, frozen=True):
    """The last process of a cgroup ended and this was read right after: exact totals, if nothing joins it again."""

    path: str
    inode: int
    sample: Sample


class Vanished(Struct, frozen=True):
    """A cgroup's directory is gone.

    not_before_ns  0 when seen as it happened; otherwise a scan missed it, and it was last known to be there then
    """

    path: str
    inode: int
    time_ns: int
    not_before_ns: int = 0


class Surveyed(Struct, frozen=True):
    """Everything that was there at the start has been told: what was there in an earlier run and was not told has ended."""

    time_ns: int


class OomKilled(Struct, frozen=True):
    """The kernel log told of a process ended by the OOM killer. Kernel names; `seq` is the log record's number.

    killed_cgroup  of the process (`task_memcg`); "" when the kernel did not say
    limit_cgroup   whose limit was hit (`oom_memcg`); "" for a global kill or when not said
    repeated       the kernel told of this very kill before, and counts it again too: with memory.oom.group the first
                   victim is printed, and counted in memory.events, once more among its group
    """

    seq: int
    time_ns: int
    pid: int
    process: str
    killed_cgroup: str = ""
    limit_cgroup: str = ""
    constraint: Literal["memcg", "global", "cpuset", "mempolicy", ""] = ""
    uid: int | None = None
    total_vm_bytes: int | None = None
    anon_rss_bytes: int | None = None
    file_rss_bytes: int | None = None
    shmem_rss_bytes: int | None = None
    oom_score_adj: int | None = None
    memory_limit_bytes: int | None = None
    repeated: bool = False


class Described(Struct, frozen=True, kw_only=True):
    """What a runtime knows of a container, all at once. None: it did not say."""

    runtime: str
    container_id: str
    time_ns: int
    name: str
    image: str
    image_id: str | None = None
    labels: dict[str, str] = {}
    created_at_ns: int | None = None
    started_at_ns: int | None = None
    pid: int = 0
    state: str | None = None  # running, paused, exited, … in the runtime's words
    exit_code: int | None = None
    oom_killed: bool | None = None
    restart_count: int | None = None
    network_shared: bool = False  # its network namespace is the host's or another container's


class RuntimeEvent(Struct, frozen=True, kw_only=True):
    """A runtime's own word on a container. `action` in Docker's terms: create, start, die, oom, pause, rename, …

    `listed` is not an event: the container stood in a list, and this is what the list said of it.
    """

    runtime: str
    action: str
    container_id: str
    time_ns: int
    name: str | None = None
    image: str | None = None
    labels: dict[str, str] | None = None
    exit_code: int | None = None


class Degraded(Struct, frozen=True):
    """A part cannot do all of its work. `component`: `source.docker`, `sink.kafka`, … ; said once until it recovers."""

    component: str
    time_ns: int
    reason: str
    remedy: str = ""


class Recovered(Struct, frozen=True):
    """A degraded part works again."""

    component: str
    time_ns: int


class Lost(Struct, frozen=True):
    """Facts were lost or could not be observed. `count` None: not knowable.

    component     which source or sink
    first, last   what is missing, in the terms of that component (kernel-log sequence, topic seq, RFC 3339 time)
    topic         the topic whose `seq` has the hole, where messages (not facts) were dropped; no `last`: all from `first` on
    epoch         of that `seq`; 0: the present run's
    """

    component: str
    time_ns: int
    reason: str
    count: int | None = None
    first: str = ""
    last: str = ""
    topic: str = ""
    epoch: int = 0


class HostDescribed(Struct, frozen=True):
    """Machine and version facts were read."""

    time_ns: int
    facts: HostFacts


Observation = (
    Appeared
    | Joined
    | SpecRead
    | Sampled
    | Emptied
    | Vanished
    | Surveyed
    | OomKilled
    | Described
    | RuntimeEvent
    | Degraded
    | Recovered
    | Lost
    | HostDescribed
)
