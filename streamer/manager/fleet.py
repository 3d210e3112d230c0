"""The pure heart: observations in, messages out. It is given the time and does no I/O.

The life of an incarnation. A step that waits for a runtime's word has a deadline, so nothing waits for ever:

    Appeared ─▶ held ──(name known, or 1 s)────▶ `created` said ─▶ stats, oom, updated …
    Vanished ─▶ ending ──(exit code known, or 10 s)─▶ `deleted` said ─▶ remembered for late kernel-log records

Order within a container: nothing before `created`, nothing but a late kernel-log record after `deleted`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from msgspec import UNSET

from streamer.manager.container import UNKNOWN, Container, Details, LabelFilter, about
from streamer.manager.narrator import MS, Host, Narrator, Now
from streamer.model import messages as m
from streamer.model import observations as o
from streamer.model.messages import Message
from streamer.model.runtimes import Owner, enclosing, owner, shown
from streamer.model.stats import Sample

HOLD_CREATED_NS: Final = 1000 * MS  # Docker's `create` event precedes the cgroup; this is for a daemon out of breath
HOLD_STARTUP_NS: Final = 3000 * MS  # for the first list of all containers
HOLD_DELETED_NS: Final = 10_000 * MS  # Docker's `die` follows the cgroup's end by some 10 ms; by seconds on a host out of breath
SETTLE_NS: Final = 150 * MS  # limits and inspect results trickle in after a start: one `updated` for all of them
OOM_GRACE_NS: Final = 1000 * MS  # the kernel log is read at once: a kill it has not told of by then, it will not
MOST_COUNTED_KILLS: Final = 100  # of which only a counter tells, at once; the rest is a number in a gap
REMEMBER_ENDED: Final = 1000
REMEMBER_DETAILS: Final = 10_000

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
    ) -> None:
        """`hierarchical_kills`: a cgroup's oom_kill counter includes those below it (cgroup v2).

        `docker`, `kmsg`: these sources run, so their word is worth waiting for until they say otherwise.
        """
        self._say = Narrator(host)
        self._scope = scope
        self.labels = labels or LabelFilter()
        self._hierarchical_kills = hierarchical_kills
        self._docker_answers, self._kmsg_readable = None if docker else False, kmsg  # None: its first list is still to come
        self._by_path: dict[str, Container] = {}
        self._by_id: dict[str, list[Container]] = {}  # until `deleted` is said
        self._unsettled: dict[str, Container] = {}  # by incarnation: a deadline is running
        self._ended: OrderedDict[str, Container] = OrderedDict()  # by path, from `Vanished` on, the newest last
        self._details: OrderedDict[str, Details] = OrderedDict()  # by container id, the newest last
        self._degraded: dict[str, str] = {}  # component -> reason said
        self._rules: dict[type, Callable[[Any, Now], list[Message]]] = {
            o.Appeared: self._appeared,
            o.Joined: self._joined,
            o.SpecRead: self._spec_read,
            o.Sampled: self._sampled,
            o.Emptied: self._emptied,
            o.Vanished: self._vanished,
            o.Surveyed: self._surveyed,
            o.OomKilled: self._oom_killed,
            o.Described: self._described,
            o.RuntimeEvent: self._runtime_event,
            o.Degraded: self._component_degraded,
            o.Recovered: self._component_recovered,
            o.Lost: self._lost,
            o.HostDescribed: lambda seen, now: [self._say.host_info(seen, now)],
        }

    # asking

    def __len__(self) -> int:
        return len(self._by_path)

    def get(self, path: str) -> Container | None:
        """The incarnation whose cgroup is there now."""
        return self._by_path.get(path)

    def containers(self) -> Iterable[Container]:
        """Every incarnation whose cgroup is there now."""
        return self._by_path.values()

    def present(self, container_id: str) -> list[Container]:
        """The incarnations of a container whose cgroup is there now; one, but for a moment during a restart."""
        return [c for c in self._by_id.get(container_id, ()) if not c.vanished_ns]

    def next_due(self) -> int | None:
        """Monotonic ns at which `tick` has something to do, or None."""
        return min((deadline for c in self._unsettled.values() for deadline in _deadlines(c)), default=None)

    # being told

    def observe(self, observation: o.Observation, now: Now) -> list[Message]:
        """Take one observation; return what is to be said because of it."""
        return self._rules[type(observation)](observation, now)

    def tick(self, now: Now) -> list[Message]:
        """Say what has waited long enough."""
        said: list[Message] = []
        for container in list(self._unsettled.values()):
            said += self._advance(container, now)
        return said

    # about the agent itself

    def started(self, now: Now) -> list[Message]:
        """The first message of an epoch."""
        return [self._say.control("started", now, version=self._say.host.version)]

    def heartbeat(self, now: Now) -> list[Message]:
        """Proof of life, with the numbers from which completeness can be proven."""
        return [self._say.control("heartbeat", now, containers=len(self), high_water=self._say.high_water())]

    def stopped(self, now: Now, reason: str) -> list[Message]:
        """The last messages of an epoch: what still waited for a runtime's word, then `stopped`."""
        self._docker_answers = self._kmsg_readable = False
        said: list[Message] = []
        for container in list(self._unsettled.values()):
            container.settle_at = min(container.settle_at, now.monotonic_ns)
            container.oom_check_at = min(container.oom_check_at, now.monotonic_ns)
            said += self._advance(container, now)
        return [*said, self._say.control("stopped", now, reason=reason, high_water=self._say.high_water())]

    # cgroups

    def _appeared(self, seen: o.Appeared, now: Now) -> list[Message]:
        whose = shown(seen.path, self._scope)
        if whose is None:
            return []
        said: list[Message] = []
        known = self._by_path.get(seen.path)
        if known is not None:
            if known.inode == seen.inode:
                return []
            # its end went unseen: the name now belongs to another one
            last_seen_ns = known.last.time_ns if known.last else known.seen_ns
            said += self._vanished(o.Vanished(known.path, known.inode, seen.time_ns, last_seen_ns), now)
        container = Container(
            path=seen.path, hierarchy=seen.hierarchy, inode=seen.inode, owner=whose, found=seen.found, seen_ns=seen.time_ns, spec=seen.spec,
            incarnation=f"{self._say.boot}.{seen.hierarchy}.{seen.inode}",
        )  # fmt: skip
        details = self._details.get(whose.container_id, UNKNOWN)
        # what was known of an earlier run's process does not hold for a cgroup that was made just now
        container.details = details._replace(pid=0, started_at_ns=None) if seen.found == "live" else details
        early = seen.found == "startup" or self._docker_answers is None
        container.hold_until = now.monotonic_ns + (HOLD_STARTUP_NS if early else HOLD_CREATED_NS)
        self._by_path[seen.path] = container
        self._by_id.setdefault(whose.container_id, []).append(container)
        return said + self._advance(container, now)

    def _present(self, path: str, inode: int) -> Container | None:
        container = self._by_path.get(path)
        return container if container is not None and container.inode == inode else None

    def _joined(self, seen: o.Joined, now: Now) -> list[Message]:
        container = self._present(seen.path, seen.inode)
        if container is not None:
            container.emptied = None
            if container.owner.runtime == "raw":  # elsewhere the first process is the runtime's own helper
                container.joined_pid = seen.pid
        return []

    def _spec_read(self, seen: o.SpecRead, now: Now) -> list[Message]:
        container = self._present(seen.path, seen.inode)
        if container is None or container.spec == seen.spec:
            return []
        container.spec = seen.spec
        return self._settle_soon(container, now)

    def _sampled(self, seen: o.Sampled, now: Now) -> list[Message]:
        container = self._present(seen.path, seen.inode)
        if container is None:
            return []
        container.take(seen.sample)
        container.samples += 1
        if not container.said_created:
            container.waiting.append(seen.sample)
            return []
        said = [self._say.stats(container, seen.sample, now)]
        return said if container.oom_counted <= container.oom_said else said + self._check_kills(container, now)

    def _emptied(self, seen: o.Emptied, now: Now) -> list[Message]:
        container = self._present(seen.path, seen.inode)
        if container is None:
            return []
        container.emptied = seen.sample
        container.count_kills(seen.sample)
        return self._check_kills(container, now)

    def _vanished(self, seen: o.Vanished, now: Now) -> list[Message]:
        container = self._present(seen.path, seen.inode)
        if container is None:
            return []
        del self._by_path[seen.path]
        self._ended[seen.path] = container
        self._ended.move_to_end(seen.path)
        if len(self._ended) > REMEMBER_ENDED:
            self._ended.popitem(last=False)
        container.vanished_ns, container.not_before_ns = seen.time_ns, seen.not_before_ns
        # a container that Docker never spoke of may be another engine's: no word on its end will come either
        container.hold_until = now.monotonic_ns + (HOLD_DELETED_NS if container.details.name else HOLD_CREATED_NS)
        return self._advance(container, now)

    def _surveyed(self, seen: o.Surveyed, now: Now) -> list[Message]:
        return []

    # runtimes

    def _described(self, told: o.Described, now: Now) -> list[Message]:
        details = self._remember(told.container_id, self._details.get(told.container_id, UNKNOWN).described(told))
        said: list[Message] = []
        for container in list(self._by_id.get(told.container_id, ())):
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
        known = self._details.get(told.container_id, UNKNOWN)
        labels = told.labels if known.labels is None else known.labels
        known = known._replace(name=told.name or known.name, image=told.image or known.image, labels=labels)
        if told.action == "destroy":
            self._details.pop(told.container_id, None)
        else:
            self._remember(told.container_id, known)
        said: list[Message] = []
        incarnations = list(self._by_id.get(told.container_id, ()))
        if told.action == "die":  # of the earliest run that has not ended yet
            for container in [c for c in incarnations if c.exit_code is None][:1]:
                container.exit_code = told.exit_code
        for container in incarnations:
            container.details = container.details._replace(name=known.name, image=known.image, labels=known.labels)
            said += self._advance(container, now)
            if container.said_created and not container.vanished_ns:
                container.state = _STATES.get(told.action, container.state)
                if told.action in _SAID_AT_ONCE:
                    said += self._updated(container, now, told.time_ns)
        return said

    def _remember(self, container_id: str, details: Details) -> Details:
        self._details[container_id] = details
        self._details.move_to_end(container_id)
        if len(self._details) > REMEMBER_DETAILS:
            oldest = next((known for known in self._details if known not in self._by_id), None)
            if oldest is not None:
                del self._details[oldest]
        return details

    # what waits

    def _advance(self, container: Container, now: Now) -> list[Message]:
        """Say everything about a container that can be said now; keep a deadline for the rest."""
        said: list[Message] = []
        if not container.said_created:
            if self._awaits_name(container, now):
                self._unsettled[container.incarnation] = container
                return said
            said += self._created(container, now)
        if container.oom_check_at and (container.vanished_ns or container.oom_check_at <= now.monotonic_ns):
            said += self._counted_kills(container, now)
        if container.vanished_ns:
            if self._awaits_exit_code(container, now):
                self._unsettled[container.incarnation] = container
                return said
            return said + self._deleted(container, now)
        if container.settle_at and container.settle_at <= now.monotonic_ns:
            said += self._updated(container, now, now.wall_ns)
        if not any(_deadlines(container)):
            self._unsettled.pop(container.incarnation, None)
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
            self._unsettled[container.incarnation] = container
        return self._advance(container, now)

    # saying it

    def _created(self, container: Container, now: Now) -> list[Message]:
        container.said_created = True
        container.identify(self.labels)
        container.said = container.comparable()
        said = self._say.created(container, now)
        for kept in container.waiting:
            said.append(self._say.stats(container, kept, now) if isinstance(kept, Sample) else self._oom(container, kept, now))
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
        self._unsettled.pop(container.incarnation, None)
        siblings = self._by_id[container.owner.container_id]
        siblings.remove(container)
        if not siblings:
            del self._by_id[container.owner.container_id]
        container.identify(self.labels)
        return self._say.deleted(container, now)

    # OOM kills

    def _oom_killed(self, seen: o.OomKilled, now: Now) -> list[Message]:
        container = self._victim(seen.killed_cgroup)
        if seen.repeated:  # told already, but the kernel's counter has it twice
            if container is not None:
                self._count_kill(container)
                container.oom_repeated += 1
            return []
        if container is None:
            return [self._say.oom(seen, self._stranger(seen.killed_cgroup or "/"), None, now)]
        if not container.said_created:
            container.waiting.append(seen)
            return []
        return [self._oom(container, seen, now)]

    def _oom(self, container: Container, seen: o.OomKilled, now: Now) -> Message:
        container.identify(self.labels)
        self._count_kill(container)
        return self._say.oom(seen, container.about, container.spec.memory_limit_bytes or None, now)

    def _victim(self, path: str) -> Container | None:
        """The container of a killed process: its own cgroup's, or the nearest one above; also one that has just ended."""
        while path:
            found = self._by_path.get(path) or self._ended.get(path)
            if found is not None or path == "/":
                return found
            path = path[: path.rfind("/")] or "/"
        return None

    def _stranger(self, path: str) -> tuple[Any, ...]:
        """What can be said of a victim whose cgroup is no container of ours: as much as its path tells."""
        path = enclosing(path) or path
        whose = owner(path) or Owner("raw", path, folder=True)
        return about(whose, path, f"{self._say.boot}.unknown", self._details.get(whose.container_id, UNKNOWN), self.labels)

    def _count_kill(self, container: Container) -> None:
        container.oom_said += 1
        path = container.path if self._hierarchical_kills else "/"
        while path != "/":
            path = path[: path.rfind("/")] or "/"
            if (above := self._by_path.get(path)) is not None:
                above.oom_said += 1

    def _check_kills(self, container: Container, now: Now) -> list[Message]:
        """The cgroup's counter is ahead of the kernel log: give the log a moment, then believe the counter."""
        if container.oom_counted > container.oom_said and not container.oom_check_at:
            container.oom_check_at = now.monotonic_ns + (OOM_GRACE_NS if self._kmsg_readable else 0)
            self._unsettled[container.incarnation] = container
        return self._advance(container, now)

    def _counted_kills(self, container: Container, now: Now) -> list[Message]:
        container.oom_check_at = 0
        sample = container.emptied or container.last
        said: list[Message] = []
        untold = container.oom_counted - container.oom_said - MOST_COUNTED_KILLS
        if untold > 0:
            container.oom_said += untold
            reason = f"OOM kills in {container.path} that only its counter saw, beyond {MOST_COUNTED_KILLS}"
            said = self._lost(o.Lost("source.kmsg", now.wall_ns, reason, untold, topic=m.OOM.suffix), now)
        while container.oom_said < container.oom_counted:
            self._count_kill(container)
            said.append(self._say.counted_oom(container, container.oom_said, sample.time_ns if sample else now.wall_ns, now))
        return said

    # the stream itself

    def _component_degraded(self, seen: o.Degraded, now: Now) -> list[Message]:
        said: list[Message] = []
        if seen.component == "source.docker":
            self._docker_answers = False
            said += self.tick(now)  # nothing waits for a word that cannot come
        elif seen.component == "source.kmsg":
            self._kmsg_readable = False
        if self._degraded.get(seen.component) == seen.reason:
            return said
        self._degraded[seen.component] = seen.reason
        return [
            *said,
            self._say.control("degraded", now, component=seen.component, reason=seen.reason, remedy=seen.remedy or UNSET),
        ]

    def _component_recovered(self, seen: o.Recovered, now: Now) -> list[Message]:
        if seen.component == "source.docker":
            self._docker_answers = True
        elif seen.component == "source.kmsg":
            self._kmsg_readable = True
        if self._degraded.pop(seen.component, None) is None:
            return []  # it came up for the first time: nothing was ever said to be wrong
        return [self._say.control("recovered", now, component=seen.component)]

    def _lost(self, seen: o.Lost, now: Now) -> list[Message]:
        return [
            self._say.control(
                "gap", now, time_ns=seen.time_ns, component=seen.component, reason=seen.reason, gap_topic=seen.topic or UNSET, gap_epoch=seen.epoch or UNSET,
                gap_first=seen.first or UNSET, gap_last=seen.last or UNSET, gap_count=UNSET if seen.count is None else seen.count,
            )
        ]  # fmt: skip


def _deadlines(container: Container) -> Iterator[int]:
    if not container.said_created or container.vanished_ns:
        yield container.hold_until
    if container.settle_at:
        yield container.settle_at
    if container.oom_check_at:
        yield container.oom_check_at
