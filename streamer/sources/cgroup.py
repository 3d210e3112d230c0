"""The cgroup source: a thread that watches (`watcher.py`), and one that samples, both handing over to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import structs

from streamer.contracts import Clock, Emit, Look, Status
from streamer.errors import Gone
from streamer.kernel.cgroup import CgroupReader, DescriptorBudget
from streamer.kernel.hierarchy import Hierarchies
from streamer.kernel.proc import sees_host_pids, shares_host_network
from streamer.model import observations as o
from streamer.model.stats import FilesystemUsage, Sample
from streamer.sources.bounds import MOST, Bounds
from streamer.sources.disk_usage import DiskUsage
from streamer.sources.filesystems import Filesystems
from streamer.sources.oom_notices import OomNotices
from streamer.sources.watcher import Watcher
from streamer.telemetry import Telemetry

log = logging.getLogger(__name__)

STRANGE_PIDS = "the agent has a pid namespace of its own: it cannot follow the processes of containers"
BLIND_REMEDY = "streamer check tells which of inotify's limits to raise; until then the tree is scanned"
STRANGE_PIDS_REMEDY = "run it in the host's (docker run --pid host, hostPID: true); until then totals are those of the last sample"

_HOST_PID = 1
"""The process whose network is the host's."""

_QUICK_NICE = -10
"""The watching thread goes first: what it is late for is gone. It works for microseconds at a time."""

_SURVEYED_AT_ONCE = 1000
"""Found at the start before anything of it is told."""

_FACTS_FIRST_SECONDS = 0.002
"""What a fact takes from the kernel to the sinks, most of it."""

_MOST_WAITS = 10
"""In one go: where things happen all the time, samples have their turn too."""

_MORE_TO_COME = 8
_A_FEW = 32
"""Until the next look: so many of those that are followed may come anew, and this many."""


def _nobody() -> int:
    return 0


