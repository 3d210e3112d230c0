"""What the messages say, taken in one by one, and found again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from streamer.memory.container import Container
from streamer.memory.events import Event, Events
from streamer.model import messages as m
from streamer.model.messages import ContainerLifecycle, ContainerState, Message, Topic
from streamer.model.wire import Entry, record_bytes

ID_PREFIX_MIN: Final = 4
"""Shortest beginning of a container id that names a container; shorter ones are as good as typing errors."""


def _own(record: type[m.AboutContainer], *without: str) -> tuple[str, ...]:
    """The fields of a record beyond those that every record about a container has."""
    return tuple(name for name in record.__struct_fields__ if name not in {*m.AboutContainer.__struct_fields__, *without})


_LIFECYCLE_FACTS: Final = _own(ContainerLifecycle, "event", "changed", "found", "oom_kills")
_STATE_FACTS: Final = _own(ContainerState, "oom_kills")


class Limits(NamedTuple):
    """How much is kept beside the samples of live containers.

    deleted        recently deleted containers
    deleted_ms     how long they stay visible
    deleted_bytes  that they may hold on to, with their samples and statistics
    events         of each kind: lifecycle, OOM, control
    event_bytes    of each kind; several kinds, so that a burst of short jobs cannot push out OOM kills and gaps
    event_ms       how long an event is kept after it was told
    """

    deleted: int = 1000
    deleted_ms: int = 600_000
    deleted_bytes: int = 16_000_000
    events: int = 5000
    event_bytes: int = 2_000_000
    event_ms: int = 86_400_000


_LIMITS: Final = Limits()
_EXPIRE_EVERY_MS: Final = 1000


class Stream(msgspec.Struct, omit_defaults=True):
    """How far one host's messages have come: its newest epoch, the last `seq` of each topic in it, its last heartbeat."""

    host: str
    host_id: str
    epoch: int
    high_water: dict[str, int]
    heartbeat_ms: int = 0


