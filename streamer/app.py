"""The composition root: the only file that knows every part. Starts them, stops them in order, owns the signals.

The order of the end: sources stop, the last words are said, sinks deliver what is left, the sidecar closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import itertools
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import streamer
from streamer import logs, systemd, wiring
from streamer.cadvisor.freshness import Freshener
from streamer.cadvisor.operations import Operations
from streamer.cadvisor.processes import ProcessLister
from streamer.clock import SystemClock
from streamer.config import Settings, seconds
from streamer.contracts import Status
from streamer.errors import ConfigError
from streamer.kernel import allocator, hierarchy, proc
from streamer.manager.fleet import Fleet
from streamer.manager.housekeeping import Schedule
from streamer.manager.manager import Manager, Sources
from streamer.manager.narrator import Host
from streamer.memory import Memory
from streamer.model import observations as o
from streamer.model.inventory import Checkpoint, Past
from streamer.model.messages import Message
from streamer.outbox.disk import COMPONENT as STATE
from streamer.outbox.outbox import Outbox
from streamer.outbox.state import REMEDY as STATE_REMEDY
from streamer.outbox.state import directory, open_state
from streamer.sidecar.server import Sidecar
from streamer.sources.bounds import Bounds
from streamer.sources.cgroup import CgroupSampler, CgroupSource
from streamer.sources.docker import DockerSource
from streamer.sources.filesystems import Filesystems
from streamer.sources.kmsg import KmsgSource
from streamer.sources.machine import MachineSource, host_identity
from streamer.telemetry import Telemetry

log = logging.getLogger(__name__)

EX_OK: Final = 0
EX_FAILED: Final = 1
EX_UNAVAILABLE: Final = 69

_SPARE_DESCRIPTORS: Final = 512  # clients, sockets, logs, inspect connections
_NS: Final = 1_000_000_000
_SWITCH_SECONDS: Final = 0.0005
"""How long one thread may keep the others from running Python, instead of 5 ms: a cgroup may be gone in those."""
_COLLECT_AFTER: Final = (20_000, 20, 20)
"""Of gc.set_threshold: messages are freed by their reference counts, so that looking for cycles after every 700 finds nothing."""
_COLLECT_OLDER_EVERY: Final = 20
_COLLECT_ALL_EVERY: Final = 1440
"""Minutes."""
_COLLECT_SECONDS: Final = 60.0
"""Where little happens 20 000 come together in a day only, and what cycles hold is larger than they: a transport of asyncio's, 1 KB."""


