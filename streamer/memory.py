"""Recent state, fed by messages alone: what the sidecar answers from. Pure: the time is that of the messages.

Because only messages come in, the same memory serves one host (fed by its manager) or many (fed by a stream):
everything is kept by host id.

Samples are kept as the bytes that went to the sinks, so a query joins bytes: nothing is encoded twice, and nothing is
copied that was not asked for. Every collection here has a bound; `bytes` says what the encoded part amounts to.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from streamer.model import messages as m
from streamer.model.messages import ABOUT_FIELDS, ContainerLifecycle, ContainerState, Message, Topic
from streamer.model.wire import Entry, record_bytes

ID_PREFIX_MIN: Final = 4
"""Shortest beginning of a container id that names a container; shorter ones are as good as typing errors."""

_encoder: Final = msgspec.json.Encoder()

_ABOUT: Final = frozenset(ABOUT_FIELDS)


def _own(record: type[m.AboutContainer], *without: str) -> tuple[str, ...]:
    """The fields of a record beyond those that every record about a container has."""
    return tuple(name for name in record.__struct_fields__ if name not in {*m.AboutContainer.__struct_fields__, *without})


_LIFECYCLE_FACTS: Final = _own(ContainerLifecycle, "event", "changed", "found", "oom_kills")
_STATE_FACTS: Final = _own(ContainerState, "oom_kills")


class Limits(NamedTuple):
    """How much is kept beside the samples of live containers.

    deleted        recently deleted containers
    deleted_ms     how long they stay visible
    deleted_bytes  of samples that they may hold on to
    events         of each kind: lifecycle, OOM, control
    event_bytes    of each kind; several kinds, so that a burst of short jobs cannot push out OOM kills and gaps
    """

    deleted: int = 1000
    deleted_ms: int = 600_000
    deleted_bytes: int = 16_000_000
    events: int = 5000
    event_bytes: int = 2_000_000


_LIMITS: Final = Limits()


class Event(NamedTuple):
    """Something that was said once.

    kind     created, updated, deleted; oom; started, stopped, gap, degraded, recovered
    subject  the container's id, or the host's
    value    the record as JSON
    """

    position: int
    topic: Topic
    kind: str
    id: str
    host_id: str
    subject: str
    time_ms: int
    value: bytes

    @property
    def size(self) -> int:
        return len(self.value) + 256  # 256: the tuple, its strings and its place


class Events:
    """The last events of one kind, each id once, the oldest first."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._by_id: OrderedDict[str, Event] = OrderedDict()
        self.bytes = 0

    def __iter__(self) -> Iterator[Event]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._by_id

    def latest(self, count: int) -> list[Event]:
        """The newest `count`, the oldest of them first."""
        newest = reversed(self._by_id.values())
        return [event for _, event in zip(range(count), newest)][::-1]  # noqa: B905  the shorter one counts

    def add(self, event: Event) -> None:
        self._by_id[event.id] = event
        self.bytes += event.size
        while len(self._by_id) > self._most or self.bytes > self._most_bytes:
            self.bytes -= self._by_id.popitem(last=False)[1].size


