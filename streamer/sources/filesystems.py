"""How full the host's file systems are, measured where one that does not answer holds up nobody."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import UNSET

from streamer.contracts import Clock
from streamer.kernel import proc
from streamer.model.stats import DiskCounters, FilesystemUsage
from streamer.sources.bounds import MOST, Bounds

_PATIENCE_SECONDS: Final = 2.0
_EVERY_NS: Final = 10_000_000_000  # they fill slowly, and each is half a kilobyte of a message
_IMAGES: Final = frozenset({"squashfs", "iso9660", "udf", "erofs"})  # read-only images (snaps, CDs): no room to watch
_NO_BLOCK_DEVICES: Final = frozenset({"/dev/fuse"})


class Mounted(NamedTuple):
    """A file system and where it is mounted: for the host, and for us (`path`)."""

    device: str
    number: str
    fstype: str
    mountpoint: str
    path: str


def mounts(root: Path) -> list[proc.Mount]:
    """What is mounted on the host, or at least for us."""
    for whose in ("1", "self"):  # the host's first process sees the host's mounts; ours may be a container's
        try:
            return list(proc.parse_mountinfo(proc.read(root / "proc" / whose / "mountinfo")))
        except OSError:  # hidden from us (hidepid)
            continue
    return []


def mounted(root: Path) -> Iterator[Mounted]:
    """The file systems on block devices, each once, at the place where it was mounted whole first. None of them is asked."""
    seen = set(_NO_BLOCK_DEVICES)
    for mount in sorted(mounts(root), key=lambda mount: mount.root != "/"):
        on_device = mount.source.startswith("/dev/") or mount.fstype == "zfs"
        if mount.fstype not in _IMAGES and on_device and mount.source not in seen:
            seen.add(mount.source)
            path = os.path.join(root, mount.mountpoint.lstrip("/"))
            yield Mounted(mount.source, mount.number, mount.fstype, mount.mountpoint, path)


def measured(place: Mounted, disks: Mapping[str, DiskCounters]) -> FilesystemUsage | None:
    """How full it is; None where it cannot be seen from here. Waits as long as the file system does.

    disks  counters of block devices, by number and by name
    """
    try:
        if place.mountpoint != "/" and not os.path.ismount(place.path):
            return None  # not to be seen from here: this would be the size of another one
        size = os.statvfs(place.path)
    except OSError:  # unmounted meanwhile, or not for us: not a fact that can be told
        return None
    name = os.path.basename(os.path.realpath(place.device))  # btrfs gives no device's number
    return FilesystemUsage(
        device=printable(place.device),
        mountpoint=printable(place.mountpoint),
        fstype=place.fstype,
        capacity_bytes=size.f_blocks * size.f_frsize,
        usage_bytes=(size.f_blocks - size.f_bfree) * size.f_frsize,
        available_bytes=size.f_bavail * size.f_frsize,
        inodes=size.f_files or UNSET,
        inodes_free=size.f_ffree if size.f_files else UNSET,
        disk=disks.get(place.number, disks.get(name, UNSET)),
    )


def printable(path: str) -> str:
    """A path may hold any bytes; a message holds text."""
    return os.fsencode(path).decode("utf-8", "replace")


Measure = Callable[[Mounted, Mapping[str, DiskCounters]], FilesystemUsage | None]


class Filesystems:
    """Measures in rounds, each by a thread of its own. For any thread.

    A round that sticks at a file system (a dead disk, a path below a dead server) is left there, and the rounds after it
    go on without that file system until it has answered. Of very many (zfs mounts one for each layer of each image) those
    that were mounted first are measured; that there are more, `bounds` is told.
    """

    def __init__(self, host_root: str, clock: Clock, measure: Measure = measured, bounds: Bounds | None = None) -> None:
        self._root, self._clock, self._measure = Path(host_root), clock, measure
        self._bounds = bounds if bounds is not None else Bounds()
        self._changed = threading.Condition()
        self._round: _Round | None = None
        self._rounds = 0
        self._stuck: set[str] = set()
        self._found: tuple[FilesystemUsage, ...] = ()
        self._fresh: tuple[FilesystemUsage, ...] = ()
        self._due_ns = clock.monotonic_ns()

    def fresh(self) -> tuple[FilesystemUsage, ...]:
        """What was measured since this was asked last, at once, each measurement once; a new round is begun when it is time to."""
        with self._changed:
            if self._round is not None or self._clock.monotonic_ns() >= self._due_ns:
                self._begin()
            fresh, self._fresh = self._fresh, ()
            return fresh

    def measure(self) -> tuple[FilesystemUsage, ...]:
        """As measured now; waits for it, some seconds longer for each file system that does not answer."""
        with self._changed:
            rounds = self._rounds
            while self._rounds == rounds:
                self._begin()
                self._changed.wait(_PATIENCE_SECONDS)
            return self._found

    def _begin(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if self._round is not None:
            if not self._round.at or now_ns - self._round.since_ns < _PATIENCE_SECONDS * 1e9:
                return
            self._stuck.add(self._round.at)
        else:
            self._due_ns = now_ns + _EVERY_NS
        self._round = _Round()
        threading.Thread(target=self._work, args=(self._round,), name="filesystems", daemon=True).start()

    def _work(self, mine: _Round) -> None:
        found: list[FilesystemUsage] = []
        beyond = 0
        try:
            disks = proc.diskstats(self._root)
            for place in mounted(self._root):
                if len(found) == MOST:
                    beyond += 1
                    continue
                with self._changed:
                    if place.path in self._stuck:
                        continue
                    mine.at, mine.since_ns = place.path, self._clock.monotonic_ns()
                usage = self._measure(place, disks)
                with self._changed:
                    if self._round is not mine:
                        return
                    mine.at = ""
                if usage is not None:
                    found.append(usage)
        finally:
            with self._changed:
                if self._round is mine:
                    self._round, self._found, self._fresh = None, tuple(found), tuple(found)
                    self._rounds += 1
                    self._bounds.note("filesystems", "/", beyond)
                    self._changed.notify_all()
                else:  # given up, but it has answered now
                    self._stuck.discard(mine.at)


class _Round:
    """One look at all file systems: at which it is, and since when."""

    __slots__ = ("at", "since_ns")

    def __init__(self) -> None:
        self.at, self.since_ns = "", 0