class Agent:
    """Everything that runs on one host, put together from the settings."""

    def __init__(self, settings: Settings, *, past: Past | None = None, epoch_before: int = 0) -> None:
        """`past`: what the run before left; `epoch_before`: the newest epoch that was used, the clock may have gone back."""
        past = past or Past()
        self.settings = settings
        self.clock = SystemClock()
        self.telemetry = Telemetry()
        root = settings.host_root
        self.hierarchies = hierarchy.detect(Path(root))
        name, host_id = host_identity(root)
        self.host = Host(
            name=settings.host_name or name,
            id=settings.host_id or host_id,
            boot_id=proc.boot_id(Path(root)),
            epoch=max(self.clock.wall_ns() // 1_000_000, epoch_before + 1),
            version=streamer.__version__,
        )
        self.fleet = Fleet(
            self.host,
            scope=settings.scope,
            labels=wiring.label_filter(settings),
            hierarchical_kills=self.hierarchies.mode == "v2",
            docker=settings.docker.enabled,
            kmsg=settings.kmsg.enabled,
            past=past,
            boot_time_ns=proc.btime(Path(root)) * _NS,
        )
        self.docker = (
            DockerSource(settings.docker, root, self.clock, self.telemetry, resume_after_ns=past.docker_ns)
            if settings.docker.enabled
            else None
        )
        same_boot = past.boot_id == self.host.boot_id
        self.kmsg = (
            KmsgSource("/dev/kmsg", self.clock, self.telemetry, past.kmsg_seq if same_boot else None, proc_root=Path(root) / "proc")
            if settings.kmsg.enabled
            else None
        )
        docker, bounds = self.docker, Bounds()
        filesystems = Filesystems(root, self.clock, bounds=bounds)
        self.sampler = CgroupSampler(
            self.hierarchies, host_root=root, clock=self.clock, telemetry=self.telemetry,
            descriptors=max(0, wiring.raise_descriptor_limit() - _SPARE_DESCRIPTORS),
            network=settings.sampling.network, filesystems=filesystems, bounds=bounds,
            disk_usage=wiring.disk_usage(settings, self.clock, docker),
        )  # fmt: skip
        self.machine = MachineSource(
            root, self.hierarchies.mode, self.clock, filesystems, docker.version if docker else None, bounds, self.telemetry
        )


class Run(Agent):
    """An agent that publishes."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings] | None = None, *, embedded: Memory | None = None) -> None:
        """`embedded`: the memory of a program that this is part of. Signals, systemd and stdout are that program's then."""
        where = directory(settings.state_dir, os.environ, root=os.geteuid() == 0)
        self.state = open_state(where, settings.outbox, SystemClock().wall_ns() // 1_000_000)
        try:
            self._assemble(settings, reload, embedded)
        except BaseException:
            self.state.close()
            raise

    def _assemble(self, settings: Settings, reload: Callable[[], Settings] | None, embedded: Memory | None) -> None:
        super().__init__(settings, past=self.state.past, epoch_before=self.state.epoch_before)
        if self.state.past.epoch:
            self._sign()
        self._read_settings = reload
        self._started_ms = self.clock.wall_ns() // 1_000_000
        self.embedded = embedded is not None
        self.memory = embedded if embedded is not None else Memory(settings.http.samples)
        self.outbox = Outbox(
            self.clock, settings.outbox, settings.publishing.envelope, self.telemetry, self._hear,
            store=self.state.store, trouble=self.state.trouble, sign=self._sign, snapshot=self._snapshot,
        )  # fmt: skip
        for sink, types in wiring.sinks(settings, self.host.id, default=() if self.embedded else wiring.STDOUT):
            self.outbox.add(sink, types)
        if self.docker is not None:
            self.docker.load()
        self.cgroups = CgroupSource(
            self.hierarchies, scope=settings.scope, clock=self.clock, telemetry=self.telemetry,
            rescan_seconds=seconds(settings.sampling.rescan), on_oom=None if self.kmsg is None else self.kmsg.expect,
        )  # fmt: skip
        self.sampler.share_with(self.cgroups.followed, self.cgroups.stirs)
        self.manager = Manager(
            self.fleet,
            Sources(self.cgroups, runtime=self.docker, kernel_log=self.kmsg, others=[self.machine]),
            self.sampler,
            Schedule(wiring.pace(settings), phase=random.random()),
            publish=self._publish,
            clock=self.clock,
            telemetry=self.telemetry,
            heartbeat_seconds=seconds(settings.publishing.heartbeat),
            at_start=self._trouble_at_start(),
        )
        self.sidecar = (
            None
            if settings.http.listen == "off"
            else Sidecar(
                settings.http, self.memory, self._operations(), self.telemetry, self.statuses, self.clock, metrics=settings.metrics
            )
        )
        self.stopping, self.hurry = asyncio.Event(), asyncio.Event()

    def statuses(self) -> list[Status]:
        """How every source and sink is, the state file, and the sidecar."""
        sources = [s.status() for s in (self.cgroups, self.docker, self.kmsg, self.machine) if s is not None]
        disk = self.outbox.disk_status() or wiring.state_status(self.state, self._started_ms)
        sidecar = [] if self.sidecar is None else [self.sidecar.status()]
        off = wiring.switched_off({"docker": self.docker, "kmsg": self.kmsg}, self._started_ms)
        return [*sources, *off, disk, *self.outbox.statuses(), *sidecar]

    def _operations(self) -> Operations:
        return Operations(
            self.memory,
            self.clock,
            freshen=Freshener(self.memory, self.clock, self.manager.hasten),
            processes=ProcessLister(self.hierarchies, self.settings.host_root, self.clock),
        )

    def _trouble_at_start(self) -> list[o.Observation]:
        """What is missing, or will be, because of how the run before ended or what was found of it."""
        found: list[o.Observation] = [*self.outbox.left_unsaid(self.state.past)]
        if self.state.trouble:
            found.append(o.Degraded(STATE, self.clock.wall_ns(), self.state.trouble, STATE_REMEDY))
        return found

    def _sign(self) -> None:
        if self.state.lock is not None:
            self.state.lock.sign(self.host.epoch)

    def _snapshot(self) -> Checkpoint:
        return self.manager.snapshot()

    def _hear(self, observation: o.Observation) -> None:
        self.manager.observe(observation)

    def _publish(self, messages: Sequence[Message], checkpoint: Checkpoint | None) -> None:
        self.outbox.publish(messages, checkpoint, self.memory.remember)

    async def run(self, duration_seconds: float | None) -> int:
        """Until a signal or `stopping`, the end of `duration_seconds`, or a failure. Returns the exit code."""
        held = self.state.held(lambda: self.outbox.has_let_go)
        with contextlib.nullcontext() if self.embedded else self._signals(), held, contextlib.closing(self.sampler):
            if self.sidecar is not None:
                self.sidecar.open()
            self.outbox.start()
            parts = {asyncio.create_task(self.outbox.run(), name="outbox"), asyncio.create_task(self.manager.run(), name="manager")}
            if self.sidecar is not None:
                parts.add(asyncio.create_task(self.sidecar.run(), name="sidecar"))
            try:
                code = await self._until_stopped(parts, duration_seconds)
            finally:
                await cancel(parts)
                kept = await self._close_outbox()
                if self.sidecar is not None:
                    self.sidecar.close()
            left = self._tell_what_is_left(kept)
            return code or left

    async def _until_stopped(self, parts: set[asyncio.Task[None]], duration_seconds: float | None) -> int:
        asked = asyncio.create_task(self._wait_for_end(duration_seconds), name="end")
        ready = asyncio.create_task(self._say_ready(), name="ready")
        try:
            if self.settings.require_sinks and not await self._sinks_reached(asked):
                return EX_UNAVAILABLE
            done, _ = await asyncio.wait({asked, *parts}, return_when=asyncio.FIRST_COMPLETED)
            bugs = [bug for task in parts & done if (bug := task.exception()) is not None]
            for bug in bugs:
                log.critical("a part failed; what was said so far is delivered before the end", exc_info=bug)
            # the outbox alone ends by itself: when the last sink is gone for good, as stdout is after `| head`
            reason = asked.result() if asked in done else f"failed: {bugs[0]!r}" if bugs else "nobody is left to publish to"
            await self._shut_down(parts, reason)
            return EX_FAILED if bugs else EX_OK
        finally:
            await cancel({asked, ready})

    async def _shut_down(self, parts: set[asyncio.Task[None]], reason: str) -> None:
        if not self.embedded:
            systemd.notify("STOPPING=1")
        log.info("stopping: %s", reason)
        by_name = {task.get_name(): task for task in parts}
        await cancel({by_name["manager"]})
        self.manager.stop(reason)
        if by_name["outbox"].done():
            return  # it failed, or nobody is left to publish to
        drained = asyncio.create_task(self.outbox.drain(seconds(self.settings.drain)), name="drain")
        hurried = asyncio.create_task(self.hurry.wait(), name="hurry")
        await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
        await cancel({drained, hurried})

    async def _close_outbox(self) -> bool:
        """Whether all that is left is kept; a second signal does not wait for a disk that hangs."""
        closing = asyncio.create_task(self.outbox.close(), name="close")
        hurried = asyncio.create_task(self.hurry.wait(), name="hurry")
        await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
        kept = closing.done() and closing.result()
        await cancel({closing, hurried})
        return kept

    def _tell_what_is_left(self, kept: bool) -> int:
        """What the sinks have not acknowledged: kept for the next run, or lost."""
        left = {sink: count for sink, count in self.outbox.left().items() if count}
        for sink, count in left.items():
            if kept:
                log.warning("%s: %d messages wait in the state directory for the next start", sink, count)
            else:
                log.error("%s: %d messages could not be delivered before the end", sink, count)
        return EX_FAILED if left and not kept else EX_OK

    def _reload(self) -> None:
        """Take over what can change while running; a configuration with an error changes nothing."""
        if self._read_settings is None:
            return
        try:
            new = self._read_settings()
        except ConfigError as error:
            log.error("the configuration was not reloaded: %s", error)  # noqa: TRY400  the operator's mistake needs no traceback
            return
        old, self.settings = self.settings, new
        logs.configure(new.log_level, new.log_format)
        self.manager.set_pace(wiring.pace(new))
        self.fleet.labels = wiring.label_filter(new)
        self.manager.heartbeat_seconds = seconds(new.publishing.heartbeat)
        fixed = wiring.needs_restart(old, new)
        log.info("configuration reloaded%s", f"; changes of {', '.join(fixed)} take effect at the next start" if fixed else "")

    async def _say_ready(self) -> None:
        await self.cgroups.wait_ready()
        if not self.embedded:
            systemd.notify("READY=1")
        log.info("watching %d containers on %s (cgroup %s)", len(self.fleet), self.host.name, self.hierarchies.mode)

    async def _wait_for_end(self, duration_seconds: float | None) -> str:
        try:
            async with asyncio.timeout(duration_seconds):
                await self.stopping.wait()
        except TimeoutError:
            return "the asked-for duration is over"
        return "asked to stop"

    async def _sinks_reached(self, asked: asyncio.Task[str]) -> bool:
        deadline = self.clock.monotonic_ns() + int(seconds(self.settings.outbox.connect_timeout) * _NS)
        while self.clock.monotonic_ns() < deadline and not asked.done():
            if all(status.state == "ok" for status in self.outbox.statuses()):
                return True
            await asyncio.sleep(0.05)
        for status in self.outbox.statuses():
            if status.state != "ok":
                log.error("%s cannot be reached: %s", status.component, status.reason or "no answer yet")
        return asked.done()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end in order; the second one at once. SIGHUP reads the configuration again."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self.hurry if self.stopping.is_set() else self.stopping).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)


def run(settings: Settings, duration_seconds: float | None = None, reload: Callable[[], Settings] | None = None) -> int:
    """Run the agent; returns the process's exit code. `reload` reads the configuration again, at SIGHUP.

    Raises:
        ConfigError: a sink's URL or the listen address cannot be used.
        Unsupported: this host has no cgroups at all.
    """
    logs.configure(settings.log_level, settings.log_format)
    with contextlib.suppress(RuntimeError, ValueError, OSError):  # no stderr, or one that is no file
        faulthandler.enable()  # an end by SIGSEGV in a library says where it was
    sys.setswitchinterval(_SWITCH_SECONDS)
    allocator.share_one_heap()

    async def main() -> int:
        run = Run(settings, reload)
        gc.freeze()  # what is loaded stays: no collection need look at it
        gc.set_threshold(*_COLLECT_AFTER)
        collecting = asyncio.create_task(_collect(), name="collect")
        try:
            return await run.run(duration_seconds)
        finally:
            await cancel({collecting})

    return asyncio.run(main())


def generations() -> Iterator[int]:
    """Which generation of gc's to look through, minute after minute: the youngest, some milliseconds; those before it now and then.

    Looking at the youngest sets its count back, so that the thresholds of the older ones are never reached by themselves.
    """
    for minute in itertools.count(1):
        yield 2 if minute % _COLLECT_ALL_EVERY == 0 else 1 if minute % _COLLECT_OLDER_EVERY == 0 else 0


async def _collect() -> None:
    """Free what came into cycles, and keep nothing that is free: a start, or an outage, leaves megabytes.

    The latter takes 0.2 ms where little is free, and 0.13 for each MB that there is.
    """
    for generation in generations():
        await asyncio.sleep(_COLLECT_SECONDS)
        gc.collect(generation)
        allocator.give_back()


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End tasks and wait for it. What had failed before was told by whoever watched over it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
