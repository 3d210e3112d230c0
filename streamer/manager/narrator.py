"""Turns what the fleet decided into numbered records. Pure: the same calls give the same records.

`seq` is given out here, in the order in which things are said, contiguous per topic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import UNSET

from streamer.clock import rfc3339
from streamer.manager.container import NOTHING_SAID, TOTALS, Container, completed
from streamer.model import messages as m
from streamer.model import observations as o
from streamer.model.messages import Message
from streamer.model.stats import INDEX, Sample

MS: Final = 1_000_000
_STATS: Final = m.STATS.suffix
_Record = TypeVar("_Record", bound=m.Record)


class Now(NamedTuple):
    """Both clocks at one instant, ns."""

    wall_ns: int
    monotonic_ns: int


class Host(NamedTuple):
    """What identifies this agent's messages. `epoch`: ms since 1970 at the start of this run."""

    name: str
    id: str
    boot_id: str
    epoch: int
    version: str


class Narrator:
    """Says things about containers and about the stream; each method returns messages ready to publish."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.boot = host.boot_id.replace("-", "")[:16]
        self._seq = {topic.suffix: 0 for topic in m.TOPICS}
        self._same = {topic.suffix: (topic.schema, host.epoch, host.name, host.id) for topic in m.TOPICS}

    def high_water(self) -> dict[str, int]:
        """The last `seq` given out, by topic; the compacted topic makes no promise."""
        return {suffix: seq for suffix, seq in self._seq.items() if seq and suffix != m.STATE.suffix}

    def created(self, container: Container, now: Now) -> list[Message]:
        started = container.details.started_at_ns
        time_ns = started if container.found == "startup" and started else container.seen_ns
        record = _make(
            m.ContainerLifecycle, *self._head(m.LIFECYCLE, f"{container.incarnation}/created", time_ns, now), *container.about,
            event="created", found=container.found, state=container.state, **container.lifecycle_fields(),
        )  # fmt: skip
        return [self._message(m.LIFECYCLE, container, record), self._state(container, now)]

    def updated(self, container: Container, changed: list[str], time_ns: int, now: Now) -> list[Message]:
        id_ = f"{container.incarnation}/updated/{time_ns}/{'+'.join(changed)}"
        record = _make(
            m.ContainerLifecycle, *self._head(m.LIFECYCLE, id_, time_ns, now), *container.about,
            event="updated", found="live", changed=changed, state=container.state, **container.lifecycle_fields(),
        )  # fmt: skip
        return [self._message(m.LIFECYCLE, container, record), self._state(container, now)]

    def deleted(self, container: Container, now: Now, *, last: bool = True) -> list[Message]:
        """`last`: no other incarnation of this container is there, whose state the tombstone would hide."""
        started = container.started_ns()
        unseen = container.not_before_ns
        record = _make(
            m.ContainerLifecycle, *self._head(m.LIFECYCLE, f"{container.incarnation}/deleted", container.vanished_ns, now), *container.about,
            event="deleted",
            found="reconciled" if unseen else "live",
            not_before=rfc3339(unseen) if unseen else UNSET,
            exit_code=_or_unset(container.exit_code),
            oom_killed=container.oom_kills() > 0 and container.exit_code in (None, 137),
            lifetime_ms=max(0, container.vanished_ns - started) // MS if started else UNSET,
            samples=container.samples,
            oom_kills=container.oom_kills(),
            **{**container.lifecycle_fields(), **_totals(container)},
        )  # fmt: skip
        tombstone = Message(m.STATE, self._key(m.STATE, container), None, container.vanished_ns // MS)
        return [self._message(m.LIFECYCLE, container, record), *([tombstone] if last else [])]

    def stats(self, container: Container, sample: Sample, now: Now) -> Message:
        about, devices, time_ns = container.about, sample.devices, sample.time_ns
        values, network = container.steady(sample), container.network(sample)
        id_ = f"{container.incarnation}/stats/{time_ns}"
        before, values_before, network_before, devices_before, about_before = container.said_last
        if (
            values is values_before and network is network_before and devices is devices_before and about is about_before
            and not sample.filesystems
        ):  # fmt: skip  # as with most containers most of the time: nothing has changed, so nothing is made anew
            seq = self._seq[_STATS] = self._seq[_STATS] + 1
            again = m.Again(before, id_, seq, rfc3339(time_ns), time_ns, now.wall_ns // MS)
            return Message(m.STATS, container.owner.container_id, again, time_ns // MS)
        record = _make(
            m.ContainerStats, *self._head(m.STATS, id_, time_ns, now), *about, *values, *network,
            list(devices) if devices else UNSET, list(sample.filesystems) if sample.filesystems else UNSET,
        )  # fmt: skip
        container.said_last = NOTHING_SAID if sample.filesystems else (m.Steady(record), values, network, devices, about)
        return Message(m.STATS, container.owner.container_id, record, time_ns // MS)

    def oom(self, seen: o.OomKilled, about: tuple[Any, ...], memory_limit_bytes: int | None, now: Now) -> Message:
        """A kill that the kernel log told of."""
        return self._oom(
            f"{self.boot}/oom/{seen.seq}", seen.time_ns, about, now,
            killed_cgroup=seen.killed_cgroup or UNSET, limit_cgroup=seen.limit_cgroup or UNSET, constraint=seen.constraint or UNSET,
            pid=seen.pid, process=seen.process, uid=_or_unset(seen.uid),
            total_vm_bytes=_or_unset(seen.total_vm_bytes), anon_rss_bytes=_or_unset(seen.anon_rss_bytes),
            file_rss_bytes=_or_unset(seen.file_rss_bytes), shmem_rss_bytes=_or_unset(seen.shmem_rss_bytes),
            oom_score_adj=_or_unset(seen.oom_score_adj), memory_limit_bytes=_or_unset(seen.memory_limit_bytes or memory_limit_bytes),
            evidence=["kmsg"],
        )  # fmt: skip

    def counted_oom(self, container: Container, number: int, time_ns: int, now: Now) -> Message:
        """A kill that only the cgroup's counter shows: the `number`th of this incarnation."""
        return self._oom(
            f"{container.incarnation}/oom/{number}", time_ns, container.about, now,
            killed_cgroup=container.path, memory_limit_bytes=container.spec.memory_limit_bytes or UNSET, evidence=["memory.events"],
        )  # fmt: skip

    def host_info(self, seen: o.HostDescribed, now: Now) -> Message:
        fields = {name: getattr(seen.facts, name) for name in seen.facts.__struct_fields__}
        record = _make(
            m.HostInfo, *self._head(m.HOST, f"{self.host.id}/{self.host.epoch}/host/{seen.time_ns}", seen.time_ns, now), **fields
        )
        return Message(m.HOST, self.host.id, record, seen.time_ns // MS)

    def control(self, kind: str, now: Now, *, time_ns: int = 0, **fields: Any) -> Message:
        at = time_ns or now.wall_ns
        head = self._head(m.CONTROL, f"{self.host.id}/{self.host.epoch}/control/{self._seq[m.CONTROL.suffix] + 1}", at, now)
        return Message(m.CONTROL, self.host.id, _make(m.Control, *head, kind=kind, **fields), at // MS)

    def _state(self, container: Container, now: Now) -> Message:
        since = container.started_ns()
        record = _make(
            m.ContainerState, *self._head(m.STATE, f"{container.incarnation}/state/{now.wall_ns}", now.wall_ns, now), *container.about,
            state=container.state, since=rfc3339(since) if since else UNSET, pid=container.details.pid or UNSET, spec=container.spec,
            oom_kills=container.oom_kills(),
        )  # fmt: skip
        return self._message(m.STATE, container, record)

    def _oom(self, id_: str, time_ns: int, about: tuple[Any, ...], now: Now, **fields: Any) -> Message:
        record = _make(m.ContainerOom, *self._head(m.OOM, id_, time_ns, now), *about, **fields)
        return Message(m.OOM, about[0], record, time_ns // MS)

    def _head(self, topic: m.Topic, id_: str, time_ns: int, now: Now) -> tuple[Any, ...]:
        """The common fields of a record (`messages.Record`), with the next number of its topic."""
        suffix = topic.suffix
        seq = self._seq[suffix] = self._seq[suffix] + 1
        schema, epoch, name, host_id = self._same[suffix]
        return suffix, schema, id_, epoch, seq, name, host_id, rfc3339(time_ns), time_ns // MS, now.wall_ns // MS

    def _message(self, topic: m.Topic, container: Container, record: m.Record) -> Message:
        return Message(topic, self._key(topic, container), record, record.time_ms)

    def _key(self, topic: m.Topic, container: Container) -> str:
        container_id = container.owner.container_id
        return f"{self.host.id}/{container_id}" if topic.keyed_by == "host/container" else container_id


def _totals(container: Container) -> dict[str, Any]:
    """The final totals and how they were got; nothing when the container was never looked at.

    Network counters are those of the last sample in either case: the namespace ends with the last process.
    """
    end = container.emptied
    sample = container.read if end is None else completed(end, container.read)
    if sample is None:
        return {}
    # one that nobody saw may have been another end than the last that was read; without CPU time only some of its files were there
    exact = end is not None and end.get("cpu_usage_ns") is not UNSET and not container.not_before_ns
    values = container.steady(sample)
    network = container.network(sample)
    return {
        "totals_from": "exit" if exact else "last_sample",
        "totals_at_ms": sample.time_ns // MS,
        **{field: values[INDEX[column]] for field, column in TOTALS.items()},
        "total_network_rx_bytes": network[0],
        "total_network_tx_bytes": network[4],
    }


def _make(record: Callable[..., _Record], *in_order: Any, **by_name: Any) -> _Record:
    """Build a record from parts that a type checker cannot count."""
    return record(*in_order, **by_name)


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value