class CgroupSource:
    """Tells of every cgroup that is, comes and goes. Its thread belongs to `run`."""

    name = "source.cgroup"

    def __init__(
        self,
        hierarchies: Hierarchies,
        *,
        scope: str,
        clock: Clock,
        telemetry: Telemetry,
        rescan_seconds: float,
        on_oom: Callable[[], None] | None = None,
    ) -> None:
        """`on_oom` is called, where the kernel can tell, when a process of some cgroup is about to be killed, and now and then for nothing."""
        self._hierarchies, self._scope, self._clock = hierarchies, scope, clock
        self._telemetry, self._rescan_seconds = telemetry, rescan_seconds
        self._on_oom = on_oom
        self._watcher: Watcher | None = None
        self._seen: deque[o.Observation] = deque()
        self._requests: deque[str] = deque()
        self._status = Status(self.name, "starting", since_ms=clock.wall_ns() // 1_000_000)
        self._ready = asyncio.Event()
        self._surveyed = False
        self._emitted_until_ns = 0
        self._noticed = 0
        self._strange_pids = not sees_host_pids(hierarchies.proc)

    async def run(self, emit: Emit) -> None:
        if self._strange_pids:
            emit(o.Degraded("source.pids", self._clock.wall_ns(), STRANGE_PIDS, STRANGE_PIDS_REMEDY))
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        stopping = threading.Event()
        notices = self._listen(loop)

        def deliver() -> None:
            while self._seen:
                observation = self._seen.popleft()
                emit(observation)
                if notices is not None and isinstance(observation, o.Appeared):
                    # not in the watching thread: a short job ends while that asks; and behind who waits for what was just emitted
                    notices.ask_soon(observation.path, loop)
                elif notices is not None and isinstance(observation, o.Vanished):
                    notices.removed(observation.path)  # at once: what is called next may be the removal's own notice

        def hand_over(observation: o.Observation) -> None:
            self._seen.append(observation)
            # more of them: a delivery is already on its way; at the start, threads that took turns would both take several times as long
            if len(self._seen) == (1 if self._surveyed else _SURVEYED_AT_ONCE):
                loop.call_soon_threadsafe(deliver)

        watcher = self._watcher = Watcher(
            self._hierarchies, scope=self._scope, clock=self._clock, emit=hand_over, rescan_seconds=self._rescan_seconds
        )
        thread = threading.Thread(
            target=self._work, args=(watcher, loop, deliver, stopping, ended), name="cgroup-watch", daemon=True
        )
        thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            stopping.set()
            if not ended.done():
                watcher.wake()
                await ended
            thread.join()
            deliver()
            if notices is not None:
                loop.remove_reader(notices.fd)
                notices.close()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> OomNotices | None:
        """To the kernel's notices, if anybody wants to hear of them."""
        on_oom = self._on_oom
        if on_oom is None:
            return None
        notices = OomNotices(self._hierarchies, self._clock)

        def noticed() -> None:
            if notices.take():
                self._noticed += 1
                on_oom()

        loop.add_reader(notices.fd, noticed)
        return notices

    def _work(
        self,
        watcher: Watcher,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[], None],
        stopping: threading.Event,
        ended: asyncio.Future[None],
    ) -> None:
        """The life of the watching thread."""
        problem: BaseException | None = None
        scans = 0
        try:
            with contextlib.suppress(OSError):  # an ordinary user may not; then it is as quick as any
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _QUICK_NICE)
            watcher.start()
            self._surveyed = True
            loop.call_soon_threadsafe(deliver)
            loop.call_soon_threadsafe(self._ready.set)
            while not stopping.is_set():
                while self._requests:
                    watcher.reread(self._requests.popleft())
                watcher.wait(60.0)
                if watcher.scans != scans:
                    loop.call_soon_threadsafe(self._count_scans, watcher.scans - scans)
                    scans = watcher.scans
            watcher.wait(0.0)  # what has happened until the end is told
        except BaseException as bug:  # noqa: BLE001  carried over to the task, which raises it
            problem = bug
        finally:
            watcher.close()
            loop.call_soon_threadsafe(_settle, ended, problem)

    def _count_scans(self, count: int) -> None:
        self._telemetry.count("streamer_rescans_total", by=count)

    @property
    def known_until_ns(self) -> int:
        """Wall clock until which everything that happened has been emitted, or declared to be missing; 0: not known yet."""
        watcher = self._watcher
        until_ns = watcher.known_until_ns if watcher is not None else 0  # before looking at what waits to be emitted
        if not self._seen:
            self._emitted_until_ns = until_ns
        return self._emitted_until_ns

    def stirs(self) -> int:
        """Goes up with whatever the kernel tells the watching thread; may be asked from any thread."""
        watcher = self._watcher
        return self._noticed + (watcher.stirs if watcher is not None else 0)

    def followed(self) -> int:
        """How many descriptors are held on processes; may be asked from any thread."""
        return 0 if self._watcher is None else len(self._watcher.processes)

    async def wait_ready(self) -> None:
        """Until everything that was there at the start has been told."""
        await self._ready.wait()

    def reread(self, path: str) -> None:
        """Ask for a fresh look at the limits of a cgroup."""
        if self._watcher is not None and self._ready.is_set():
            self._requests.append(path)
            self._watcher.wake()

    def status(self) -> Status:
        watcher = self._watcher
        if watcher is None or not self._ready.is_set():
            return self._status
        trouble, remedy = watcher.blind, BLIND_REMEDY
        if not trouble and self._strange_pids:
            trouble, remedy = STRANGE_PIDS, STRANGE_PIDS_REMEDY
        self._telemetry.set("streamer_source_up", 0 if trouble else 1, self.name)
        state = "degraded" if trouble else "ok"
        if (state, trouble) != (self._status.state, self._status.reason):
            self._status = Status(self.name, state, trouble, remedy if trouble else "", self._clock.wall_ns() // 1_000_000)
        return self._status


def _settle(future: asyncio.Future[None], problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(None)
    else:
        future.set_exception(problem)


class CgroupSampler:
    """Reads samples in a thread of its own: a kernel that takes its time over memory.stat holds up nobody else."""

    def __init__(
        self,
        hierarchies: Hierarchies,
        *,
        host_root: str,
        clock: Clock,
        telemetry: Telemetry,
        descriptors: int,
        network: bool,
        filesystems: Filesystems,
        disk_usage: DiskUsage | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """`descriptors`: that it may hold. `disk_usage`: of containers; None: it is not measured. `bounds` is told of lists that are cut."""
        self._hierarchies, self._host_root, self._clock, self._telemetry = hierarchies, host_root, clock, telemetry
        self._network, self._filesystems, self._disk_usage = network, filesystems, disk_usage
        self._bounds = bounds if bounds is not None else Bounds()
        self._descriptors, self._followed, self._stirs = descriptors, _nobody, _nobody
        self._budget = DescriptorBudget(descriptors)
        self._readers: dict[str, _Held] = {}
        self._ended: deque[str] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cgroup-sample")
        self._closing = threading.Event()

    async def read(self, looks: Sequence[Look]) -> list[o.Sampled]:
        """Sample these cgroups, in order; those that have gone are left out."""
        began = self._clock.monotonic_ns()
        sampled = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, looks)
        self._telemetry.count("streamer_samples_total", by=len(sampled))
        self._telemetry.count("streamer_sampling_seconds_total", by=(self._clock.monotonic_ns() - began) / 1e9)
        self._telemetry.set("streamer_descriptors_held", self._budget.used)
        return sampled

    def share_with(self, followed: Callable[[], int], stirs: Callable[[], int]) -> None:
        """Facts come first; both are called in the thread.

        followed  how many descriptors are held on processes, which have no other way: so many fewer are held here
        stirs     goes up when something happens: for a moment nothing is read then. Each file that is read gives Python's lock
                  away, too short for another thread to wake up, who then waits for `sys.setswitchinterval`; a fact needs it some
                  dozens of times, and would come out when all is read
        """
        self._followed, self._stirs = followed, stirs

    def forget(self, path: str) -> None:
        """Let go of a cgroup that has ended, before the next read."""
        self._ended.append(path)

    def close(self) -> None:
        """End the thread and let go of all descriptors."""
        self._closing.set()
        self._thread.shutdown(wait=True)
        for held in self._readers.values():
            held.reader.close()
        self._readers.clear()
        if self._disk_usage is not None:
            self._disk_usage.close()

    def _read(self, looks: Sequence[Look]) -> list[o.Sampled]:
        while self._ended:
            self._drop(self._ended.popleft())
        followed = self._followed()
        self._budget.limit = max(0, self._descriptors - followed - followed // _MORE_TO_COME - _A_FEW)
        sampled = []
        readers, wall_ns, measures = self._readers, self._clock.wall_ns, self._disk_usage is not None
        stirs, stirred, waits = self._stirs, self._stirs(), 0
        for look in looks:
            if stirs() != stirred and waits < _MOST_WAITS:
                stirred, waits = stirs(), waits + 1
                self._closing.wait(_FACTS_FIRST_SECONDS)
            path = look.path
            held = readers.get(path)
            reader = held.reader if held is not None and held.look is look else self._reader(look)
            if reader is None:
                continue
            try:
                sample = reader.read(wall_ns(), self._measured(path) if measures or path == "/" else ())
            except Gone:
                self._drop(path)
            else:
                if sample.devices or self._bounds.any:
                    sample = self._bounded(path, sample)
                sampled.append(o.Sampled(path, look.inode, sample))
        return sampled

    def _bounded(self, path: str, sample: Sample) -> Sample:
        beyond = len(sample.devices) - MOST
        self._bounds.note("io_devices", path, beyond)
        return sample if beyond <= 0 else structs.replace(sample, devices=sample.devices[:MOST])

    def _measured(self, path: str) -> tuple[FilesystemUsage, ...]:
        if path == "/":
            return self._filesystems.fresh()
        return self._disk_usage.fresh(path) if self._disk_usage is not None else ()

    def _reader(self, look: Look) -> CgroupReader | None:
        held = self._readers.get(look.path)
        if held is None or held.inode != look.inode:
            self._drop(look.path)
            try:
                if os.stat(self._hierarchies.directory(look.hierarchy, look.path)).st_ino != look.inode:
                    return None  # the name belongs to another one by now
                held = _Held(look.inode, CgroupReader(self._hierarchies, look.path, self._budget))
            except (OSError, Gone):
                return None
            self._readers[look.path] = held
        held.look = look
        pid = _HOST_PID if look.path == "/" else look.pid
        if self._network and held.pid != pid:
            held.pid = pid
            own = pid == _HOST_PID or (pid > 0 and not shares_host_network(self._host_root, pid))
            held.reader.set_net_dev_pid(pid if own else 0)
        return held.reader

    def _drop(self, path: str) -> None:
        held = self._readers.pop(path, None)
        if held is not None:
            held.reader.close()
        if self._disk_usage is not None:
            self._disk_usage.forget(path)
        self._bounds.note("io_devices", path, 0)


class _Held:
    """A reader that is kept, for which cgroup, and whose network it was given; `look` is what it was asked for last."""

    __slots__ = ("inode", "look", "pid", "reader")

    def __init__(self, inode: int, reader: CgroupReader) -> None:
        self.inode, self.reader, self.pid = inode, reader, 0
        self.look: Look | None = None
