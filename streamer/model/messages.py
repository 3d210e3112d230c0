"""WHAT WE SAY: one flat record per topic. `schemas/` is generated from these types; consumers rely on every name.

Evolution: fields are only added, always optional, never retyped or removed (`streamer schema check` holds this).
What is not known is absent: never null, never a made-up 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, cast, final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from streamer.model import stats
from streamer.model.machine import Disk, Filesystem, HugePages, MemoryModules, NetworkDevice, NumaNode
from streamer.model.spec import ContainerSpec
from streamer.model.stats import FilesystemUsage, IoDevice, NetworkInterface

Lane = Literal["durable", "stats"]


def _about(text: str, **extra: Any) -> Meta:
    return Meta(description=text, extra_json_schema=extra or None)


class Record(Struct, omit_defaults=True):
    """The fields that every record has, in this order."""

    type: Annotated[str, _about("Which record this is: `container.stats`, `container.lifecycle`, …")]
    schema: Annotated[str, _about("The record's type and schema version: `container.stats/1`.")]
    id: Annotated[str, _about("Stable id made from facts: the same fact has the same id after any replay or restart.")]
    epoch: Annotated[int, _about("One per run of the agent: its start, ms since 1970. Later runs have higher epochs.")]
    seq: Annotated[int, _about("Contiguous from 1 within an epoch and topic (the compacted state topic has no such promise).")]
    host: Annotated[str, _about("Host name.")]
    host_id: Annotated[str, _about("Machine id of the host.")]
    time: Annotated[str, _about("When the fact happened: RFC 3339, UTC, nanoseconds.", format="date-time")]
    time_ms: Annotated[int, _about("`time` in ms since 1970; also the Kafka record's timestamp.")]
    observed_time_ms: Annotated[int, _about("When the agent noticed, ms since 1970.")]


class AboutContainer(Record):
    """The fields of every record about a container."""

    container_id: Annotated[str, _about("The runtime's full id, or the cgroup path of a raw cgroup.")]
    incarnation: Annotated[
        str, _about("This run of the container: boot, hierarchy and inode of its cgroup. A restart is a new one.")
    ]
    runtime: Annotated[str, _about("docker, podman, containerd, crio, lxc, systemd-nspawn or raw.")]
    cgroup_path: Annotated[str, _about("Path of its cgroup below the hierarchy's mount.")]
    name: Annotated[str, _about("The runtime's name for it; a raw cgroup's path.")] | UnsetType = UNSET
    aliases: Annotated[list[str], _about("Other names it answers to.")] | UnsetType = UNSET
    image: Annotated[str, _about("Image reference it was made from.")] | UnsetType = UNSET
    image_id: Annotated[str, _about("Content id of the image.")] | UnsetType = UNSET
    labels: Annotated[dict[str, str], _about("Labels that the configuration's allow-list lets through.")] | UnsetType = UNSET
    pod: Annotated[str, _about("Kubernetes pod.")] | UnsetType = UNSET
    namespace: Annotated[str, _about("Kubernetes namespace.")] | UnsetType = UNSET
    compose_project: Annotated[str, _about("Compose project.")] | UnsetType = UNSET
    compose_service: Annotated[str, _about("Compose service.")] | UnsetType = UNSET


ABOUT_FIELDS: Final[tuple[str, ...]] = AboutContainer.__struct_fields__[len(Record.__struct_fields__) :]
"""What a record says about its container, in order: built once per container and put into every message of it."""


class ContainerLifecycle(AboutContainer, kw_only=True):
    """A container was created, changed or deleted."""

    event: Annotated[Literal["created", "updated", "deleted"], _about("What happened.")]
    found: (
        Annotated[
            Literal["live", "startup", "reconciled"],
            _about(
                "live: seen as it happened; startup: there when the agent first looked; reconciled: found to have happened earlier."
            ),
        ]
        | UnsetType
    ) = UNSET
    state: Annotated[str, _about("The runtime's word for its state: running, paused, …")] | UnsetType = UNSET
    changed: Annotated[list[str], _about("updated: the fields that are new or different.")] | UnsetType = UNSET
    created_at: (
        Annotated[
            str,
            _about(
                "When the runtime made the container; without a runtime: when it was seen to appear; of the root: at the boot. "
                "Absent for a cgroup without a runtime that was there already (`found` startup or reconciled): the kernel keeps no "
                "such time.",
                format="date-time",
            ),
        ]
        | UnsetType
    ) = UNSET
    started_at: Annotated[str, _about("When this incarnation was started.", format="date-time")] | UnsetType = UNSET
    pid: Annotated[int, _about("Its first process, in the agent's pid namespace.")] | UnsetType = UNSET
    restart_count: Annotated[int, _about("Restarts by the runtime's restart policy.")] | UnsetType = UNSET
    spec: Annotated[ContainerSpec, _about("Limits and shares.")] | UnsetType = UNSET
    not_before: (
        Annotated[str, _about("deleted, reconciled: the earliest it can have been (`time` is the latest).", format="date-time")]
        | UnsetType
    ) = UNSET
    exit_code: Annotated[int, _about("deleted: as the runtime reports it.")] | UnsetType = UNSET
    oom_killed: Annotated[bool, _about("deleted: the OOM killer ended it.")] | UnsetType = UNSET
    lifetime_ms: Annotated[int, _about("deleted: from its start to its end.")] | UnsetType = UNSET
    totals_from: (
        Annotated[
            Literal["exit", "last_sample"], _about("deleted: totals read as the last process ended, or at the last look before it.")
        ]
        | UnsetType
    ) = UNSET
    totals_at_ms: (
        Annotated[int, _about("deleted: when the CPU time was read; a total that could not be read any more is the last that was.")]
        | UnsetType
    ) = UNSET
    total_cpu_usage_ns: Annotated[int, _about("deleted: CPU time used.", **{"x-unit": "ns"})] | UnsetType = UNSET
    total_cpu_throttled_ns: Annotated[int, _about("deleted: time held back by the CPU limit.", **{"x-unit": "ns"})] | UnsetType = (
        UNSET
    )
    memory_peak_bytes: Annotated[int, _about("deleted: highest memory usage.", **{"x-unit": "bytes"})] | UnsetType = UNSET
    total_io_read_bytes: Annotated[int, _about("deleted: bytes read.", **{"x-unit": "bytes"})] | UnsetType = UNSET
    total_io_write_bytes: Annotated[int, _about("deleted: bytes written.", **{"x-unit": "bytes"})] | UnsetType = UNSET
    total_network_rx_bytes: Annotated[int, _about("deleted: bytes received.", **{"x-unit": "bytes"})] | UnsetType = UNSET
    total_network_tx_bytes: Annotated[int, _about("deleted: bytes sent.", **{"x-unit": "bytes"})] | UnsetType = UNSET
    samples: Annotated[int, _about("deleted: how often it was sampled.")] | UnsetType = UNSET
    oom_kills: Annotated[int, _about("deleted: processes the OOM killer ended in it.")] | UnsetType = UNSET


class ContainerOom(AboutContainer, kw_only=True):
    """The OOM killer ended one process. One message per process, whoever saw it."""

    killed_cgroup: Annotated[str, _about("Cgroup of the process (`task_memcg`).")] | UnsetType = UNSET
    limit_cgroup: (
        Annotated[str, _about("Cgroup whose limit was hit (`oom_memcg`); absent when the whole host was short.")] | UnsetType
    ) = UNSET
    constraint: Annotated[Literal["memcg", "global", "cpuset", "mempolicy"], _about("What was exhausted.")] | UnsetType = UNSET
    pid: Annotated[int, _about("Process id.")] | UnsetType = UNSET
    process: Annotated[str, _about("Process name (comm, at most 15 characters).")] | UnsetType = UNSET
    uid: Annotated[int, _about("User id of the process.")] | UnsetType = UNSET
    total_vm_bytes: Annotated[int, _about("Its address space.")] | UnsetType = UNSET
    anon_rss_bytes: Annotated[int, _about("Its resident anonymous memory.")] | UnsetType = UNSET
    file_rss_bytes: Annotated[int, _about("Its resident file memory.")] | UnsetType = UNSET
    shmem_rss_bytes: Annotated[int, _about("Its resident shared memory.")] | UnsetType = UNSET
    oom_score_adj: Annotated[int, _about("Its OOM score adjustment.")] | UnsetType = UNSET
    memory_limit_bytes: Annotated[int, _about("The limit that was hit.")] | UnsetType = UNSET
    evidence: Annotated[list[Literal["kmsg", "memory.events", "docker"]], _about("Which witnesses saw it.")]


class ContainerState(AboutContainer, kw_only=True):
    """The present state of a container, for the compacted topic; deleted containers leave a null value (tombstone)."""

    state: Annotated[str, _about("running, paused, …")]
    since: Annotated[str, _about("Start of this incarnation, as far as known.", format="date-time")] | UnsetType = UNSET
    pid: Annotated[int, _about("Its first process.")] | UnsetType = UNSET
    spec: Annotated[ContainerSpec, _about("Limits and shares.")] | UnsetType = UNSET
    oom_kills: Annotated[int, _about("Processes the OOM killer ended in it.")] | UnsetType = UNSET


class HostInfo(Record, kw_only=True):
    """Machine and version facts: at start, on change, every hour."""

    boot_id: Annotated[str, _about("Id of this boot.")]
    boot_time_ms: Annotated[int, _about("Start of this boot, ms since 1970.")]
    kernel_version: Annotated[str, _about("Kernel release.")]
    os: Annotated[str, _about("Distribution, as the host's os-release names it.")]
    architecture: Annotated[str, _about("Machine architecture.")]
    cgroup_mode: Annotated[str, _about("v1, v2 or hybrid.")]
    num_cores: Annotated[int, _about("Logical CPUs.")]
    num_physical_cores: Annotated[int, _about("Physical cores.")] | UnsetType = UNSET
    num_sockets: Annotated[int, _about("CPU sockets.")] | UnsetType = UNSET
    cpu_frequency_khz: Annotated[int, _about("Highest CPU frequency.")] | UnsetType = UNSET
    cpu_vendor: Annotated[str, _about("CPU vendor.")] | UnsetType = UNSET
    cpu_model: Annotated[str, _about("CPU model.")] | UnsetType = UNSET
    memory_capacity_bytes: Annotated[int, _about("Memory of the host.")]
    swap_capacity_bytes: Annotated[int, _about("Swap of the host.")]
    system_uuid: Annotated[str, _about("Hardware uuid.")] | UnsetType = UNSET
    machine_id: Annotated[str, _about("/etc/machine-id of the host.")] | UnsetType = UNSET
    docker_version: Annotated[str, _about("Docker Engine version.")] | UnsetType = UNSET
    docker_api_version: Annotated[str, _about("Docker API version in use.")] | UnsetType = UNSET
    streamer_version: Annotated[str, _about("Version of this agent.")]
    filesystems: Annotated[
        list[Filesystem], _about("Mounted block-device file systems; of more than 1000 those that were mounted first.")
    ] = []
    disks: Annotated[list[Disk], _about("Block devices.")] = []
    network_devices: Annotated[list[NetworkDevice], _about("Network devices.")] = []
    huge_pages: Annotated[list[HugePages], _about("Huge pages set aside, by size.")] = []
    memory_modules: Annotated[list[MemoryModules], _about("Memory modules (DIMM), by kind, where the kernel's EDAC tells.")] = []
    topology: Annotated[list[NumaNode], _about("NUMA nodes with their cores and caches.")] = []
    cloud_provider: Annotated[str, _about("Cloud the host runs in, as its firmware says: AWS, Azure, GCE, …")] | UnsetType = UNSET
    instance_type: Annotated[str, _about("Kind of cloud instance, as the firmware says.")] | UnsetType = UNSET
    instance_id: Annotated[str, _about("Id of the cloud instance, as the firmware says.")] | UnsetType = UNSET


class Control(Record, kw_only=True):
    """What a consumer must know about the stream itself."""

    kind: Annotated[Literal["started", "stopped", "heartbeat", "gap", "degraded", "recovered"], _about("What is said.")]
    component: Annotated[str, _about("The part it is about: source.docker, sink.kafka, …")] | UnsetType = UNSET
    reason: Annotated[str, _about("Why.")] | UnsetType = UNSET
    remedy: Annotated[str, _about("degraded: what to do about it.")] | UnsetType = UNSET
    version: Annotated[str, _about("started: the agent's version.")] | UnsetType = UNSET
    containers: Annotated[int, _about("heartbeat: containers known now.")] | UnsetType = UNSET
    high_water: Annotated[dict[str, int], _about("heartbeat, stopped: last `seq` given out, by topic.")] | UnsetType = UNSET
    gap_topic: Annotated[str, _about("gap: the topic whose `seq` has the hole.")] | UnsetType = UNSET
    gap_epoch: Annotated[int, _about("gap: the epoch of that `seq`, when it is an earlier run's.")] | UnsetType = UNSET
    gap_first: (
        Annotated[str, _about("gap: where it begins, in the component's terms (topic seq, kernel-log sequence, time).")] | UnsetType
    ) = UNSET
    gap_last: Annotated[str, _about("gap: where it ends; absent with a `gap_topic`: at the end of that epoch.")] | UnsetType = UNSET
    gap_count: Annotated[int, _about("gap: how many are missing; absent when that cannot be known.")] | UnsetType = UNSET


def _stats_record() -> type[Struct]:
    """`ContainerStats` is the common fields and one field per row of `model/stats.py`."""
    fields: list[tuple[str, Any, Any]] = [
        (
            row.name,
            Annotated[row.number, _about(row.help, **{"x-unit": row.unit, "x-kind": row.kind})] | UnsetType,
            UNSET,
        )
        for row in stats.STATS
    ]
    fields += [
        (
            f"network_{suffix}",
            Annotated[int, _about(f"Network {suffix.replace('_', ' ')}, all interfaces.", **{"x-kind": "counter"})] | UnsetType,
            UNSET,
        )
        for suffix, _ in stats.NETWORK
    ]
    fields.append(
        (
            "network_interfaces",
            Annotated[list[NetworkInterface], _about("The same per interface.")] | UnsetType,
            UNSET,
        )
    )
    fields.append(
        (
            "io_devices",
            Annotated[
                list[IoDevice],
                _about(
                    "Block I/O by device; of more than 1000 those with the lowest numbers. The `io_` columns are the sums over all."
                ),
            ]
            | UnsetType,
            UNSET,
        )
    )
    fields.append(
        (
            "filesystems",
            Annotated[
                list[FilesystemUsage],
                _about("File systems, in the sample after they were measured; of more than 1000 those that were mounted first."),
            ]
            | UnsetType,
            UNSET,
        )
    )
    return msgspec.defstruct(
        "ContainerStats",
        fields,
        bases=(AboutContainer,),
        module=__name__,
        namespace={"__doc__": "One sample of a container. Counters are cumulative and never reset within an incarnation."},
        omit_defaults=True,
        gc=False,
    )


ContainerStats: Final = cast(type[AboutContainer], _stats_record())


class Steady(Struct, gc=False):
    """What the samples of a container say for as long as nothing changes in it.

    record  the first of them
    json    the record's JSON before and behind what differs from one to the next; worked out once, by `wire`
    """

    record: AboutContainer
    json: tuple[str, bytes] | None = None


@final
class Again(Struct, frozen=True, gc=False):
    """A `ContainerStats` that says what an earlier one of its run said, at another time: kept apart because most are that.

    On the wire and for consumers it is a record like any other.
    """

    of: Steady
    id: str
    seq: int
    time: str
    time_ns: int
    observed_time_ms: int

    def whole(self) -> AboutContainer:
        """The record."""
        return structs.replace(
            self.of.record,
            id=self.id,
            seq=self.seq,
            time=self.time,
            time_ms=self.time_ns // 1_000_000,
            observed_time_ms=self.observed_time_ms,
        )


class Topic(NamedTuple):
    """A stream of one record type.

    short     its last word: Redis stream key and `--type` filters
    suffix    what follows the prefix in the topic's name
    record    its type
    version   of the record's schema
    lane      `durable`: kept until acknowledged; `stats`: bounded, the oldest go first
    keyed_by  the Kafka key
    compacted the topic holds the latest value per key only
    """

    short: str
    suffix: str
    record: type[Record]
    version: int
    lane: Lane
    keyed_by: Literal["container", "host/container", "host"]
    compacted: bool = False

    @property
    def type(self) -> str:
        return self.suffix

    @property
    def schema(self) -> str:
        return f"{self.suffix}/{self.version}"


LIFECYCLE: Final = Topic("lifecycle", "container.lifecycle", ContainerLifecycle, 1, "durable", "container")
OOM: Final = Topic("oom", "container.oom", ContainerOom, 1, "durable", "container")
STATS: Final = Topic("stats", "container.stats", ContainerStats, 1, "stats", "container")
STATE: Final = Topic("state", "container.state", ContainerState, 1, "durable", "host/container", compacted=True)
HOST: Final = Topic("host", "host.info", HostInfo, 1, "durable", "host")
CONTROL: Final = Topic("control", "control", Control, 1, "durable", "host")

TOPICS: Final[tuple[Topic, ...]] = (LIFECYCLE, OOM, STATS, STATE, HOST, CONTROL)


class Message(NamedTuple):
    """One thing to say: which topic, under which key, and the record (None: the tombstone of a compacted topic)."""

    topic: Topic
    key: str
    record: Record | Again | None
    time_ms: int

    @property
    def whole(self) -> Record | None:
        """The record, made whole if it says something again."""
        return self.record.whole() if type(self.record) is Again else self.record
