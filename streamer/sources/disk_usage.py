"""How much disk Docker's containers take: their writable layers and the engine's files about them, walked through now and then.

One walk at a time, in a thread that rests four times as long as it works and asks the disk only when nobody else does.
It keeps the CPU priority of the others: a thread that is put off while it holds the interpreter puts them off, too.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from streamer.contracts import Clock
from streamer.kernel import proc
from streamer.model.runtimes import owner
from streamer.model.stats import FilesystemUsage
from streamer.sources.docker_api import Place, inside
from streamer.sources.filesystems import mounts, printable

_BLOCK_BYTES: Final = 512  # of st_blocks, whatever the file system's own are (stat(2))
_LONG_NS: Final = 2_000_000_000
_LONGEST_WAIT_NS: Final = 20 * 60_000_000_000
_ASK_AGAIN_NS: Final = 1_000_000_000  # until the engine has said where a container's files are
_WORK_NS: Final = 5_000_000
_RESTS: Final = 4
_ENTRIES_A_STEP: Final = 200


class DiskUsage:
    """Measures each container that is asked about once an interval, less often where a walk takes long.

    `fresh` and `forget` are for one thread, the sampler's; neither of them waits.

    place_of  what the engine said of a container by its id; None: nothing yet
    """

    def __init__(self, host_root: str, clock: Clock, interval_seconds: float, place_of: Callable[[str], Place | None]) -> None:
        self._root, self._clock, self._place_of = Path(host_root), clock, place_of
        self._interval_ns = int(interval_seconds * 1e9)
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()  # of the two below
        self._waiting: deque[_Watched] = deque()
        self._working = False
        self._stopping = threading.Event()

    def fresh(self, path: str) -> tuple[FilesystemUsage, ...]:
        """What was measured of this cgroup's container since it was asked for last, each measurement once."""
        watched = self._watched.get(path)
        if watched is None:
            watched = self._watched[path] = _Watched(_docker_id(path), self._interval_ns)
        if watched.busy:
            return ()
        measured, watched.measured = watched.measured, ()
        now_ns = self._clock.monotonic_ns()
        if now_ns >= watched.due_ns:
            watched.place = self._place_of(watched.container_id)
            if watched.place is None:
                watched.due_ns = now_ns + _ASK_AGAIN_NS
            else:
                self._measure_soon(watched)
        return measured

    def forget(self, path: str) -> None:
        """Let go of a cgroup that has ended."""
        watched = self._watched.pop(path, None)
        if watched is not None:
            watched.gone = True

    def close(self) -> None:
        """End the walk that is under way; nothing is measured any more."""
        self._stopping.set()

    def _measure_soon(self, watched: _Watched) -> None:
        watched.busy = True
        with self._lock:
            self._waiting.append(watched)
            if not self._working and not self._stopping.is_set():
                self._working = True
                threading.Thread(target=self._work, name="disk-usage", daemon=True).start()

    # in the thread

    def _work(self) -> None:
        _ask_the_disk_last()
        while True:
            with self._lock:
                if not self._waiting or self._stopping.is_set():
                    self._working = False
                    return
                watched = self._waiting.popleft()
            self._measure(watched)

    def _measure(self, watched: _Watched) -> None:
        pace = _Pace(self._clock, lambda: watched.gone or self._stopping.is_set(), self._stopping.wait)
        with contextlib.suppress(OSError):  # not for us, or it has just ended
            watched.measured = _measured(self._root, watched.container_id, watched.place or Place(), pace)
        # It costs others, or there is nothing to see: look less often.
        less = pace.worked_ns() > _LONG_NS or not watched.measured
        watched.wait_ns = max(self._interval_ns, min(2 * watched.wait_ns, _LONGEST_WAIT_NS)) if less else self._interval_ns
        watched.due_ns = self._clock.monotonic_ns() + watched.wait_ns
        watched.busy = False  # last: from here on it is the sampler's again


class _Watched:
    """A cgroup that is asked about. While `busy` it is the walking thread's, otherwise the sampler's."""

    __slots__ = ("busy", "container_id", "due_ns", "gone", "measured", "place", "wait_ns")

    def __init__(self, container_id: str, wait_ns: int) -> None:
        self.container_id, self.wait_ns = container_id, wait_ns
        self.due_ns = 0
        self.place: Place | None = None
        self.measured: tuple[FilesystemUsage, ...] = ()
        self.busy = not container_id  # whose is not Docker's is never measured
        self.gone = False


