"""Sees every cgroup come and go, and says so where it could not. Synchronous: one thread lives in here.

Three kernel facts carry it:

- inotify on cgroup directories tells of `mkdir` and `rmdir`. A watch is set before a directory is listed, so nothing
  made in between is missed; what is seen twice is known by its inode.
- a process joins by a write to `cgroup.procs` (or by being forked inside), which inotify reports too; from there on
  `processes.py` follows it to the last one's end without polling.
- the kernel's queue of events has an end. An event says that it overflowed; from the last moment at which the queue was
  empty until the tree has been compared, whatever came and went may be missing.

Whoever ends up here must be quick: a container of a tenth of a second is gone in the next one.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from streamer.contracts import Clock
from streamer.errors import Unsupported
from streamer.kernel import inotify
from streamer.kernel.cgroup import read_spec
from streamer.kernel.hierarchy import Hierarchies
from streamer.model import observations as o
from streamer.model.spec import SPEC_FILES
from streamer.sources.paths import is_raw, is_shown
from streamer.sources.processes import Cgroup, Processes, children
from streamer.sources.timers import Timers
from streamer.sources.unseen import BLIND, OVERFLOWED, Lives, Unseen

_MASK: Final = (
    inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_MODIFY | inotify.IN_ONLYDIR
)
_MEMBERSHIP: Final = frozenset({"cgroup.procs", "tasks", "cgroup.threads", "cgroup.events"})
_LIMITS: Final = frozenset({row.v1 for row in SPEC_FILES} | {row.v2 for row in SPEC_FILES})

ANCHOR_GRACE: Final = 0.005  # s; runtimes make the directories of one container in all hierarchies within a millisecond
LIMITS_AFTER: Final = 0.1  # s; limits are written right after the directory is made, and often several at once
POLL_EVERY: Final = 0.5  # s; between scans where inotify cannot be had


_IDLE_SECONDS: Final = 5.0  # at most between two looks at an empty queue: how far back a loss may have to be declared
_BACKLOG: Final = 16_384  # events taken from the kernel and not dealt with; more of them wait in the kernel's own queue
_AT_ONCE: Final = 4096  # events between two looks at timers and scans
_DRAIN_ROUNDS: Final = 64
_DECLARE_BLIND_NS: Final = 60_000_000_000


class Watcher:
    """Watches all hierarchies; `emit` is called for what is seen, `wait` waits for more. Not for several threads, but for `len(processes)`."""

    def __init__(
        self,
        hierarchies: Hierarchies,
        *,
        scope: str,
        clock: Clock,
        emit: Callable[[o.Observation], None],
        rescan_seconds: float = 60.0,
    ) -> None:
        self._hierarchies = hierarchies
        self._scope = scope
        self._clock = clock
        self._emit = emit
        self._rescan_seconds = rescan_seconds
        self._known: dict[str, Cgroup] = {}
        self._watches: dict[int, tuple[str, str]] = {}  # descriptor -> hierarchy, path
        self._watched: dict[tuple[str, str], int] = {}
        self._timers = Timers(clock)
        self._seconds = self._timers.now_s
        self._limits_due: set[str] = set()
        self._events: deque[tuple[str, str, inotify.Event, int]] = deque()  # with a time before which it did not happen
        self._epoll = select.epoll()
        self.processes = Processes(hierarchies, clock=clock, emit=emit, epoll=self._epoll)
        self._inotify: inotify.Inotify | None = None
        self.scans = self.stirs = 0
        self._blind = ""  # why inotify cannot be had, or not for all directories
        self._blind_since_ns = 0
        self._hindered = self._unlisted = False  # since the last scan began: not all could be watched, or not even listed
        self._started = self._surveyed = False
        self._checked_ns = 0  # every known cgroup was looked at after this
        self._complete_ns = clock.wall_ns()  # the kernel's queue was empty then: what happened before is known
        self.known_until_ns = 0  # what happened before is told; read by another thread
        self._overflow_ns = self._overflows = 0  # events may be missing since then, 0: none; and how often that was so
        self._lives = Lives()
        self._unseen = Unseen("source.cgroup")
        self._scan_at = self._seconds() + rescan_seconds
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)

    # life

    def start(self) -> None:
        """Set the watches and tell of everything that is there."""
        try:
            self._inotify = inotify.Inotify()
            self._epoll.register(self._inotify.fd, select.EPOLLIN)
        except Unsupported as problem:
            self._go_blind(problem)
        self._checked_ns = self._clock.wall_ns()
        for hierarchy in self._hierarchies.watched:
            self._enter(hierarchy, "/", "startup", self._checked_ns)
        self._started = True
        self._survey_ends()
        if not self._blind:
            self._emit(o.Recovered("source.cgroup", self._clock.wall_ns()))

    def wait(self, timeout: float) -> None:
        """Wait for the kernel, a timer or `wake`, at most `timeout` seconds, and deal with all of it."""
        due = min(self._scan_at, self._unseen.due_s, self._timers.due_s)
        timeout = min(timeout, max(0.0, due - self._seconds()), _IDLE_SECONDS)
        self._poll(0 if self._events else timeout)
        for _ in range(_AT_ONCE):
            if not self._events:
                break
            self._directory_event(*self._events.popleft())
            self._poll(0)  # the end of a process outranks what else happened: its cgroup is about to go
        self._timers.run()
        if self._scan_at <= (now := self._seconds()):
            self._scan_at = now + (POLL_EVERY if self._blind else self._rescan_seconds)
            self.scan()
        self._say_unseen()
        if not self._events:
            self.known_until_ns = self._sure_until()

    def wake(self) -> None:
        """End a `wait`; may be called from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Say what was missed until now and let go of every descriptor."""
        if self._overflow_ns:
            self._missed(OVERFLOWED, min(self._overflow_ns, self._lives.untold_ns))
        if self._blind:
            self._missed(BLIND, self._blind_since_ns)
        self._say_unseen(all_of_it=True)
        self.processes.close()
        if self._inotify is not None:
            self._inotify.close()
        self._epoll.close()
        os.close(self._wake_fd)

    @property
    def blind(self) -> str:
        """Why some directories are scanned instead of watched; empty while all are watched."""
        return self._blind

    def __len__(self) -> int:
        return len(self._known)

    def _sure_until(self) -> int:
        """Until when everything that happened is told, or declared to be missing."""
        sure = [self._complete_ns, self._lives.untold_ns, self._unseen.first_ns]
        sure += [self._overflow_ns] if self._overflow_ns else []
        return min([*sure, self._blind_since_ns] if self._blind else sure)

    # the kernel's word

    def _poll(self, timeout: float) -> None:
        began_ns = self._clock.wall_ns()
        ready = self._epoll.poll(timeout)
        self.stirs += len(ready)
        source, quiet = self._inotify, True
        for fd, _ in ready:
            if source is not None and fd == source.fd:
                quiet = False
                if len(self._events) < _BACKLOG:
                    self._read_events(source)
            elif (cgroup := self.processes.followed(fd)) is not None:
                self.processes.ended(cgroup)
                if self._known.get(cgroup.path) is cgroup:
                    self.processes.look(cgroup)
            elif fd == self._wake_fd:
                os.eventfd_read(fd)
        if quiet:
            self._complete_ns = began_ns  # not later: a wait that SIGCONT ended answers "nothing" without having looked

    def _read_events(self, source: inotify.Inotify) -> None:
        since_ns, began_ns, overflows = self._complete_ns, self._clock.wall_ns(), self._overflows
        for event in source.read():
            if event.mask & inotify.IN_Q_OVERFLOW:
                self._overflowed()
            elif event.mask & inotify.IN_IGNORED:
                if (watch := self._watches.pop(event.wd, None)) is not None and self._watched.get(watch) == event.wd:
                    del self._watched[watch]
            elif (watch := self._watches.get(event.wd)) is not None:
                self._events.append((*watch, event, since_ns))
        if source.emptied and self._overflows == overflows:
            self._complete_ns = began_ns

    def _directory_event(self, hierarchy: str, parent: str, event: inotify.Event, since_ns: int) -> None:
        mask, name = event.mask, event.name
        if not mask & inotify.IN_ISDIR:
            if mask & inotify.IN_MODIFY and (cgroup := self._known.get(parent)) is not None:
                self._file_written(cgroup, hierarchy, name)
            return
        path = f"/{name}" if parent == "/" else f"{parent}/{name}"
        if mask & (inotify.IN_CREATE | inotify.IN_MOVED_TO):
            self._enter(hierarchy, path, "live", since_ns)
        elif mask & (inotify.IN_DELETE | inotify.IN_MOVED_FROM):
            # the kernel may keep the watch for as long as the inode is cached: the next one of this name needs its own
            self._unwatch(hierarchy, path)
            self._removed(hierarchy, path, since_ns)

    def _removed(self, hierarchy: str, path: str, since_ns: int) -> None:
        cgroup = self._known.get(path)
        mine = cgroup if cgroup is not None and cgroup.hierarchy == hierarchy else None
        stands = mine is not None and self._same(mine)
        if self._counts(hierarchy, path):
            ends, known = mine is not None and not stands, cgroup is not None
            began_ns = self._lives.removed(path, hierarchy, since_ns, ends=ends, stands=stands, known=known)
            if began_ns and self._overflow_ns:
                self._overflow_ns = min(self._overflow_ns, began_ns)  # it may have begun while the queue still held all
            elif began_ns:  # without its inode it has no identity: that it was is all there is to say
                self._unseen.cgroup(path, began_ns, self._clock.wall_ns(), self._seconds())
        if mine is not None and not stands:
            self._vanish(mine, 0)

    def _counts(self, hierarchy: str, path: str) -> bool:
        """Whether a directory of this hierarchy is a container's life of its own; a runtime's counts in the anchor alone."""
        return is_shown(path, self._scope) and self._is_watched(hierarchy, path)

    def _same(self, cgroup: Cgroup) -> bool:
        """Whether this very cgroup is there: an event of an earlier one of the same name may come late."""
        try:
            return os.stat(self._hierarchies.directory(cgroup.hierarchy, cgroup.path)).st_ino == cgroup.inode
        except OSError:
            return False

    def _file_written(self, cgroup: Cgroup, hierarchy: str, name: str) -> None:
        if name in _MEMBERSHIP:
            if hierarchy != cgroup.hierarchy:
                return  # v1: joining is a write in every hierarchy; one of them is enough
            # whoever joined may have ended already: then there is nobody to wait for, but there are totals to read
            cgroup.populated = cgroup.populated or name != "cgroup.events"
            if cgroup.pidfd < 0:
                self.processes.look(cgroup)
        elif name in _LIMITS:
            self.reread(cgroup.path)

    # directories

    def _enter(self, hierarchy: str, path: str, found: str, since_ns: int) -> None:
        """Watch a directory, tell of the container that it is, and go through what is below it already."""
        for below in self._walk(hierarchy, path, since_ns):
            self._identify(hierarchy, below, found)

    def _walk(self, hierarchy: str, path: str, since_ns: int) -> Iterator[str]:
        """A cgroup, made not before `since_ns`, and those below it, parents first; each is watched before it is listed."""
        todo = [path]
        while todo:
            path = todo.pop()
            if self._counts(hierarchy, path):
                self._lives.made(path, hierarchy, since_ns, known=path in self._known)
            if not self._watch(hierarchy, path):
                continue
            yield path
            try:
                todo += reversed(children(self._hierarchies, hierarchy, path))
            except PermissionError:  # it never could be: nothing of it was ever told
                pass
            except OSError as problem:
                self._unlisted = True
                self._go_blind(
                    Unsupported(f"cgroups cannot be listed: {problem.strerror}", remedy="raise LimitNOFILE of the agent")
                )

    def _is_watched(self, hierarchy: str, path: str) -> bool:
        """Whether a directory is watched in this hierarchy: a runtime's container and what is in it is, in the anchor, already."""
        return hierarchy == self._hierarchies.anchor or is_raw(path)

    def _watch(self, hierarchy: str, path: str) -> bool:
        """False when there is nothing to look at: the directory has gone, or another hierarchy shows the same."""
        if not self._is_watched(hierarchy, path):
            return not self._started or path not in self._known
        if self._inotify is None:
            return True
        try:
            # also where one is set: it may be an earlier directory's of the same name, whose end went unseen
            descriptor = self._inotify.add(self._hierarchies.directory(hierarchy, path), _MASK)
        except FileNotFoundError:
            self._unwatch(hierarchy, path)
            return path == "/"
        except Unsupported as problem:
            self._go_blind(problem)
            return True
        if self._watched.get((hierarchy, path)) != descriptor:
            self._unwatch(hierarchy, path)
            self._watches[descriptor] = (hierarchy, path)
            self._watched[hierarchy, path] = descriptor
        return True

    def _unwatch(self, hierarchy: str, path: str) -> None:
        descriptor = self._watched.pop((hierarchy, path), None)
        if descriptor is not None and self._inotify is not None:
            self._watches.pop(descriptor, None)
            self._inotify.remove(descriptor)

    def _identify(self, hierarchy: str, path: str, found: str) -> None:
        if path in self._known or not is_shown(path, self._scope):
            return
        if hierarchy == self._hierarchies.anchor or found == "startup":
            self._appear(hierarchy, path, found)
        else:
            self._timers.after(ANCHOR_GRACE, lambda: self._appear(hierarchy, path, found))

    def _appear(self, hierarchy: str, path: str, found: str) -> None:
        if path in self._known:
            return
        now = self._clock.wall_ns()
        for where in dict.fromkeys((self._hierarchies.anchor, hierarchy)):
            try:
                inode = os.stat(self._hierarchies.directory(where, path)).st_ino
            except OSError:
                continue
            break
        else:
            return  # its removal stands in the queue, and will show that nothing was told of it
        cgroup = self._known[path] = Cgroup(path, where, inode, now)
        self._lives.told(path)
        spec = read_spec(self._hierarchies, path)
        self._emit(o.Appeared(path, where, inode, now, found, spec))  # type: ignore[arg-type]  # one of the three words
        self.processes.look(cgroup)
        if found != "startup":
            self.reread(path)

    def _vanish(self, cgroup: Cgroup, not_before_ns: int) -> None:
        del self._known[cgroup.path]
        self.processes.drop(cgroup)
        self._emit(o.Vanished(cgroup.path, cgroup.inode, self._clock.wall_ns(), not_before_ns))

    # limits

    def reread(self, path: str) -> None:
        """Read the limits of a cgroup again shortly: whoever changes one often changes several."""
        if path not in self._limits_due:
            self._limits_due.add(path)
            self._timers.after(LIMITS_AFTER, lambda: self._read_limits(path))

    def _read_limits(self, path: str) -> None:
        self._limits_due.discard(path)
        cgroup = self._known.get(path)
        if cgroup is not None:
            spec = read_spec(self._hierarchies, path)
            if self._same(cgroup):
                self._emit(o.SpecRead(path, cgroup.inode, self._clock.wall_ns(), spec))

    # scans

    def scan(self) -> None:
        """Compare the whole tree with what is known and repair: what came or went unseen is told as reconciled.

        What came and went cannot be found: when the kernel's queue had overflowed, or some directories are not watched,
        the time in which that may have happened is declared, after everything that was found.
        """
        self.scans += 1
        overflow_ns, overflows = self._overflow_ns, self._overflows
        self._hindered = self._unlisted = False
        if overflow_ns:
            self._overflow_ns = min(overflow_ns, self._lives.forget())
        found: dict[str, str] = {}
        for hierarchy in self._hierarchies.watched:
            for path in self._walk(hierarchy, "/", self._complete_ns):
                found.setdefault(path, hierarchy)
        self._drain()  # what happened during the walk stands in the queue: it was seen live
        known_until_ns = max(self._checked_ns, 0 if self._blind else overflow_ns)
        self._checked_ns = self._clock.wall_ns()
        for cgroup in list(self._known.values()):
            if not self._same(cgroup):
                self._vanish(cgroup, max(cgroup.seen_ns, known_until_ns))
            elif cgroup.pidfd < 0:
                cgroup.populated |= overflow_ns > 0  # who joined and ended meanwhile did so unseen: the totals are others now
                self.processes.look(cgroup)
        for path, hierarchy in found.items():
            if (
                path not in self._known
                and is_shown(path, self._scope)
                and os.path.isdir(self._hierarchies.directory(hierarchy, path))
            ):
                self._appear(hierarchy, path, "reconciled")
        if self._blind:
            self._blind_since_ns = min(self._blind_since_ns, self._lives.forget(but=found.keys() | self._known.keys()))
        self._survey_ends()
        self._declare(overflow_ns, again=self._overflows != overflows)

    def _drain(self) -> None:
        """Deal with all events that there are; with those that keep coming only so far."""
        for _ in range(_DRAIN_ROUNDS):
            self._poll(0)
            if not self._events:
                return
            while self._events:
                self._directory_event(*self._events.popleft())

    def _survey_ends(self) -> None:
        if not self._surveyed and not self._unlisted:
            self._surveyed = True
            self._emit(o.Surveyed(self._clock.wall_ns()))

    def _declare(self, overflow_ns: int, *, again: bool) -> None:
        """After a comparison. `again`: the queue overflowed meanwhile, so that the next one has been asked for."""
        if overflow_ns:
            self._missed(OVERFLOWED, self._overflow_ns, more_to_come=again)
            self._overflow_ns = self._complete_ns if again else 0
        if self._blind and not self._hindered and self._inotify is not None:
            self._missed(BLIND, self._blind_since_ns)
            self._blind = ""
            self._emit(o.Recovered("source.cgroup", self._clock.wall_ns()))
        elif self._blind and self._checked_ns - self._blind_since_ns >= _DECLARE_BLIND_NS:
            self._missed(BLIND, self._blind_since_ns)
            self._blind_since_ns = self._checked_ns
        self._say_unseen()

    def _missed(self, reason: str, since_ns: int, *, more_to_come: bool = False) -> None:
        self._unseen.range(reason, since_ns, self._clock.wall_ns(), self._seconds(), more_to_come=more_to_come)

    def _say_unseen(self, *, all_of_it: bool = False) -> None:
        now = self._seconds()
        if all_of_it or self._unseen.due_s <= now:
            for lost in self._unseen.take(self._clock.wall_ns(), now):
                self._emit(lost)

    def _overflowed(self) -> None:
        self._overflows += 1
        self._overflow_ns = self._overflow_ns or self._complete_ns
        self._scan_at = 0.0

    def _go_blind(self, problem: Unsupported) -> None:
        """Directories that cannot be watched are scanned often instead."""
        self._hindered = True
        if self._blind:
            return
        self._blind, self._blind_since_ns = problem.problem, self._clock.wall_ns()
        reason = f"{problem.problem}: some cgroups are found by a scan every {POLL_EVERY:g} s only; short ones may be missed"
        self._emit(o.Degraded("source.cgroup", self._clock.wall_ns(), reason, problem.remedy))
        self._scan_at = min(self._scan_at, self._seconds() + POLL_EVERY)
