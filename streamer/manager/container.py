"""What the fleet knows of one incarnation of a container, and how that becomes the fields of a message. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from msgspec import UNSET, structs

from streamer.clock import rfc3339
from streamer.contracts import Look
from streamer.model import stats
from streamer.model.messages import ABOUT_FIELDS
from streamer.model.observations import Described, OomKilled
from streamer.model.runtimes import Owner
from streamer.model.spec import ContainerSpec
from streamer.model.stats import NetworkInterface, Sample


class LabelFilter(NamedTuple):
    """Which labels go into messages. Patterns are names; a trailing `*` matches any ending."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()

    def pick(self, labels: dict[str, str]) -> dict[str, str]:
        return {name: text for name, text in labels.items() if _matches(name, self.allow) and not _matches(name, self.deny)}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)


class Details(NamedTuple):
    """What a runtime told about a container id, over all incarnations. None: not told."""

    name: str | None = None
    image: str | None = None
    image_id: str | None = None
    labels: dict[str, str] | None = None
    created_at_ns: int | None = None
    started_at_ns: int | None = None
    pid: int = 0
    restart_count: int | None = None
    network_shared: bool = False
    state: str | None = None

    def described(self, told: Described) -> Details:
        """Merge a full description: it replaces what was known, except where it is silent."""
        return Details(
            name=told.name or self.name,
            image=told.image or self.image,
            image_id=told.image_id or self.image_id,
            labels=told.labels,
            created_at_ns=told.created_at_ns or self.created_at_ns,
            started_at_ns=told.started_at_ns,
            pid=told.pid,
            restart_count=told.restart_count if told.restart_count is not None else self.restart_count,
            network_shared=told.network_shared,
            state=told.state or self.state,
        )


UNKNOWN: Final = Details()

_COUNTERS: Final = tuple(i for i, row in enumerate(stats.STATS) if row.kind == "counter")
_counters_of: Final = operator.itemgetter(*_COUNTERS)
_NETWORK_SUFFIXES: Final = tuple(suffix for suffix, _ in stats.NETWORK)
_network_counters: Final = operator.attrgetter(*_NETWORK_SUFFIXES)
NOTHING_SAID: Final[tuple[Any, ...]] = (None,) * 5
"""Of the sample that was told last: what others may repeat of it, and its values, network, devices and `about`."""

_NO_NETWORK: Final = (UNSET,) * (len(stats.NETWORK) + 1)


def about(whose: Owner, path: str, incarnation: str, known: Details, labels: LabelFilter) -> tuple[Any, ...]:
    """The values of `messages.ABOUT_FIELDS`: what every message says about its container."""
    told = known.labels or {}
    return (
        whose.container_id,
        incarnation,
        whose.runtime,
        path,
        known.name or (path if whose.runtime == "raw" else UNSET),
        [known.name, whose.container_id] if known.name else UNSET,
        known.image or UNSET,
        known.image_id or UNSET,
        labels.pick(told) or UNSET,
        told.get("io.kubernetes.pod.name", UNSET),
        told.get("io.kubernetes.pod.namespace", UNSET),
        told.get("com.docker.compose.project", UNSET),
        told.get("com.docker.compose.service", UNSET),
    )


