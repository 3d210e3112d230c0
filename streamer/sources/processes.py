"""Follows the processes of cgroups by pidfd, and reads a cgroup's totals as its last one ends.

A pidfd on any one process of a cgroup says when to look again: the runtime's helper ends, its child is there; the last
one ends, nobody is there. Then the totals are final, some milliseconds before the runtime removes the cgroup.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable
from typing import Final

from streamer.contracts import Clock
from streamer.errors import Gone
from streamer.kernel.cgroup import CgroupReader, DescriptorBudget, read_procs
from streamer.kernel.hierarchy import Hierarchies
from streamer.model import observations as o

_EMPTY_LINKS: Final = 2


class Cgroup:
    """A cgroup that is shown as a container. `hierarchy` and `inode` are its identity."""

    __slots__ = ("ended", "hierarchy", "inode", "joined", "joined_below", "path", "pid", "pidfd", "populated", "seen_ns")

    def __init__(self, path: str, hierarchy: str, inode: int, seen_ns: int) -> None:
        self.path, self.hierarchy, self.inode, self.seen_ns = path, hierarchy, inode, seen_ns
        self.pid = 0
        self.pidfd = -1
        self.ended: set[int] = set()  # seen to end, may still stand in cgroup.procs until they are reaped
        self.populated = False  # somebody was in it since its totals were read
        self.joined = self.joined_below = False  # and was told of; the same of cgroups below it


class Processes:
    """Holds a pidfd on one process of each cgroup. Its descriptors are registered with `epoll`, whose owner hands them back."""

    def __init__(
        self, hierarchies: Hierarchies, *, clock: Clock, emit: Callable[[o.Observation], None], epoll: select.epoll
    ) -> None:
        self._hierarchies, self._clock, self._emit, self._epoll = hierarchies, clock, emit, epoll
        self._by_pidfd: dict[int, Cgroup] = {}

    def __len__(self) -> int:
        """How many it holds now."""
        return len(self._by_pidfd)

    def followed(self, fd: int) -> Cgroup | None:
        """Whose process this descriptor is on; None: it is none of these."""
        return self._by_pidfd.get(fd)

    def look(self, cgroup: Cgroup) -> None:
        """Hold a pidfd on some living process of it; when there is none any more, its totals are final: read them."""
        for _ in range(5):  # processes may end while we look; what is left after that is waited for by event
            try:
                pids = read_procs(self._hierarchies, cgroup.hierarchy, cgroup.path)
            except (Gone, OSError):  # OSError: no descriptor is left for it; then the totals are those of the last sample
                return
            cgroup.ended.intersection_update(pids)
            own = [pid for pid in pids if pid not in cgroup.ended]
            living = own or self._below(cgroup.hierarchy, cgroup.path)
            if not living:
                break
            if self._hold(cgroup, [pid for pid in living if pid > 0], own=bool(own)) or 0 in living:  # 0: outside our pid namespace
                return
        if cgroup.populated:
            cgroup.populated = cgroup.joined = cgroup.joined_below = False
            self._read_totals(cgroup)

    def ended(self, cgroup: Cgroup) -> None:
        """The process that was held has ended."""
        cgroup.ended.add(cgroup.pid)
        self.drop(cgroup)

    def drop(self, cgroup: Cgroup) -> None:
        """Hold nothing for this cgroup any more."""
        if cgroup.pidfd >= 0:
            self._epoll.unregister(cgroup.pidfd)
            del self._by_pidfd[cgroup.pidfd]
            os.close(cgroup.pidfd)
            cgroup.pidfd = -1

    def close(self) -> None:
        """Let go of every descriptor."""
        for fd in self._by_pidfd:
            os.close(fd)
        self._by_pidfd.clear()

    def _below(self, hierarchy: str, path: str) -> list[int]:
        """Processes that went on into cgroups of the container's own, as systemd's do in a container."""
        todo = [path]
        while todo:
            below: list[str] = []
            with contextlib.suppress(OSError):  # no descriptor is left for it
                below = children(self._hierarchies, hierarchy, todo.pop())
            for child in below:
                with contextlib.suppress(Gone, OSError):  # it went, or the same
                    if pids := read_procs(self._hierarchies, hierarchy, child):
                        return pids
            todo += below
        return []

    def _hold(self, cgroup: Cgroup, living: list[int], *, own: bool) -> bool:
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
            self._by_pidfd[fd] = cgroup
            self._epoll.register(fd, select.EPOLLIN)
            if not (cgroup.joined or (cgroup.joined_below and not own)):
                cgroup.joined, cgroup.joined_below = own, not own
                self._emit(o.Joined(cgroup.path, cgroup.inode, self._clock.wall_ns(), pid if own else 0))
            cgroup.populated = True
            return True
        return False

    def _read_totals(self, cgroup: Cgroup) -> None:
        now = self._clock.wall_ns()
        try:
            reader = CgroupReader(self._hierarchies, cgroup.path, DescriptorBudget(0))
            sample = reader.read(now)
        except Gone:
            return
        reader.close()
        self._emit(o.Emptied(cgroup.path, cgroup.inode, sample))


def children(hierarchies: Hierarchies, hierarchy: str, path: str) -> list[str]:
    """The cgroups right below one; none when it has gone: the event of its end tells the rest.

    Raises:
        OSError: it is there and cannot be listed.
    """
    prefix = "" if path == "/" else path
    directory = hierarchies.directory(hierarchy, path)
    try:
        # a directory is linked to by its parent, itself and each one below; most have none, and listing all their files is dear
        if os.stat(directory).st_nlink == _EMPTY_LINKS:
            return []
        with os.scandir(directory) as entries:
            return [f"{prefix}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
            return []
        raise
