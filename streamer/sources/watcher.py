"""Sees every cgroup come and go, and reads its totals as its last process ends. Synchronous: one thread lives in here.

Three kernel facts carry it:

- inotify on cgroup directories tells of `mkdir` and `rmdir`. A watch is set before a directory is listed, so nothing
  made in between is missed; what is seen twice is known by its inode.
- a process joins by a write to `cgroup.procs` (or by being forked inside), which inotify reports too; a pidfd on any
  one process then tells when to look again. So the chain runner -> init -> last process is followed without polling.
- between the end of the last process and the runtime's `rmdir` there are some milliseconds. A look in between is exact.

Whoever ends up here must be quick: a container of a tenth of a second is gone in the next one.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from streamer.contracts import Clock
from streamer.errors import Gone, Unsupported
from streamer.kernel import inotify
from streamer.kernel.cgroup import CgroupReader, DescriptorBudget, read_procs, read_spec
from streamer.kernel.hierarchy import Hierarchies, tree
from streamer.model import observations as o
from streamer.model.runtimes import enclosing, owner, shown
from streamer.model.spec import SPEC_FILES

_MASK: Final = (
    inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_MODIFY | inotify.IN_ONLYDIR
)
_MEMBERSHIP: Final = frozenset({"cgroup.procs", "tasks", "cgroup.threads", "cgroup.events"})
_LIMITS: Final = frozenset({row.v1 for row in SPEC_FILES} | {row.v2 for row in SPEC_FILES})

ANCHOR_GRACE: Final = 0.005  # s; runtimes make the directories of one container in all hierarchies within a millisecond
LIMITS_AFTER: Final = 0.1  # s; limits are written right after the directory is made, and often several at once
POLL_EVERY: Final = 0.5  # s; between scans where inotify cannot be had


class _Cgroup:
    """A cgroup that is shown as a container. `hierarchy` and `inode` are its identity."""

    __slots__ = ("ended", "hierarchy", "inode", "joined", "path", "pid", "pidfd", "populated", "seen_ns")

    def __init__(self, path: str, hierarchy: str, inode: int, seen_ns: int) -> None:
        self.path, self.hierarchy, self.inode, self.seen_ns = path, hierarchy, inode, seen_ns
        self.pid = 0
        self.pidfd = -1
        self.ended: set[int] = set()  # seen to end, may still stand in cgroup.procs until they are reaped
        self.populated = False  # somebody was in it since its totals were read
        self.joined = False  # and was told of


class Watcher:
    """Watches all hierarchies; `emit` is called for what is seen, `wait` waits for more. Not for several threads."""

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
        self._known: dict[str, _Cgroup] = {}
        self._watches: dict[int, tuple[str, str]] = {}  # descriptor -> hierarchy, path
        self._watched: dict[tuple[str, str], int] = {}
        self._pidfds: dict[int, _Cgroup] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._limits_due: set[str] = set()
        self._events: deque[tuple[str, str, inotify.Event]] = deque()
        self._epoll = select.epoll()
        self._inotify: inotify.Inotify | None = None
        self.scans = 0
        self._blind = ""  # why inotify cannot be had, or not for all directories
        self._started = False
        self._last_scan_ns = 0
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
        for hierarchy in self._hierarchies.watched:
            self._enter(hierarchy, "/", "startup")
        self._started = True
        self._last_scan_ns = self._clock.wall_ns()
        if not self._blind:
            self._emit(o.Recovered("source.cgroup", self._clock.wall_ns()))

    def wait(self, timeout: float) -> None:
        """Wait for the kernel, a timer or `wake`, at most `timeout` seconds, and deal with all of it."""
        due = min(self._timers[0][0], self._scan_at) if self._timers else self._scan_at
        timeout = min(timeout, max(0.0, due - self._seconds()))
        self._poll(0 if self._events else timeout)
        while self._events:
            self._directory_event(*self._events.popleft())
            self._poll(0)  # the end of a process outranks what else happened: its cgroup is about to go
        now = self._seconds()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        if self._scan_at <= now:
            self._scan_at = now + (POLL_EVERY if self._blind else self._rescan_seconds)
            self.scan()

    def wake(self) -> None:
        """End a `wait`; may be called from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Let go of every descriptor."""
        for fd in self._pidfds:
            os.close(fd)
        self._pidfds.clear()
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

    # the kernel's word

    def _poll(self, timeout: float) -> None:
        for fd, _ in self._epoll.poll(timeout):
            if (cgroup := self._pidfds.get(fd)) is not None:
                self._process_ended(fd, cgroup)
            elif fd == self._wake_fd:
                os.eventfd_read(fd)
            elif self._inotify is not None and fd == self._inotify.fd:
                self._read_events(self._inotify)

    def _read_events(self, source: inotify.Inotify) -> None:
        for event in source.read():
            if event.mask & inotify.IN_Q_OVERFLOW:
                self._overflowed()
            elif event.mask & inotify.IN_IGNORED:
                if (watch := self._watches.pop(event.wd, None)) is not None and self._watched.get(watch) == event.wd:
                    del self._watched[watch]
            elif (watch := self._watches.get(event.wd)) is not None:
                self._events.append((*watch, event))

    def _directory_event(self, hierarchy: str, parent: str, event: inotify.Event) -> None:
        mask, name = event.mask, event.name
        if not mask & inotify.IN_ISDIR:
            if mask & inotify.IN_MODIFY and (cgroup := self._known.get(parent)) is not None:
                self._file_written(cgroup, hierarchy, name)
            return
        path = f"/{name}" if parent == "/" else f"{parent}/{name}"
        if mask & (inotify.IN_CREATE | inotify.IN_MOVED_TO):
            self._enter(hierarchy, path, "live")
        elif mask & (inotify.IN_DELETE | inotify.IN_MOVED_FROM):
            # the kernel may keep the watch for as long as the inode is cached: the next one of this name needs its own
            self._unwatch(hierarchy, path)
            cgroup = self._known.get(path)
            if cgroup is not None and cgroup.hierarchy == hierarchy and not self._same(cgroup):
                self._vanish(cgroup, 0)

    def _same(self, cgroup: _Cgroup) -> bool:
        """Whether this very cgroup is there: an event of an earlier one of the same name may come late."""
        try:
            return os.stat(self._hierarchies.directory(cgroup.hierarchy, cgroup.path)).st_ino == cgroup.inode
        except OSError:
            return False

    def _file_written(self, cgroup: _Cgroup, hierarchy: str, name: str) -> None:
        if name in _MEMBERSHIP:
            if hierarchy != cgroup.hierarchy:
                return  # v1: joining is a write in every hierarchy; one of them is enough
            # whoever joined may have ended already: then there is nobody to wait for, but there are totals to read
            cgroup.populated = cgroup.populated or name != "cgroup.events"
            if cgroup.pidfd < 0:
                self._look_for_processes(cgroup)
        elif name in _LIMITS:
            self.reread(cgroup.path)

    # directories

    def _enter(self, hierarchy: str, path: str, found: str) -> None:
        """Watch a directory, tell of the container that it is, and go through what is below it already."""
        if not self._watch(hierarchy, path):
            return
        self._identify(hierarchy, path, found)
        for child in self._children(hierarchy, path):
            self._enter(hierarchy, child, found)

    def _children(self, hierarchy: str, path: str) -> list[str]:
        prefix = "" if path == "/" else path
        try:
            with os.scandir(self._hierarchies.directory(hierarchy, path)) as entries:
                return [f"{prefix}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # it ended meanwhile: the event of its end tells the rest
            return []

    def _watch(self, hierarchy: str, path: str) -> bool:
        """False when there is nothing to watch: the directory has gone, or another hierarchy shows the same."""
        if hierarchy != self._hierarchies.anchor:
            whose = owner(path)
            if whose is None or whose.runtime != "raw" or enclosing(path):
                return not self._started or path not in self._known  # a runtime's container is in the anchor too
        if self._inotify is None or (hierarchy, path) in self._watched:
            return True
        try:
            descriptor = self._inotify.add(self._hierarchies.directory(hierarchy, path), _MASK)
        except FileNotFoundError:
            return path == "/" or self._went_unseen(hierarchy, path)
        except Unsupported as problem:
            self._go_blind(problem)
            return True
        self._watches[descriptor] = (hierarchy, path)
        self._watched[hierarchy, path] = descriptor
        return True

    def _unwatch(self, hierarchy: str, path: str) -> None:
        descriptor = self._watched.pop((hierarchy, path), None)
        if descriptor is not None and self._inotify is not None:
            self._watches.pop(descriptor, None)
            self._inotify.remove(descriptor)

    def _went_unseen(self, hierarchy: str, path: str) -> bool:
        """A cgroup was made and removed before it could be looked at: without its inode it has no identity. Say so."""
        if hierarchy == self._hierarchies.anchor and path not in self._known and shown(path, self._scope):
            now = self._clock.wall_ns()
            self._emit(
                o.Lost("source.cgroup", now, "a cgroup was removed before it could be looked at", count=1, first=path, last=path)
            )
        return False

    def _identify(self, hierarchy: str, path: str, found: str) -> None:
        if path in self._known or not shown(path, self._scope):
            return
        if hierarchy == self._hierarchies.anchor or found == "startup":
            self._appear(hierarchy, path, found)
        else:
            self._after(ANCHOR_GRACE, lambda: self._appear(hierarchy, path, found))

    def _appear(self, hierarchy: str, path: str, found: str) -> None:
        if path in self._known:
            return
        now = self._clock.wall_ns()
        try:
            inode = os.stat(self._hierarchies.directory(hierarchy, path)).st_ino
        except OSError:
            self._went_unseen(hierarchy, path)
            return
        cgroup = self._known[path] = _Cgroup(path, hierarchy, inode, now)
        spec = read_spec(self._hierarchies, path)
        self._emit(o.Appeared(path, hierarchy, inode, now, found, spec))  # type: ignore[arg-type]  # one of the three words
        self._look_for_processes(cgroup)
        if found != "startup":
            self.reread(path)

    def _vanish(self, cgroup: _Cgroup, not_before_ns: int) -> None:
        del self._known[cgroup.path]
        self._drop_pidfd(cgroup)
        self._emit(o.Vanished(cgroup.path, cgroup.inode, self._clock.wall_ns(), not_before_ns))

    # processes

    def _look_for_processes(self, cgroup: _Cgroup) -> None:
        """Hold a pidfd on some living process of it; when there is none any more, its totals are final: read them."""
        for _ in range(5):  # processes may end while we look; what is left after that is waited for by event
            try:
                pids = read_procs(self._hierarchies, cgroup.hierarchy, cgroup.path)
            except (Gone, OSError):  # OSError: no descriptor is left for it; then the totals are those of the last sample
                return
            cgroup.ended.intersection_update(pids)
            living = [pid for pid in pids if pid not in cgroup.ended] or self._processes_below(cgroup.hierarchy, cgroup.path)
            if not living:
                break
            if self._hold(cgroup, [pid for pid in living if pid > 0]) or 0 in living:  # 0: outside our pid namespace
                return
        if cgroup.populated:
            cgroup.populated = cgroup.joined = False
            self._read_totals(cgroup)

    def _processes_below(self, hierarchy: str, path: str) -> list[int]:
        """Processes that went on into cgroups of the container's own, as systemd's do in a container."""
        for child in self._children(hierarchy, path):
            with contextlib.suppress(Gone, OSError):  # it went, or no descriptor is left for it
                pids = read_procs(self._hierarchies, hierarchy, child) or self._processes_below(hierarchy, child)
                if pids:
                    return pids
        return []

    def _hold(self, cgroup: _Cgroup, living: list[int]) -> bool:
        for pid in living:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                cgroup.ended.add(pid)
                continue
            except OSError as problem:
                # out of descriptors, or a kernel without pidfds (5.3): totals will be those of the last sample
                if problem.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSYS, errno.EINVAL):
                    raise
                return True
            cgroup.pid, cgroup.pidfd = pid, fd
            self._pidfds[fd] = cgroup
            self._epoll.register(fd, select.EPOLLIN)
            if not cgroup.joined:
                cgroup.joined = True
                self._emit(o.Joined(cgroup.path, cgroup.inode, self._clock.wall_ns(), pid))
            cgroup.populated = True
            return True
        return False

    def _process_ended(self, fd: int, cgroup: _Cgroup) -> None:
        cgroup.ended.add(cgroup.pid)
        self._drop_pidfd(cgroup)
        if self._known.get(cgroup.path) is cgroup:
            self._look_for_processes(cgroup)

    def _drop_pidfd(self, cgroup: _Cgroup) -> None:
        if cgroup.pidfd >= 0:
            self._epoll.unregister(cgroup.pidfd)
            del self._pidfds[cgroup.pidfd]
            os.close(cgroup.pidfd)
            cgroup.pidfd = -1

    def _read_totals(self, cgroup: _Cgroup) -> None:
        now = self._clock.wall_ns()
        try:
            reader = CgroupReader(self._hierarchies, cgroup.path, DescriptorBudget(0))
            sample = reader.read(now)
        except Gone:
            return
        reader.close()
        self._emit(o.Emptied(cgroup.path, cgroup.inode, sample))

    # limits

    def reread(self, path: str) -> None:
        """Read the limits of a cgroup again shortly: whoever changes one often changes several."""
        if path not in self._limits_due:
            self._limits_due.add(path)
            self._after(LIMITS_AFTER, lambda: self._read_limits(path))

    def _read_limits(self, path: str) -> None:
        self._limits_due.discard(path)
        cgroup = self._known.get(path)
        if cgroup is not None:
            spec = read_spec(self._hierarchies, path)
            if self._same(cgroup):
                self._emit(o.SpecRead(path, cgroup.inode, self._clock.wall_ns(), spec))

    # scans

    def scan(self) -> None:
        """Compare the whole tree with what is known and repair: what came or went unseen is told as reconciled."""
        self.scans += 1
        found: dict[str, tuple[str, int]] = {}
        for hierarchy in self._hierarchies.watched:
            for path, inode in tree(self._hierarchies, hierarchy):
                found.setdefault(path, (hierarchy, inode))
                self._watch(hierarchy, path)
        # what happened during the walk stands in the queue: it was seen live
        self._poll(0)
        while self._events:
            self._directory_event(*self._events.popleft())
        for cgroup in list(self._known.values()):
            if not self._same(cgroup):
                self._vanish(cgroup, max(cgroup.seen_ns, self._last_scan_ns))
            elif cgroup.pidfd < 0:
                self._look_for_processes(cgroup)
        for path, (hierarchy, _) in found.items():
            if path not in self._known and shown(path, self._scope) and os.path.isdir(self._hierarchies.directory(hierarchy, path)):
                self._appear(hierarchy, path, "reconciled")
        self._last_scan_ns = self._clock.wall_ns()

    def _overflowed(self) -> None:
        now = self._clock.wall_ns()
        self._emit(o.Lost("source.cgroup", now, "the kernel's inotify queue overflowed; the tree is compared again at once"))
        self._scan_at = 0.0

    def _go_blind(self, problem: Unsupported) -> None:
        """Directories that cannot be watched are scanned often instead."""
        if self._blind:
            return
        self._blind = problem.problem
        reason = f"{problem.problem}: some cgroups are found by a scan every {POLL_EVERY:g} s only; short ones may be missed"
        self._emit(o.Degraded("source.cgroup", self._clock.wall_ns(), reason, problem.remedy))
        self._scan_at = min(self._scan_at, self._seconds() + POLL_EVERY)

    # timers

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (self._seconds() + seconds, self._timer_number, act))

    def _seconds(self) -> float:
        return self._clock.monotonic_ns() / 1e9
