"""The pure heart: observations in, messages out. It is given the time and does no I/O.

The life of an incarnation. A step that waits for a runtime's word has a deadline, so nothing waits for ever:

    Appeared ─▶ held ──(name known, or 1 s)────▶ `created` said ─▶ stats, oom, updated …
    Vanished ─▶ ending ──(exit code known, or 10 s)─▶ `deleted` said ─▶ remembered for late kernel-log records

Order within a container: nothing before `created`, nothing but a late kernel-log record after `deleted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import UNSET

from streamer.manager.container import UNKNOWN, Container, LabelFilter
from streamer.manager.keeping import keep, revive
from streamer.manager.kills import Kills
from streamer.manager.narrator import MS, Host, Narrator, Now
from streamer.manager.past import rebooted, unsaid, unseen
from streamer.manager.roster import LATE_NS, Roster
from streamer.manager.stream import StreamTeller
from streamer.model import messages as m
from streamer.model import observations as o
from streamer.model.inventory import Checkpoint, Kept, Past
from streamer.model.messages import Message
from streamer.model.runtimes import enclosing, owner, shown
from streamer.model.stats import Sample

HOLD_CREATED_NS: Final = 1000 * MS  # Docker's `create` event precedes the cgroup; this is for a daemon out of breath
HOLD_STARTUP_NS: Final = 3000 * MS  # for the first list of all containers
HOLD_DELETED_NS: Final = 10_000 * MS  # Docker's `die` follows the cgroup's end by some 10 ms; by seconds on a host out of breath
SETTLE_NS: Final = 150 * MS  # limits and inspect results trickle in after a start: one `updated` for all of them

_STATES: Final = {"pause": "paused", "unpause": "running"}
_SAID_AT_ONCE: Final = ("pause", "unpause", "rename")


class Fleet:
    """All containers of this host: `observe` and `tick` return what is to be said, numbered, in order."""

    def __init__(
        self,
        host: Host,
        *,
        scope: str = "containers",
        labels: LabelFilter | None = None,
        hierarchical_kills: bool = False,
        docker: bool = True,
        kmsg: bool = True,
        past: Past | None = None,
        boot_time_ns: int = 0,
    ) -> None:
        """`hierarchical_kills`: a cgroup's oom_kill counter includes those below it (cgroup v2).

        `docker`, `kmsg`: these sources run, so their word is worth waiting for until they say otherwise.
        `past`: what the run before left; None: there was none, or nothing was kept of it.
        """
        self._say = Narrator(host)
        self._stream = StreamTeller(self._say)
        self._past, self._boot_time_ns = past or Past(), boot_time_ns
        self._scope = scope
        self.labels = labels or LabelFilter()
        self._roster = Roster()
        self._touched: dict[str, Container] = {}  # by incarnation: known better since the last checkpoint, though nothing was said
        self._kills = Kills(
            self._roster, self._say, self._stream, scope=scope, hierarchical=hierarchical_kills, log_readable=kmsg,
            said=() if rebooted(self._past, host.boot_id) else self._past.kmsg_said, touched=self._touched,
        )  # fmt: skip
        self._docker_answers = None if docker else False  # None: its first list is still to come
        self._rules: dict[type, Callable[[Any, Now], list[Message]]] = {
            o.Appeared: self._appeared,
            o.Joined: self._joined,
            o.SpecRead: self._spec_read,
            o.Sampled: lambda seen, now: self.sampled((seen,), now),
            o.Emptied: self._emptied,
            o.Vanished: self._vanished,
            o.Surveyed: self._surveyed,
            o.OomKilled: lambda seen, now: self._kills.told(seen, self.labels, now),
            o.Described: self._described,
            o.RuntimeEvent: self._runtime_event,
            o.Degraded: self._component_degraded,
            o.Recovered: self._component_recovered,
            o.Lost: self._stream.lost,
            o.HostDescribed: lambda seen, now: [self._say.host_info(seen, now)],
        }

    # asking

    def __len__(self) -> int:
        return len(self._roster.by_path)

    def get(self, path: str) -> Container | None:
        """The incarnation whose cgroup is there now."""
        return self._roster.by_path.get(path)

    def containers(self) -> Iterable[Container]:
        """Every incarnation whose cgroup is there now."""
        return self._roster.by_path.values()

    def present(self, container_id: str) -> list[Container]:
        """The incarnations of a container whose cgroup is there now; one, but for a moment during a restart."""
        return [c for c in self._roster.open(container_id) if not c.vanished_ns]

    def next_due(self) -> int | None:
        """Monotonic ns at which `tick` has something to do, or None."""
        due = [deadline for c in self._roster.unsettled.values() for deadline in c.deadlines()]
        return min([*due, *self._kills.next_due()], default=None)

    # being told

    def observe(self, observation: o.Observation, now: Now) -> list[Message]:
        """Take one observation; return what is to be said because of it."""
        return self._rules[type(observation)](observation, now)

    def sampled(self, taken: Iterable[o.Sampled], now: Now) -> list[Message]:
        """`observe` for many samples."""
        said: list[Message] = []
        by_path, tell = self._roster.by_path, self._say.stats
        for seen in taken:
            container = by_path.get(seen.path)
            if container is not None and container.inode == seen.inode:
                container.take(seen.sample)
                if container.said_created:
                    said.append(tell(container, seen.sample, now))
                    if container.oom_counted > container.oom_said:
                        said += self._check_kills(container, now)
                else:
                    container.waiting.append(seen.sample)
        return said

    def tick(self, now: Now) -> list[Message]:
        """Say what has waited long enough."""
        said = self._kills.release(self.labels, now)
        for container in list(self._roster.unsettled.values()):
            said += self._advance(container, now)
        return said

    # about the agent itself

    def started(self, now: Now) -> list[Message]:
        """The first messages of an epoch: `started`, and what an earlier run left unsaid."""
        said = self._stream.started(now)
        for lost in unsaid(self._past, self._say.host.boot_id, self._boot_time_ns, now.wall_ns):
            said += self._stream.lost(lost, now)
        for kept in self._past.inventory:
            said += self._restore(kept, now)
        return said

    def heartbeat(self, now: Now) -> list[Message]:
        """Proof of life."""
        return self._stream.heartbeat(now, len(self))

    def stopped(self, now: Now, reason: str) -> list[Message]:
        """The last messages of an epoch: what still waited for a runtime's word, then `stopped`."""
        self._docker_answers = self._kills.log_readable = False
        said = self._kills.release(self.labels, now, everything=True)
        for container in list(self._roster.unsettled.values()):
            container.settle_at = min(container.settle_at, now.monotonic_ns)
            container.oom_check_at = min(container.oom_check_at, now.monotonic_ns)
            said += self._advance(container, now)
        return said + self._stream.stopped(now, reason)

    # what survives a restart

    @property
    def surveyed(self) -> bool:
        """Whether the first look has ended, and what an earlier run did not see is said."""
        return self._kills.surveyed

    def checkpoint(self, messages: Sequence[Message], *, whole: bool = False) -> Checkpoint:
        """What must be kept together with these messages: whom they are about and who is known better since, or all.

        As of the earlier run, for the caller to put right once this one is `surveyed`: until then a kill leaves the time
        that nobody saw as it was.
        """
        if whole:
            kept: dict[str, Kept | None] = {container.incarnation: keep(container) for container in self._roster.everyone()}
        else:
            present = (c for c in self._touched.values() if c in self._roster.open(c.owner.container_id))
            kept = {container.incarnation: keep(container) for container in present}
            for message in messages:
                record = message.record
                if isinstance(record, m.AboutContainer) and message.topic.lane == "durable" and record.incarnation not in kept:
                    container = self._roster.incarnation(record.container_id, record.incarnation)
                    kept[record.incarnation] = None if container is None else keep(container)
        self._touched.clear()
        host = self._say.host
        return Checkpoint(epoch=host.epoch, boot_id=host.boot_id, alive_ns=self._past.alive_ns, kept=kept, whole=whole)

    def log_cursor(self, settled_seq: int) -> tuple[int, tuple[int, ...]]:
        """Where a later run is to resume the kernel log, read up to `settled_seq`, and what it will hear of again."""
        untold = self._kills.oldest_untold()
        seq = settled_seq if untold is None else min(settled_seq, untold - 1)
        return seq, self._kills.said_after(seq)

    def _restore(self, kept: Kept, now: Now) -> list[Message]:
        """Take over an incarnation of an earlier run; of an earlier boot: it has ended."""
        whose = owner(kept.path)
        if whose is None or self._roster.incarnation(whose.container_id, kept.incarnation) is not None:
            return []
        container = revive(kept, whose, min(self._past.alive_ns, now.wall_ns))  # the clock may have been set back
        self._roster.enter(container)
        if container.details != UNKNOWN:
            self._roster.remember(whose.container_id, container.details)
        container.identify(self.labels)
        if rebooted(self._past, self._say.host.boot_id):
            if not container.vanished_ns:
                container.not_before_ns = container.alive_ns
                container.vanished_ns = max(self._boot_time_ns or now.wall_ns, container.alive_ns)
            return self._advance(container, now)
        if container.vanished_ns:
            container.hold_until = now.monotonic_ns + HOLD_DELETED_NS
            return self._advance(container, now)
        self._roster.by_path[kept.path] = container
        return []

    def _surveyed(self, seen: o.Surveyed, now: Now) -> list[Message]:
        """Everything that is there has been told: who was there in an earlier run and was not told has ended since."""
        self._kills.surveyed = True
        said = self._kills.release(self.labels, now, everything=True)  # also of those that turn out to have ended
        for container in [c for c in self._roster.by_path.values() if c.restored]:
            said += self._vanished(o.Vanished(container.path, container.inode, seen.time_ns, _last_known_ns(container)), now)
        for lost in unseen(self._past, seen.time_ns):
            said += self._stream.lost(lost, now)
        return said

    # cgroups

    def _appeared(self, seen: o.Appeared, now: Now) -> list[Message]:
        whose = shown(seen.path, self._scope)
        if whose is None:
            return []
        said: list[Message] = []
        known = self._roster.by_path.get(seen.path)
        if known is not None:
            if known.inode == seen.inode:
                return self._seen_again(known, seen, now) if known.restored else []
            # its end went unseen: the name now belongs to another one
            said += self._vanished(o.Vanished(known.path, known.inode, seen.time_ns, _last_known_ns(known)), now)
        found = "reconciled" if seen.found == "startup" and self._past.alive_ns else seen.found  # the run before did not know it
        container = Container(
            path=seen.path, hierarchy=seen.hierarchy, inode=seen.inode, owner=whose, found=found, seen_ns=seen.time_ns, spec=seen.spec,
            incarnation=f"{self._say.boot}.{seen.hierarchy}.{seen.inode}",
        )  # fmt: skip
        container.begin(self._roster.details(whose.container_id), self._boot_time_ns)
        early = seen.found == "startup" or self._docker_answers is None
        container.hold_until = now.monotonic_ns + (HOLD_STARTUP_NS if early else HOLD_CREATED_NS)
        # what was there when it was looked at has not ended before
        late_ns = LATE_NS if seen.found == "live" else 0
        container.exit_code = self._roster.take_exit(whose.container_id, seen.time_ns, late_ns)
        self._roster.by_path[seen.path] = container
        self._roster.enter(container)
        self._touched[container.incarnation] = container
        return said + self._advance(container, now) + self._kills.release(self.labels, now, path=seen.path)

    def _seen_again(self, known: Container, seen: o.Appeared, now: Now) -> list[Message]:
        """It was there in an earlier run and is still: this run tells of it too, under the same id."""
        known.restored, known.said_created = False, False
        known.found, known.spec = "startup", seen.spec
        known.hold_until = now.monotonic_ns + HOLD_STARTUP_NS
        return self._advance(known, now) + self._kills.release(self.labels, now, path=known.path)

    def _joined(self, seen: o.Joined, now: Now) -> list[Message]:
        container = self._roster.present(seen.path, seen.inode)
        if container is not None:
            container.ran_on()
            # elsewhere the first process is the runtime's own helper; in a container it has that one's network
            if container.owner.runtime == "raw" and enclosing(seen.path) is None:
                container.joined_pid = seen.pid
        return []

    def _spec_read(self, seen: o.SpecRead, now: Now) -> list[Message]:
        container = self._roster.present(seen.path, seen.inode)
        if container is None or container.spec == seen.spec:
            return []
        container.spec = seen.spec
        return self._settle_soon(container, now)

    def _emptied(self, seen: o.Emptied, now: Now) -> list[Message]:
        container = self._roster.present(seen.path, seen.inode)
        if container is None:
            return []
        container.emptied = seen.sample
        container.count_kills(seen.sample)
        return self._check_kills(container, now)

    def _vanished(self, seen: o.Vanished, now: Now) -> list[Message]:
        container = self._roster.present(seen.path, seen.inode)
        if container is None:
            return []
        self._touched[container.incarnation] = container
        container.vanished_ns, container.not_before_ns = seen.time_ns, seen.not_before_ns
        # a container that Docker never spoke of may be another engine's: no word on its end will come either
        container.hold_until = now.monotonic_ns + (HOLD_DELETED_NS if container.details.name else HOLD_CREATED_NS)
        self._roster.gone(container, now.monotonic_ns, log_readable=self._kills.log_readable)
        return self._advance(container, now)

    # runtimes

    def _described(self, told: o.Described, now: Now) -> list[Message]:
        details = self._roster.remember(told.container_id, self._roster.details(told.container_id).described(told))
        said: list[Message] = []
        for container in self._roster.open(told.container_id):
            if container.vanished_ns:  # the runtime speaks of a later run, or of this one's end
                mine = container.details
                container.details = details._replace(pid=mine.pid, started_at_ns=mine.started_at_ns or details.started_at_ns)
                if container.exit_code is None and container.details.started_at_ns == details.started_at_ns:
                    container.exit_code = told.exit_code
            else:
                container.details = details
                if told.state in ("running", "paused"):
                    container.state = told.state
            said += self._settle_soon(container, now)
        return said

    def _runtime_event(self, told: o.RuntimeEvent, now: Now) -> list[Message]:
        known = self._roster.details(told.container_id)
        labels = told.labels if known.labels is None else known.labels
        state = "running" if told.action == "start" else _STATES.get(told.action, known.state)
        known = known._replace(name=told.name or known.name, image=told.image or known.image, labels=labels, state=state)
        self._roster.remember(told.container_id, known)
        said: list[Message] = []
        incarnations = self._roster.open(told.container_id)
        if told.action == "die":  # of the earliest run that has not ended yet; an old event told again may be of a run before it
            ended = [c for c in incarnations if c.exit_code is None and c.seen_ns - LATE_NS < told.time_ns][:1]
            for container in ended:
                container.exit_code = told.exit_code
                self._touched[container.incarnation] = container
            if not ended:
                self._roster.ended_early(told.container_id, told.time_ns, told.exit_code)
        elif told.action == "start":
            self._roster.take_exit(told.container_id, told.time_ns)  # that was of a run before this one
        for container in incarnations:
            container.hear(known, patience_ns=HOLD_DELETED_NS - HOLD_CREATED_NS)
            said += self._advance(container, now)
            if container.said_created and not container.vanished_ns:
                container.state = _STATES.get(told.action, container.state)
                if told.action in _SAID_AT_ONCE:
                    said += self._updated(container, now, told.time_ns)
        return said

    # what waits

    def _advance(self, container: Container, now: Now) -> list[Message]:
        """Say everything about a container that can be said now; keep a deadline for the rest."""
        said: list[Message] = []
        if not container.said_created:
            if self._awaits_name(container, now):
                self._roster.unsettled[container.incarnation] = container
                return said
            said += self._created(container, now)
        if container.oom_check_at and (container.vanished_ns or container.oom_check_at <= now.monotonic_ns):
            said += self._kills.counted(container, now)
        if container.vanished_ns:
            if self._awaits_exit_code(container, now):
                self._roster.unsettled[container.incarnation] = container
                return said
            return said + self._deleted(container, now)
        if container.settle_at and container.settle_at <= now.monotonic_ns:
            said += self._updated(container, now, now.wall_ns)
        if not any(container.deadlines()):
            self._roster.unsettled.pop(container.incarnation, None)
        return said

    def _awaits_name(self, container: Container, now: Now) -> bool:
        nameless = container.owner.runtime == "docker" and container.details.name is None
        return nameless and self._docker_answers is not False and now.monotonic_ns < container.hold_until

    def _awaits_exit_code(self, container: Container, now: Now) -> bool:
        open_ended = container.owner.runtime == "docker" and container.exit_code is None
        return open_ended and self._docker_answers is not False and now.monotonic_ns < container.hold_until

    def _settle_soon(self, container: Container, now: Now) -> list[Message]:
        if container.said_created and not container.settle_at and not container.vanished_ns:
            container.settle_at = now.monotonic_ns + SETTLE_NS
            self._roster.unsettled[container.incarnation] = container
        return self._advance(container, now)

    # saying it

    def _created(self, container: Container, now: Now) -> list[Message]:
        container.said_created = True
        container.identify(self.labels)
        container.said = container.comparable()
        said = self._say.created(container, now)
        for kept in container.waiting:
            said.append(
                self._say.stats(container, kept, now)
                if isinstance(kept, Sample)
                else self._kills.of(container, kept, self.labels, now)
            )
        container.waiting.clear()
        return said

    def _updated(self, container: Container, now: Now, time_ns: int) -> list[Message]:
        container.settle_at = 0
        container.identify(self.labels)
        comparable = container.comparable()
        changed = sorted(name for name, value in comparable.items() if container.said.get(name, UNSET) != value)
        container.said = comparable
        return self._say.updated(container, changed, time_ns, now) if changed else []

    def _deleted(self, container: Container, now: Now) -> list[Message]:
        container.identify(self.labels)
        said = self._say.deleted(container, now, last=self._roster.leave(container))
        container.ended()
        return said

    def _check_kills(self, container: Container, now: Now) -> list[Message]:
        self._kills.check(container, now)
        return self._advance(container, now)

    # the stream itself

    def _component_degraded(self, seen: o.Degraded, now: Now) -> list[Message]:
        said: list[Message] = []
        if seen.component == "source.docker":
            self._docker_answers = False
            said += self.tick(now)  # nothing waits for a word that cannot come
        elif seen.component == "source.kmsg":
            self._kills.log_readable = False
        return said + self._stream.degraded(seen, now)

    def _component_recovered(self, seen: o.Recovered, now: Now) -> list[Message]:
        if seen.component == "source.docker":
            self._docker_answers = True
        elif seen.component == "source.kmsg":
            self._kills.log_readable = True
        return self._stream.recovered(seen, now)


def _last_known_ns(container: Container) -> int:
    """When it was last known to be there."""
    return max(container.seen_ns, container.alive_ns, container.last.time_ns if container.last else 0)