class Container:
    """What is known of one incarnation of a container, merged from its messages.

    facts        the field names and values of the messages, and `deleted`, `deleted_at`, `oom_kills`, `last_oom_at`
    samples      its last `ContainerStats` as JSON, the oldest first
    sample_bytes their sum
    """

    __slots__ = ("_encoded", "deleted_ms", "facts", "key", "last_sample_ms", "oom_told", "sample_bytes", "samples")

    def __init__(self, record: m.AboutContainer, samples: int) -> None:
        self.key = (record.host_id, record.container_id, record.incarnation)
        self.facts: dict[str, Any] = {"host": record.host, "host_id": record.host_id}
        self.samples: deque[bytes] = deque(maxlen=samples)
        self.sample_bytes = 0
        self.last_sample_ms = 0
        self.oom_told = 0
        self.deleted_ms = 0  # when `deleted` was remembered; 0 while it lives
        self._encoded = b""

    def __repr__(self) -> str:
        return f"<Container {self.key} samples={len(self.samples)} deleted={bool(self.deleted_ms)}>"

    @property
    def host_id(self) -> str:
        return self.key[0]

    @property
    def container_id(self) -> str:
        return self.key[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and aliases."""
        return (self.facts.get("name", ""), *self.facts.get("aliases", ()))

    @property
    def encoded(self) -> bytes:
        """`facts` as a JSON object; encoded again only after a change."""
        if not self._encoded:
            self._encoded = _encoder.encode(self.facts)
        return self._encoded

    def learn(self, **facts: Any) -> None:
        """Set facts; UNSET leaves what is known."""
        self.facts.update((name, value) for name, value in facts.items() if value is not UNSET)
        self._encoded = b""

    def identify(self, record: m.AboutContainer) -> None:
        """Take over who it is; every record says all of it, so what it leaves out is no longer so."""
        kept = {name: value for name, value in self.facts.items() if name not in _ABOUT}
        told = {name: getattr(record, name) for name in ABOUT_FIELDS}
        self.facts = {"host": record.host, "host_id": record.host_id, **{k: v for k, v in told.items() if v is not UNSET}, **kept}
        self._encoded = b""


class Stream(msgspec.Struct, omit_defaults=True):
    """How far one host's messages have come: its newest epoch, the last `seq` of each topic in it, its last heartbeat."""

    host: str
    host_id: str
    epoch: int
    high_water: dict[str, int]
    heartbeat_ms: int = 0


class Memory:
    """Recent state of one host or many. Not for threads: `remember` and queries run on the event loop."""

    def __init__(self, samples: int, limits: Limits = _LIMITS) -> None:
        """`samples`: how many are kept for each container."""
        self._samples_kept = samples
        self._limits = limits
        self._containers: dict[tuple[str, str], Container] = {}  # by host id and incarnation
        self._deleted: OrderedDict[tuple[str, str], Container] = OrderedDict()  # those of them, the longest gone first
        self._deleted_bytes = 0
        self._ordered: list[Container] | None = None
        self._sample_bytes = 0
        self._events = {topic.short: Events(limits.events, limits.event_bytes) for topic in (m.LIFECYCLE, m.OOM, m.CONTROL)}
        self.hosts: dict[str, bytes] = {}
        """The latest `HostInfo` of each host as JSON, by host id."""
        self.streams: dict[str, Stream] = {}
        self.ignored = 0
        """Messages not taken in: repeated ones, and samples older than the newest or of a deleted container."""
        self._rules: dict[str, Callable[[Any, Entry], None]] = {
            m.LIFECYCLE.short: self._lifecycle,
            m.OOM.short: self._oom,
            m.STATS.short: self._stats,
            m.STATE.short: self._state,
            m.HOST.short: self._host,
            m.CONTROL.short: self._control,
        }

    # being told

    def remember(self, message: Message, entry: Entry) -> None:
        """Take in one message with its encoded form; the same message twice is fine."""
        record = message.record
        if record is not None:  # a tombstone says what `deleted` has said already
            self._advance(message.topic, record)
            self._rules[message.topic.short](record, entry)
        self._expire(entry.order_ms)

    def _advance(self, topic: Topic, record: m.Record) -> None:
        stream = self.streams.get(record.host_id)
        if stream is None or record.epoch > stream.epoch:
            stream = self.streams[record.host_id] = Stream(record.host, record.host_id, record.epoch, {})
        if record.epoch == stream.epoch and not topic.compacted and record.seq > stream.high_water.get(topic.suffix, 0):
            stream.high_water[topic.suffix] = record.seq

    def _stats(self, record: m.AboutContainer, entry: Entry) -> None:
        container = self._containers.get((record.host_id, record.incarnation)) or self._add(record)
        if record.time_ms <= container.last_sample_ms or container.deleted_ms:
            self.ignored += 1
            return
        value = record_bytes(entry)
        samples = container.samples
        grown = len(value) - (len(samples[0]) if len(samples) == samples.maxlen else 0)
        samples.append(value)
        container.last_sample_ms = record.time_ms
        container.sample_bytes += grown
        self._sample_bytes += grown

    def _lifecycle(self, record: m.ContainerLifecycle, entry: Entry) -> None:
        if not self._is_news(m.LIFECYCLE, record.event, entry):
            return
        container = self._containers.get((record.host_id, record.incarnation)) or self._add(record)
        if container.deleted_ms:
            return  # what comes after the end is in the events, and cannot bring it back
        container.identify(record)
        if record.event == "created":
            container.learn(found=record.found)
        elif record.event == "deleted":
            container.learn(state="deleted", deleted=True, deleted_at=record.time)
            self._end(container, record, entry.order_ms)
        container.learn(**_pick(record, _LIFECYCLE_FACTS))
        self._count_kills(container, record.oom_kills)

    def _state(self, record: m.ContainerState, entry: Entry) -> None:
        container = self._containers.get((record.host_id, record.incarnation)) or self._add(record)
        if container.deleted_ms:
            self.ignored += 1
            return
        container.identify(record)
        container.learn(**_pick(record, _STATE_FACTS))
        self._count_kills(container, record.oom_kills)

    def _oom(self, record: m.ContainerOom, entry: Entry) -> None:
        if not self._is_news(m.OOM, "oom", entry):
            return
        container = self._containers.get((record.host_id, record.incarnation))
        if container is None:
            return  # a victim that is no container of ours; the event stands for itself
        container.oom_told += 1
        container.learn(last_oom_at=record.time)
        self._count_kills(container, container.oom_told)

    def _host(self, record: m.HostInfo, entry: Entry) -> None:
        self.hosts[record.host_id] = record_bytes(entry)

    def _control(self, record: m.Control, entry: Entry) -> None:
        if record.kind == "heartbeat":  # one every few seconds would leave no room for what happened
            stream = self.streams[record.host_id]
            stream.heartbeat_ms = max(stream.heartbeat_ms, record.time_ms)
            return
        self._is_news(m.CONTROL, record.kind, entry)

    def _is_news(self, topic: Topic, kind: str, entry: Entry) -> bool:
        """Keep it among the events, unless it is there already."""
        events = self._events[topic.short]
        if entry.id in events:
            self.ignored += 1
            return False
        events.add(Event(entry.position, topic, kind, entry.id, entry.host_id, entry.subject, entry.time_ms, record_bytes(entry)))
        return True

    def _count_kills(self, container: Container, told: Any) -> None:
        # The larger one of the OOM messages seen and the number stated: a stated number may be ahead of the messages,
        # and who began to listen in mid-stream has not seen all of them.
        if told is not UNSET and told > container.facts.get("oom_kills", 0):
            container.learn(oom_kills=told)

    # coming and going

    def _add(self, record: m.AboutContainer) -> Container:
        container = Container(record, self._samples_kept)
        container.identify(record)
        container.learn(state="running")
        self._containers[record.host_id, record.incarnation] = container
        self._ordered = None
        return container

    def _end(self, container: Container, record: m.AboutContainer, now_ms: int) -> None:
        container.deleted_ms = max(1, now_ms)
        self._deleted[record.host_id, record.incarnation] = container
        self._deleted_bytes += container.sample_bytes

    def _expire(self, now_ms: int) -> None:
        """Let go of containers deleted long ago, and of the oldest when there are too many or they hold too much."""
        deleted, limits = self._deleted, self._limits
        while deleted:
            key, oldest = next(iter(deleted.items()))
            if (
                len(deleted) <= limits.deleted
                and self._deleted_bytes <= limits.deleted_bytes
                and now_ms - oldest.deleted_ms < limits.deleted_ms
            ):
                return
            del deleted[key], self._containers[key]
            self._deleted_bytes -= oldest.sample_bytes
            self._sample_bytes -= oldest.sample_bytes
            self._ordered = None

    # being asked

    @property
    def bytes(self) -> int:
        """Encoded bytes held: samples and events."""
        return self._sample_bytes + sum(events.bytes for events in self._events.values())

    def __len__(self) -> int:
        """Containers that live."""
        return len(self._containers) - len(self._deleted)

    def containers(self) -> list[Container]:
        """All of them, recently deleted ones too, in the order of `Container.key`. Not to be changed."""
        if self._ordered is None:
            self._ordered = sorted(self._containers.values(), key=lambda container: container.key)
        return self._ordered

    def events(self, topic: Topic) -> Events:
        """The last lifecycle, OOM or control events; heartbeats are not among them."""
        return self._events[topic.short]

    def find(self, text: str) -> list[Container]:
        """The container that `text` means; several when it is ambiguous, none when it is unknown.

        The first of these that fits: its id, incarnation or cgroup path (also without the leading slash); its name or
        an alias (also with a leading slash); the beginning of its id, at least `ID_PREFIX_MIN` characters. A live
        container hides deleted ones; of several deleted ones of that name, the last is meant.
        """
        everyone = self.containers()
        path = text if text.startswith("/") else f"/{text}"
        exact = [c for c in everyone if text in c.key[1:] or path in (c.container_id, c.facts.get("cgroup_path"))]
        if exact:
            return _current(exact)
        name = text.removeprefix("/")
        named = [c for c in everyone if name and name in c.names]
        if named:
            return _current(named)
        begun = [c for c in everyone if c.container_id.startswith(text)] if len(text) >= ID_PREFIX_MIN else []
        live = [c for c in begun if not c.deleted_ms]
        if live or len({c.key[:2] for c in begun}) > 1:
            return live or begun
        return _current(begun)


def _current(found: list[Container]) -> list[Container]:
    """The live ones, or the one deleted last."""
    return [c for c in found if not c.deleted_ms] or sorted(found, key=lambda c: c.deleted_ms)[-1:]


def _pick(record: m.Record, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}