class _Pace:
    """Holds up a walk so that it works a part of the time only, and ends it when nobody wants it any more."""

    def __init__(self, clock: Clock, unwanted: Callable[[], bool], rest: Callable[[float], object]) -> None:
        self._clock, self._unwanted, self._rest = clock, unwanted, rest
        self._worked_ns = 0
        self._since_ns = clock.monotonic_ns()

    def worked_ns(self) -> int:
        """How long it has worked, without its rests."""
        return self._worked_ns + self._clock.monotonic_ns() - self._since_ns

    def step(self) -> None:
        """Rest, if it is time to.

        Raises:
            InterruptedError: the walk is not wanted any more.
        """
        worked_ns = self._clock.monotonic_ns() - self._since_ns
        if worked_ns >= _WORK_NS:
            self._worked_ns += worked_ns
            self._rest(_RESTS * worked_ns / 1e9)
            self._since_ns = self._clock.monotonic_ns()
        if self._unwanted():
            raise InterruptedError


class Tree(NamedTuple):
    """What is in a directory, itself included: bytes on disk, and files and directories. What has several names counts once."""

    bytes: int
    inodes: int


def walked(directory: Path, step: Callable[[], None] = lambda: None) -> Tree:
    """Walk through a directory, not into other file systems; what vanishes meanwhile is left out.

    Raises:
        OSError: the directory itself is not there or not for us.
    """
    top = os.lstat(directory)
    blocks, inodes = top.st_blocks, 1
    linked: set[int] = set()
    below = [os.fspath(directory)]
    os.scandir(directory).close()
    while below:
        step()
        for number, (path, about) in enumerate(_entries(below.pop()), 1):
            if number % _ENTRIES_A_STEP == 0:
                step()
            if about.st_dev != top.st_dev or about.st_ino in linked:
                continue
            blocks += about.st_blocks
            inodes += 1
            if stat.S_ISDIR(about.st_mode):
                below.append(path)
            elif about.st_nlink > 1:
                linked.add(about.st_ino)
    return Tree(blocks * _BLOCK_BYTES, inodes)


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    about = entry.stat(follow_symlinks=False)
                except OSError:  # it has vanished
                    continue
                yield entry.path, about
    except OSError:  # the directory has
        return


def _measured(root: Path, container_id: str, place: Place, pace: _Pace) -> tuple[FilesystemUsage, ...]:
    """The layer, and what the engine keeps about the container; () where there is no layer in a directory of its own."""
    upper = place.upper or _upper_directory(root, place.pid)
    if not upper:
        return ()
    directory = inside(root, upper)
    layer = walked(directory, pace.step)
    home_bytes = 0
    if home := place.home or _home(upper, container_id):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            home_bytes = walked(inside(root, home), pace.step).bytes
    size = os.statvfs(directory)
    mount = _mount_of(root, f"/{directory.relative_to(root)}")
    return (
        FilesystemUsage(
            device=printable(mount.source) if mount else "",
            fstype=mount.fstype if mount else "",
            capacity_bytes=size.f_blocks * size.f_frsize,
            usage_bytes=layer.bytes + home_bytes,
            layer_bytes=layer.bytes,
            inodes_used=layer.inodes,
        ),
    )


def _upper_directory(root: Path, pid: int) -> str:
    """Of the overlay that is a process's root: where the engine does not say it (containerd's snapshots)."""
    try:
        mounted = list(proc.parse_mountinfo(proc.read(root / f"proc/{pid}/mountinfo"))) if pid else []
    except OSError:  # it has ended
        return ""
    options = [option for mount in mounted if (mount.mountpoint, mount.fstype) == ("/", "overlay") for option in mount.options]
    return next((upper for option in options if (upper := option.removeprefix("upperdir=")) != option), "")


def _home(upper: str, container_id: str) -> str:
    """`<docker's root>/overlay2/<layer>/diff` -> `<docker's root>/containers/<id>`."""
    parts = upper.rsplit("/", 3)
    return f"{parts[0]}/containers/{container_id}" if len(parts) == 4 and parts[1] in ("overlay2", "fuse-overlayfs") else ""


def _mount_of(root: Path, path: str) -> proc.Mount | None:
    """The mount on which a path of the host lies: the deepest one, of several at one place the last."""
    holding = [m for m in mounts(root) if f"{path}/".startswith(f"{m.mountpoint.rstrip('/')}/")]
    return max(reversed(holding), key=lambda mount: len(mount.mountpoint), default=None)


def _docker_id(path: str) -> str:
    whose = owner(path)
    return whose.container_id if whose is not None and whose.runtime == "docker" else ""


def _ask_the_disk_last() -> None:
    """This thread's reads wait for those of all others (ioprio_set(2)), where the disk's scheduler knows of that."""
    import psutil

    with contextlib.suppress(OSError, psutil.Error):
        psutil.Process(threading.get_native_id()).ionice(psutil.IOPRIO_CLASS_IDLE)
