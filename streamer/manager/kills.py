"""OOM kills: who was killed, and which of two witnesses is to be believed. Pure.

The kernel log tells of a kill at once, with pid and sizes; the cgroup's counter shows that there was one. The counter is
believed when the log, which is read at once, has not told of it a second later.
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
from streamer.model.runtimes import Owner, enclosing, owner

GRACE_NS: Final = 1000 * MS
MOST_COUNTED: Final = 100  # of which only a counter tells, at once; the rest is a number in a gap


class Kills:
    """`hierarchical`: a cgroup's counter includes the kills below it (cgroup v2). `log_readable`: the kernel log is read.

    `said`: kernel-log numbers of kills that an earlier run said, which are told again.
    """

    def __init__(
        self,
        roster: Roster,
        say: Narrator,
        stream: StreamTeller,
        *,
        hierarchical: bool,
        log_readable: bool,
        said: Iterable[int] = (),
    ) -> None:
        self._roster, self._say, self._stream = roster, say, stream
        self._hierarchical = hierarchical
        self.log_readable = log_readable
        self._said: dict[int, None] = dict.fromkeys(said)  # kernel-log numbers, ascending

    def told(self, seen: o.OomKilled, labels: LabelFilter, now: Now) -> list[Message]:
        """The kernel log told of a kill."""
        if seen.seq in self._said:
            return []
        container = self._roster.nearest(seen.killed_cgroup)
        if container is None or container.said_created or seen.repeated:
            self._said[seen.seq] = None
        if seen.repeated:  # told already, but the kernel's counter has it twice
            if container is not None:
                self._count(container)
                container.oom_repeated += 1
            return []
        if container is None:
            return [self._say.oom(seen, self._stranger(seen.killed_cgroup or "/", labels), None, now)]
        if not container.said_created:
            container.waiting.append(seen)
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
        waiting = (kept.seq for c in self._roster.unsettled.values() for kept in c.waiting if isinstance(kept, o.OomKilled))
        return min(waiting, default=None)

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
        while container.oom_said < container.oom_counted:
            self._count(container)
            said.append(self._say.counted_oom(container, container.oom_said, sample.time_ns if sample else now.wall_ns, now))
        return said

    def _count(self, container: Container) -> None:
        container.oom_said += 1
        path = container.path if self._hierarchical else "/"
        while path != "/":
            path = path[: path.rfind("/")] or "/"
            if (above := self._roster.by_path.get(path)) is not None:
                above.oom_said += 1

    def _stranger(self, path: str, labels: LabelFilter) -> tuple[Any, ...]:
        """What can be said of a victim whose cgroup is no container of ours: as much as its path tells."""
        path = enclosing(path) or path
        whose = owner(path) or Owner("raw", path, folder=True)
        return about(whose, path, f"{self._say.boot}.unknown", self._roster.details(whose.container_id), labels)