class _Index:
    """Containers by a text that means them, those that were put in last at the end."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Container, ...]] = {}

    def get(self, text: str) -> tuple[Container, ...]:
        return self._known.get(text, ())

    def move(self, container: Container, before: Iterable[str], after: Iterable[str]) -> None:
        """Known by the texts `after` from now on, and no longer by those `before`."""
        known = self._known
        for text in set(before).difference(after):
            rest = tuple(other for other in known[text] if other is not container)
            if rest:
                known[text] = rest
            else:
                del known[text]
        for text in set(after).difference(before):
            known[text] = (*known.get(text, ()), container)


class Memory:
    """Recent state of one host or many. Not for threads: `remember` and queries run on the event loop."""

    def __init__(self, samples: int, limits: Limits = _LIMITS) -> None:
        """`samples`: how many are kept for each container."""
        self._samples_kept = samples
        self._limits = limits
        self._containers: dict[tuple[str, str], Container] = {}  # by host id and incarnation
        self._deleted: OrderedDict[tuple[str, str], Container] = OrderedDict()  # those of them, the longest gone first
        self._deleted_bytes = 0
        self._added = 0  # containers, since the beginning
        self._ordered: list[Container] | None = None
        self._exact = _Index()  # by id, incarnation and cgroup path
        self._named = _Index()
        self._events = {
            topic.short: Events(limits.events, limits.event_bytes, limits.event_ms) for topic in (m.LIFECYCLE, m.OOM, m.CONTROL)
        }
        self._expire_ms = 0  # when to look again for what is to be let go of
        self._watchers: list[Callable[[Message, Entry], None]] = []
        self._sample_watchers: list[Callable[[Message, Entry], None]] = []
        self.position = 0
        """Of the message that was taken in last (`Entry.position`)."""
        self.hosts: dict[str, bytes] = {}
        """The latest `HostInfo` of each host as JSON, by host id."""
        self.host_infos: dict[str, m.HostInfo] = {}
        """The same as records."""
        self.streams: dict[str, Stream] = {}
        self.ignored = 0
        """Messages not taken in: repeated ones, and samples said before the newest or of a deleted container."""
        self._rules: dict[str, Callable[[Any, Entry], bool]] = {  # whether it became one of the events, or a sample
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
        topic, _, record, _ = message
        self.position = entry.position
        if record is not None:  # a tombstone says what `deleted` has said already
            self._advance(topic, record.of.record if type(record) is m.Again else record, record.seq)
            if self._rules[topic.short](record, entry):
                watchers = self._sample_watchers if topic is m.STATS else self._watchers
                for watcher in tuple(watchers) if watchers else ():
                    watcher(message, entry)
        if entry.order_ms >= self._expire_ms:
            self._expire(entry.order_ms)

    def watch(self, callback: Callable[[Message, Entry], None], *, samples: bool = False) -> Callable[[], None]:
        """Have every message that becomes one of the `events` handed over, once it was taken in; returns the way to stop.

        The callback runs within `remember`: it must be quick and must not raise. `samples`: those become none, and are wanted, too.
        """
        lists = (self._watchers, self._sample_watchers) if samples else (self._watchers,)
        for watchers in lists:
            watchers.append(callback)

        def stop() -> None:
            for watchers in lists:
                if callback in watchers:
                    watchers.remove(callback)

        return stop

    def _advance(self, topic: Topic, record: m.Record, seq: int) -> None:
        epoch, stream = record.epoch, self.streams.get(record.host_id)
        if stream is None or epoch > stream.epoch:
            stream = self.streams[record.host_id] = Stream(record.host, record.host_id, epoch, {})
        if epoch == stream.epoch and not topic.compacted:
            suffix, high_water = topic.suffix, stream.high_water
            if seq > high_water.get(suffix, 0):
                high_water[suffix] = seq

    def _stats(self, record: m.AboutContainer | m.Again, _entry: Entry) -> bool:
        about = record.of.record if type(record) is m.Again else record
        container = self._containers.get((about.host_id, about.incarnation)) or self._add(about)
        # by number, not by time: after a clock was set back, the newest sample is not the one with the latest time
        if container.deleted_ms or (about.epoch, record.seq) <= container.newest:
            self.ignored += 1
            return False
        if type(record) is m.Again:
            container.sampled_again(record)
        else:
            container.sampled(about)
        return True

    def _lifecycle(self, record: m.ContainerLifecycle, entry: Entry) -> bool:
        if not self._is_news(m.LIFECYCLE, record.event, entry):
            return False
        container = self._containers.get((record.host_id, record.incarnation)) or self._add(record)
        if container.deleted_ms:
            return True  # what comes after the end is in the events, and cannot bring it back
        self._identify(container, record)
        if record.event == "created":
            container.learn(found=record.found)
        elif record.event == "deleted":
            container.learn(state="deleted", deleted=True, deleted_at=record.time)
            self._end(container, record, entry.order_ms)
        container.learn(**_pick(record, _LIFECYCLE_FACTS))
        self._count_kills(container, record.oom_kills)
        return True

    def _state(self, record: m.ContainerState, _entry: Entry) -> bool:
        container = self._containers.get((record.host_id, record.incarnation)) or self._add(record)
        if container.deleted_ms:
            self.ignored += 1
            return False
        self._identify(container, record)
        container.learn(**_pick(record, _STATE_FACTS))
        self._count_kills(container, record.oom_kills)
        return False

    def _oom(self, record: m.ContainerOom, entry: Entry) -> bool:
        if not self._is_news(m.OOM, "oom", entry):
            return False
        container = self._containers.get((record.host_id, record.incarnation))
        if container is not None:  # otherwise a victim that is no container of ours; the event stands for itself
            container.oom_told += 1
            container.learn(last_oom_at=record.time)
            self._count_kills(container, container.oom_told)
        return True

    def _host(self, record: m.HostInfo, entry: Entry) -> bool:
        self.hosts[record.host_id] = record_bytes(entry)
        self.host_infos[record.host_id] = record
        return False

    def _control(self, record: m.Control, entry: Entry) -> bool:
        if record.kind == "heartbeat":  # one every few seconds would leave no room for what happened
            stream = self.streams[record.host_id]
            stream.heartbeat_ms = max(stream.heartbeat_ms, record.time_ms)
            return False
        return self._is_news(m.CONTROL, record.kind, entry)

    def _is_news(self, topic: Topic, kind: str, entry: Entry) -> bool:
        """Keep it among the events, unless it is there already."""
        events = self._events[topic.short]
        if entry.id in events:
            self.ignored += 1
            return False
        events.add(
            Event(
                entry.position, topic, kind, entry.id, entry.host_id, entry.subject, entry.time_ms, entry.order_ms, record_bytes(entry)
            )
        )  # fmt: skip
        return True

    def _count_kills(self, container: Container, told: Any) -> None:
        # The larger one of the OOM messages seen and the number stated: a stated number may be ahead of the messages,
        # and who began to listen in mid-stream has not seen all of them.
        if told is not UNSET and told > container.facts.get("oom_kills", 0):
            container.learn(oom_kills=told)

    # coming and going

    def _add(self, record: m.AboutContainer) -> Container:
        self._added += 1
        container = Container(record, self._samples_kept, self._added)
        self._identify(container, record)
        container.learn(state="running")
        self._containers[record.host_id, record.incarnation] = container
        self._ordered = None
        return container

    def _identify(self, container: Container, record: m.AboutContainer) -> None:
        handles, names = container.handles, container.names
        container.identify(record)
        self._exact.move(container, handles, container.handles)
        self._named.move(container, names, container.names)

    def _end(self, container: Container, record: m.AboutContainer, now_ms: int) -> None:
        container.deleted_ms = max(1, now_ms)
        self._deleted[record.host_id, record.incarnation] = container
        container.ended_bytes = container.size  # statistics grow by what is asked of them
        self._deleted_bytes += container.ended_bytes
        self._expire_ms = 0

    def _expire(self, now_ms: int) -> None:
        """Let go of events told and containers deleted long ago, and of the oldest when there are too many or they hold too much."""
        self._expire_ms = now_ms + _EXPIRE_EVERY_MS
        for events in self._events.values():
            events.expire(now_ms)
        deleted, limits = self._deleted, self._limits
        while deleted:
            key, oldest = next(iter(deleted.items()))
            until_ms = oldest.deleted_ms + limits.deleted_ms
            if len(deleted) <= limits.deleted and self._deleted_bytes <= limits.deleted_bytes and now_ms < until_ms:
                self._expire_ms = min(self._expire_ms, until_ms)
                return
            del deleted[key], self._containers[key]
            self._deleted_bytes -= oldest.ended_bytes
            self._exact.move(oldest, oldest.handles, ())
            self._named.move(oldest, oldest.names, ())
            self._ordered = None

    # being asked

    @property
    def bytes(self) -> int:
        """Held by containers, with their samples and statistics, and by events."""
        return sum(container.size for container in self._containers.values()) + self.event_bytes

    @property
    def epoch(self) -> int:
        """The newest epoch; 0 before anything was said."""
        return max((stream.epoch for stream in self.streams.values()), default=0)

    @property
    def event_bytes(self) -> int:
        """Held by events."""
        return sum(events.bytes for events in self._events.values())

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

    def by_path(self, cgroup_path: str) -> Container | None:
        """The live container of this cgroup; with several hosts, the one that came last."""
        found = (c for c in reversed(self._exact.get(cgroup_path)) if not c.deleted_ms and c.facts["cgroup_path"] == cgroup_path)
        return next(found, None)

    def find(self, text: str) -> list[Container]:
        """The container that `text` means; several when it is ambiguous, none when it is unknown.

        The first of these that fits: its id, incarnation or cgroup path (also without the leading slash); its name or
        an alias (also with a leading slash); the beginning of its id, at least `ID_PREFIX_MIN` characters. A live
        container hides deleted ones; of several deleted ones of that name, the last is meant.
        """
        exact = self._exact.get(text)
        if not text.startswith("/"):
            exact = tuple({*exact, *self._exact.get(f"/{text}")})
        found = exact or self._named.get(text.removeprefix("/"))
        if found:
            return _current(sorted(found, key=lambda container: container.key))
        everyone = self.containers() if len(text) >= ID_PREFIX_MIN else []
        begun = [c for c in everyone if c.container_id.startswith(text)]
        live = [c for c in begun if not c.deleted_ms]
        if live or len({c.key[:2] for c in begun}) > 1:
            return live or begun
        return _current(begun)


def _current(found: list[Container]) -> list[Container]:
    """The live ones, or the one deleted last."""
    return [c for c in found if not c.deleted_ms] or sorted(found, key=lambda c: c.deleted_ms)[-1:]


def _pick(record: m.Record, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}