class Container:
    """One incarnation: from the appearance of its cgroup to its `deleted`."""

    __slots__ = (
        "_absent", "_columns", "_floor", "_getter", "_highest", "_look", "_net_floor", "_network", "_steady", "about", "alive_ns", "details", "emptied", "exit_code", "found", "hierarchy",
        "hold_until", "incarnation", "inode", "joined_pid", "last", "not_before_ns", "oom_check_at", "oom_counted",
        "oom_repeated", "oom_said", "oom_start", "oom_unlogged", "oom_unlogged_ns", "owner", "path", "read", "restored", "said", "said_created", "said_last", "samples", "seen_ns", "settle_at", "spec",
        "state", "vanished_ns", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        *,
        path: str,
        hierarchy: str,
        inode: int,
        incarnation: str,
        owner: Owner,
        found: str,
        seen_ns: int,
        spec: ContainerSpec,
    ) -> None:
        self.path, self.hierarchy, self.inode, self.incarnation = path, hierarchy, inode, incarnation
        self.owner, self.found, self.seen_ns, self.spec = owner, found, seen_ns, spec
        self.details = UNKNOWN
        self.state = "running"
        self.about: tuple[Any, ...] = ()
        self.said: dict[str, Any] = {}  # what consumers were last told, to tell what changed
        self.said_created = False
        self.said_last = NOTHING_SAID
        self.restored = False  # known from an earlier run, and not seen by this one yet
        self.alive_ns = 0  # that run knew it to be there at this time
        self.hold_until = 0  # monotonic ns; `created` or `deleted` waits for the runtime's word until then
        self.settle_at = 0  # monotonic ns; details that trickle in are said together then
        self.waiting: list[Sample | OomKilled] = []  # what may only be said after `created`
        self.vanished_ns = 0
        self.not_before_ns = 0
        self.exit_code: int | None = None
        self._look: Look | None = None
        self.joined_pid = 0  # the first process seen in a raw cgroup
        self.emptied: Sample | None = None
        self.last: Sample | None = None
        self.read: Sample | None = None  # the same, completed: of each total the last that was read
        self.samples = 0
        self.oom_said = 0  # kills that the kernel log told of
        self.oom_repeated = 0  # of these, how many it told of twice
        self.oom_start: int | None = 0 if found == "live" else None  # the kernel's counter when we first looked
        self.oom_counted = 0  # kills since then, by the kernel's counter
        self.oom_unlogged = 0  # kills that were said on the counter's word alone, and which the log may yet tell of
        self.oom_unlogged_ns = 0  # wall clock: when that was said last
        self.oom_check_at = 0  # monotonic ns; then kills that only the counter saw are said
        # the counters that are there, the highest that was seen of each, and the same of those that were
        self._absent = -1  # counters that are not there
        self._columns: tuple[int, ...] = ()
        self._getter: Callable[[tuple[Any, ...]], tuple[int, ...]] = tuple
        self._floor: tuple[int, ...] = ()
        self._highest: dict[int, int] = {}
        self._net_floor: dict[str, tuple[int, ...]] = {}
        # readers hand out the very same tuple while nothing changes: what followed from it follows again
        self._steady: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        self._network: tuple[tuple[NetworkInterface, ...], tuple[Any, ...]] = ((), _NO_NETWORK)

    def ended(self) -> None:
        """Its `deleted` is said: let go of all that a late record of the kernel log does not ask for, three quarters of its bytes."""
        self.said.clear()
        self.last = self.read = self.emptied = None
        self._columns, self._getter, self._floor = (), tuple, ()
        self._highest.clear()
        self._net_floor.clear()
        self._steady, self._network = ((), ()), ((), _NO_NETWORK)
        self.said_last, self._look = NOTHING_SAID, None

    def __repr__(self) -> str:
        return f"<Container {self.incarnation} {self.path} said_created={self.said_created} vanished={bool(self.vanished_ns)}>"

    # who it is

    def begin(self, known: Details, boot_time_ns: int) -> None:
        """Take over what is known of its id. A raw cgroup was created when it was seen to appear, the root at the boot (0: not known)."""
        if self.found == "live":
            # what was known of an earlier run's process does not hold for a cgroup that was made just now
            known = known._replace(pid=0, started_at_ns=None, state=None)
        if known.state in ("running", "paused"):
            self.state = known.state
        if self.owner.runtime == "raw":
            # never by the times of its directory: they are those of an inode that the kernel drops and makes anew
            known = known._replace(
                created_at_ns=self.seen_ns if self.found == "live" else boot_time_ns or None if self.path == "/" else None
            )
        self.details = known

    def hear(self, told: Details, patience_ns: int) -> None:
        """Take over name, image and labels. An end that waits for a runtime's word waits longer once that does speak of it."""
        if self.vanished_ns and self.details.name is None and told.name:
            self.hold_until += patience_ns
        self.details = self.details._replace(name=told.name, image=told.image, labels=told.labels)

    def identify(self, labels: LabelFilter) -> None:
        """Work out the fields that every message about it carries."""
        self.about = about(self.owner, self.path, self.incarnation, self.details, labels)

    def lifecycle_fields(self) -> dict[str, Any]:
        """What a lifecycle message says beyond who it is, whatever happened."""
        known = self.details
        return {
            "created_at": rfc3339(known.created_at_ns) if known.created_at_ns else UNSET,
            "started_at": rfc3339(known.started_at_ns) if known.started_at_ns else UNSET,
            "pid": known.pid or UNSET,
            "restart_count": UNSET if known.restart_count is None else known.restart_count,
            "spec": self.spec,
        }

    def comparable(self) -> dict[str, Any]:
        """What `updated` compares: everything said of it but its counters."""
        return {**dict(zip(ABOUT_FIELDS, self.about, strict=True)), "state": self.state, **self.lifecycle_fields()}

    def started_ns(self) -> int:
        """When this incarnation began, 0 when not known."""
        return self.details.started_at_ns or (self.seen_ns if self.found == "live" else 0)

    def deadlines(self) -> Iterator[int]:
        """Monotonic ns: what it waits for."""
        if not self.said_created or self.vanished_ns:
            yield self.hold_until
        if self.settle_at:
            yield self.settle_at
        if self.oom_check_at:
            yield self.oom_check_at

    # what was measured

    def look(self) -> Look:
        """The wish for a sample of it; the very same one until its process is another."""
        look, pid = self._look, self.network_pid()
        if look is None or look.pid != pid:
            look = self._look = Look(self.path, self.hierarchy, self.inode, pid)
        return look

    def network_pid(self) -> int:
        """A process in its network namespace, or 0 when that is known to be shared or no process is known."""
        return 0 if self.details.network_shared else self.details.pid or self.joined_pid

    def steady(self, sample: Sample) -> tuple[Any, ...]:
        """The columns of a sample for a message: counters held so that they never run backwards.

        The kernel's own counters step back by a little when CPU time is shared out again between user and system, and
        by a lot when a block device leaves; the highest value seen stands until it is passed.
        """
        if sample.values is not self._steady[0]:
            self._steady = sample.values, self._held(sample.values)
        return self._steady[1]

    def _held(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if _counters_of(values).count(UNSET) != self._absent:
            return self._held_anew(values)
        try:
            now = self._getter(values)
            if not any(map(operator.lt, now, self._floor)):
                self._floor = now
                return values
            self._floor = tuple(map(max, now, self._floor))
        except TypeError:  # as many are absent, but others
            return self._held_anew(values)
        return self._with_floor(values)

    def _held_anew(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """A file came or went: the columns present are not the ones of last time. What those had that went holds when they return."""
        self._highest.update(zip(self._columns, self._floor, strict=True))
        columns = self._columns = tuple([i for i in _COUNTERS if values[i] is not UNSET])
        self._absent = len(_COUNTERS) - len(columns)
        self._getter = operator.itemgetter(*columns) if len(columns) > 1 else lambda row: tuple([row[i] for i in columns])
        self._floor = tuple([max(values[i], self._highest.get(i, 0)) for i in columns])
        return self._with_floor(values)

    def _with_floor(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        held = list(values)
        for column, number in zip(self._columns, self._floor, strict=True):
            held[column] = number
        return tuple(held)

    def network(self, sample: Sample) -> tuple[Any, ...]:
        """Network columns, summed over the interfaces that are and that were there, then the list of those that are."""
        if sample.interfaces is not self._network[0]:
            self._network = sample.interfaces, self._summed(sample)
        return self._network[1]

    def _summed(self, sample: Sample) -> tuple[Any, ...]:
        if not sample.interfaces:
            if not self._net_floor:
                return _NO_NETWORK
            return (*map(sum, zip(*self._net_floor.values(), strict=True)), UNSET)
        floor = self._net_floor
        for interface in sample.interfaces:
            counters = _network_counters(interface)
            before = floor.get(interface.name)
            floor[interface.name] = counters if before is None else tuple(map(max, counters, before))
        return (*map(sum, zip(*floor.values(), strict=True)), list(sample.interfaces))

    def take(self, sample: Sample) -> None:
        """Remember a sample as the last look, and count it."""
        before, self.last = self.last, sample
        self.samples += 1
        if before is not None and before.values is sample.values:
            if self.read is before:
                self.read = sample
            elif self.read is not None and sample.values[_CPU] is not UNSET:  # completed, and still so
                self.read = structs.replace(self.read, time_ns=sample.time_ns)
            return
        end = self.emptied
        if end is not None and end.time_ns < sample.time_ns and _moved(sample, end):
            self.ran_on()  # in a cgroup below
        self.read = completed(sample, self.read)
        self.count_kills(sample)

    def ran_on(self) -> None:
        """The end that was seen was none: what was read at it is as any look, and no sample has more so far."""
        if self.emptied is not None:
            self.read = completed(self.emptied, self.read)
        self.emptied = None

    def count_kills(self, sample: Sample) -> None:
        """Keep the kernel's count of OOM kills since we first looked; kills from before are not ours to tell."""
        kills = sample.values[_OOM_KILLS]
        if kills is UNSET:
            return
        if self.oom_start is None:
            self.oom_start = kills - self.oom_said
        self.oom_counted = max(self.oom_counted, kills - self.oom_start)

    def oom_kills(self) -> int:
        """Processes of this incarnation that the OOM killer ended, by whichever witness saw more."""
        return max(self.oom_said, self.oom_counted) - self.oom_repeated

    def idle(self, sample: Sample) -> bool:
        """Whether nothing happened since the last look: no CPU time, I/O or change of memory."""
        before = self.last
        if before is None or before.values is sample.values:
            return before is not None
        return all(sample.values[i] == before.values[i] for i in _BUSY)


def completed(sample: Sample, before: Sample | None) -> Sample:
    """The sample, with the totals that it lacks as they were read before; the very same one where it lacks none that was there.

    On v1 a runtime removes a container's directories one after the other: a look in between finds some of its files only. It has
    the time at which its CPU time was read.
    """
    if before is None or UNSET not in _totals_of(sample.values):
        return sample
    lost = [column for column in _TOTALS if sample.values[column] is UNSET and before.values[column] is not UNSET]
    if not lost:
        return sample
    values = list(sample.values)
    for column in lost:
        values[column] = before.values[column]
    return structs.replace(sample, values=tuple(values), time_ns=before.time_ns if _CPU in lost else sample.time_ns)


def _moved(sample: Sample, end: Sample) -> bool:
    """Whether CPU time was used since; where one of them does not have it, whether another total has grown that both have.

    I/O alone is no sign: on v2 what is written back late is booked on a cgroup whose last process has ended.
    """
    pairs = list(zip(_totals_of(end.values), _totals_of(sample.values), strict=True))
    cpu = pairs[_CPU_OF_TOTALS]
    return any(then is not UNSET and now is not UNSET and now > then for then, now in ([cpu] if UNSET not in cpu else pairs))


TOTALS: Final = {
    # field of `deleted` -> column of the sample it is taken from
    "total_cpu_usage_ns": "cpu_usage_ns",
    "total_cpu_throttled_ns": "cpu_throttled_ns",
    "memory_peak_bytes": "memory_peak_bytes",
    "total_io_read_bytes": "io_read_bytes",
    "total_io_write_bytes": "io_write_bytes",
}

_TOTALS: Final = tuple(stats.INDEX[column] for column in TOTALS.values())
_totals_of: Final = operator.itemgetter(*_TOTALS)
_CPU_OF_TOTALS: Final = list(TOTALS.values()).index("cpu_usage_ns")
_CPU: Final = stats.INDEX["cpu_usage_ns"]
_OOM_KILLS: Final = stats.INDEX["memory_oom_kills"]
_BUSY: Final = tuple(stats.INDEX[name] for name in ("cpu_usage_ns", "memory_usage_bytes", "io_read_bytes", "io_write_bytes"))
