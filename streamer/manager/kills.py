"""OOM kills: who was killed, and which of two witnesses is to be believed. Pure.

The kernel log tells of a kill at once, with pid and sizes; the cgroup's counter shows that there was one. The counter is
believed when the log, which is read at once, has not told of it a second later; a log that tells of it later still is not
believed to tell of another.

A victim's cgroup may not have been told of yet: two threads race, and at a restart the log is read before the tree. Its
kill is held for a moment, so that it is not laid at another's door.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from streamer.manager.container import Container, LabelFilter, about
from streamer.manager.narrator import MS, Narrator, Now
from streamer.manager.roster import Roster
from streamer.manager.stream import StreamTeller
from streamer.model import observations as o
from streamer.model.messages import Message
from streamer.model.runtimes import Owner, enclosing, owner, shown

GRACE_NS: Final = 1000 * MS
EARLY_NS: Final = 200 * MS  # how long a kill waits for its cgroup to be told of
EARLY_AT_START_NS: Final = 5000 * MS  # before the first look has ended, which then decides
MOST_COUNTED: Final = 100  # of which only a counter tells, at once; the rest is a number in a gap


class Kills:
    """`hierarchical`: a cgroup's counter includes the kills below it (cgroup v2). `log_readable`: the kernel log is read.

    `scope`: as the fleet's: which cgroups are containers of their own.
    `said`: kernel-log numbers of kills that an earlier run said, which are told again.
    `touched`: where to put whose counts have changed, by incarnation, so that they are kept.
    """

    def __init__(
        self,
        roster: Roster,
        say: Narrator,
        stream: StreamTeller,
        *,
        scope: str,
        hierarchical: bool,
        log_readable: bool,
        said: Iterable[int] = (),
        touched: dict[str, Container] | None = None,
    ) -> None:
        self._roster, self._say, self._stream = roster, say, stream
        self._hierarchical = hierarchical
        self.log_readable = log_readable
        self.surveyed = False  # everything that is there has been told
        self._scope = scope
        self._touched = {} if touched is None else touched
        self._said: dict[int, None] = dict.fromkeys(said)  # kernel-log numbers, ascending
        self._early: list[tuple[int, o.OomKilled]] = []  # held until then (monotonic ns), in the order of the log

    def told(self, seen: o.OomKilled, labels: LabelFilter, now: Now) -> list[Message]:
        """The kernel log told of a kill."""
        if seen.seq in self._said:
            return []
        if self._too_early(seen.killed_cgroup):
            self._early.append((now.monotonic_ns + (EARLY_NS if self.surveyed else EARLY_AT_START_NS), seen))
            return []
        return self._tell(seen, labels, now)

    def next_due(self) -> list[int]:
        """Monotonic ns at which `release` has something to say, if ever."""
        return [due_ns for due_ns, _ in self._early[:1]]

    def release(self, labels: LabelFilter, now: Now, *, path: str = "", everything: bool = False) -> list[Message]:
        """Say what was held: of a cgroup that is there now, what was held long enough, or everything."""
        if not self._early:
            return []
        due = [e for e in self._early if everything or _door(e[1].killed_cgroup) == path or e[0] <= now.monotonic_ns]
        self._early = [e for e in self._early if e not in due]
        return [message for _, seen in due for message in self._tell(seen, labels, now)]

    def _too_early(self, path: str) -> bool:
        """Whether its cgroup may still be told of: it would be a container, and is not known, or not seen by this run yet."""
        if not path:
            return False
        there = self._roster.at(_door(path))
        if there is not None:
            return there.restored
        return shown(_door(path), self._scope) is not None

    def _tell(self, seen: o.OomKilled, labels: LabelFilter, now: Now) -> list[Message]:
        path = seen.killed_cgroup
        # the nearest one above has it, unless it is a container of its own that nobody knows any more
        door = _door(path)
        container = self._roster.at(door) if door and shown(door, self._scope) else self._roster.nearest(path)
        if container is None or container.said_created or seen.repeated:
            self._said[seen.seq] = None
        if seen.repeated:  # told already, but the kernel's counter has it twice
            if container is not None:
                self._count(container)
                container.oom_repeated += 1
                self._touched[container.incarnation] = container
            return []
        if container is None:
            self._count_above(path)
            return [self._say.oom(seen, self._stranger(path or "/", labels), None, now)]
        if not container.said_created:
            container.waiting.append(seen)
            return []
        if container.oom_unlogged and seen.time_ns <= container.oom_unlogged_ns:
            self._touched[container.incarnation] = container
            container.oom_unlogged -= 1  # the counter's word was taken for it already
            return []
        return [self.of(container, seen, labels, now)]

    def of(self, container: Container, seen: o.OomKilled, labels: LabelFilter, now: Now) -> Message:
        """The message about a kill in this container."""
        container.identify(labels)
        self._said[seen.seq] = None
        self._count(container)
        return self._say.oom(seen, container.about, container.spec.memory_limit_bytes or None, now)

    def oldest_untold(self) -> int | None:
        """The kernel-log number of the oldest kill that waits for a `created`; None: every kill that was heard of is told."""
        waiting = [kept.seq for c in self._roster.unsettled.values() for kept in c.waiting if isinstance(kept, o.OomKilled)]
        return min(waiting + [seen.seq for _, seen in self._early], default=None)

    def said_after(self, seq: int) -> tuple[int, ...]:
        """Numbers of said kills beyond the record that a later run resumes after; the others are forgotten."""
        self._said = dict.fromkeys(sorted(number for number in self._said if number > seq))
        return tuple(self._said)

    def check(self, container: Container, now: Now) -> None:
        """When the counter is ahead of the log, give the log a moment."""
        if container.oom_counted > container.oom_said and not container.oom_check_at:
            container.oom_check_at = now.monotonic_ns + (GRACE_NS if self.log_readable else 0)
            self._roster.unsettled[container.incarnation] = container

    def counted(self, container: Container, now: Now) -> list[Message]:
        """That moment is over: say what only the counter saw."""
        container.oom_check_at = 0
        sample = container.emptied or container.last
        said: list[Message] = []
        untold = container.oom_counted - container.oom_said - MOST_COUNTED
        if untold > 0:
            container.oom_said += untold
            reason = f"OOM kills in {container.path} that only its counter saw, beyond {MOST_COUNTED}"
            said = self._stream.lost(o.Lost("source.kmsg", now.wall_ns, reason, untold), now)
        if container.oom_said < container.oom_counted:
            container.oom_unlogged += container.oom_counted - container.oom_said
            container.oom_unlogged_ns = now.wall_ns
        while container.oom_said < container.oom_counted:
            self._count(container)
            said.append(self._say.counted_oom(container, container.oom_said, sample.time_ns if sample else now.wall_ns, now))
        return said

    def _count(self, container: Container) -> None:
        container.oom_said += 1
        self._count_above(container.path)

    def _count_above(self, path: str) -> None:
        path = path if self._hierarchical else "/"
        while path != "/":
            path = path[: path.rfind("/")] or "/"
            if (above := self._roster.by_path.get(path)) is not None:
                above.oom_said += 1
                self._touched[above.incarnation] = above

    def _stranger(self, path: str, labels: LabelFilter) -> tuple[Any, ...]:
        """What can be said of a victim whose cgroup is no container of ours: as much as its path tells."""
        path = enclosing(path) or path
        whose = owner(path) or Owner("raw", path, folder=True)
        return about(whose, path, f"{self._say.boot}.unknown", self._roster.details(whose.container_id), labels)


def _door(path: str) -> str:
    """The cgroup that would be told of as a container: the runtime's around this one, or itself."""
    return enclosing(path) or path
