"""The tasks: hear the sources, sample what is due, say what the fleet decides. Thin: decisions are in `fleet`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from streamer.clock import to_next
from streamer.contracts import CgroupWatch, Clock, KernelLog, Publish, Runtime, Sampler, Source
from streamer.manager.fleet import Fleet
from streamer.manager.housekeeping import Pace, Schedule
from streamer.manager.narrator import Now
from streamer.manager.watchdog import Watchdog
from streamer.model import observations as o
from streamer.model.inventory import Checkpoint
from streamer.model.messages import CONTROL, Control, Message
from streamer.telemetry import Telemetry

log = logging.getLogger(__name__)

_AT_ONCE: Final = 100  # samples said before facts that came meanwhile have their turn: some 2 ms where they say nothing new
_FIRST_LOOK_SECONDS: Final = 0.05  # after this a runtime has made the directories of a container in all hierarchies
_KEEP_TOTALS_NS: Final = 60_000_000_000  # totals of all containers are written down this often: a crash makes them no older
_LOOK_SECONDS: Final = 1.0
_TICK_SECONDS: Final = 0.01  # while something waits for a runtime's word


_TOLD_TO_THE_LOG: Final = ("degraded", "recovered", "gap")  # also when no sink can be reached to hear of it


def _log(said: Control, telemetry: Telemetry) -> None:
    if said.kind == "gap":
        telemetry.count("streamer_gaps_total", said.component or "")
    remedy = f" ({said.remedy})" if said.remedy else ""
    log.log(
        logging.INFO if said.kind == "recovered" else logging.WARNING,
        "%s %s: %s%s",
        said.kind,
        said.component,
        said.reason or "works",
        remedy,
    )


class Sources:
    """What the manager hears. None: not configured."""

    def __init__(
        self,
        cgroups: CgroupWatch,
        *,
        runtime: Runtime | None = None,
        kernel_log: KernelLog | None = None,
        others: Sequence[Source] = (),
    ) -> None:
        self.cgroups, self.runtime, self.kernel_log = cgroups, runtime, kernel_log
        self.all: list[Source] = [s for s in (kernel_log, runtime, cgroups, *others) if s is not None]


class Manager:
    """Runs the sources and the sampling of one host; everything said goes to `publish`, in order."""

    def __init__(
        self,
        fleet: Fleet,
        sources: Sources,
        sampler: Sampler,
        schedule: Schedule,
        *,
        publish: Publish,
        clock: Clock,
        telemetry: Telemetry,
        heartbeat_seconds: float,
        at_start: Sequence[o.Observation] = (),
    ) -> None:
        """`at_start`: what is to be said right after `started`."""
        self._fleet, self._sources, self._sampler, self._schedule = fleet, sources, sampler, schedule
        self._publish, self._clock, self._telemetry = publish, clock, telemetry
        self.heartbeat_seconds = heartbeat_seconds
        self._at_start = at_start
        self._watch = Watchdog(self._now())
        self._kept_ns = clock.monotonic_ns()
        self._more_to_sample = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._bug: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until cancelled. A bug in any part ends all of it."""
        now = self._now()
        said = self._fleet.started(now)
        for observation in self._at_start:
            said += self._fleet.observe(observation, now)
        self._say(said)  # all at once: with the first checkpoint of this run, what the run before left is said too
        self._tick_soon()
        async with asyncio.TaskGroup() as group:
            for source in self._sources.all:
                group.create_task(source.run(self.observe), name=source.name)
            group.create_task(self._raise_bugs(), name="bugs")
            group.create_task(self._sample(), name="sample")
            group.create_task(self._heartbeats(), name="heartbeats")
            group.create_task(self._watch_clocks(), name="clocks")

    def stop(self, reason: str) -> None:
        """Say the last words; call after `run` has ended."""
        if self._tick is not None:
            self._tick.cancel()
        self._say(self._fleet.stopped(self._now(), reason))

    def snapshot(self) -> Checkpoint:
        """Everything that is to be kept over a restart, as it is now."""
        return self._with_cursors(self._fleet.checkpoint((), whole=True))

    def set_pace(self, pace: Pace) -> None:
        """Sample at another pace from now on."""
        self._schedule.set_pace(pace, self._clock.monotonic_ns())
        self._more_to_sample.set()

    def hasten(self, paths: Sequence[str]) -> None:
        """Sample these cgroups as soon as can be; those that are not there are left out."""
        for path in paths:
            self._schedule.hasten(path, self._clock.monotonic_ns())
        self._more_to_sample.set()

    def observe(self, observation: o.Observation) -> None:
        """Hear one observation. Never blocks; called on the event loop."""
        try:
            self._observe(observation)
        except Exception as bug:  # noqa: BLE001  a callback has nobody to raise to: `run` raises it
            self._fail(bug)

    def _observe(self, observation: o.Observation) -> None:
        self._telemetry.count("streamer_observations_total", type(observation).__name__)
        if isinstance(observation, o.Emptied | o.Vanished) and self._sources.kernel_log is not None:
            # A kill that ended it stands in the log already, and is told first; at the last process's end this is milliseconds
            # before the kernel wakes those who wait for the log, which it does at its next tick.
            self._sources.kernel_log.drain()
        self._say(self._fleet.observe(observation, self._now()))
        self._follow_up(observation)  # whom it wakes has his turn behind those who wait for what was said
        self._tick_soon()

    def _tick_soon(self) -> None:
        if self._tick is None and self._fleet.next_due() is not None:
            self._tick = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        try:
            if self._sources.kernel_log is not None:
                self._sources.kernel_log.drain()  # before a counter's word is taken for a kill that the log tells of, too
            self._say(self._fleet.tick(self._now()))
            self._tick_soon()
        except Exception as bug:  # noqa: BLE001  as in `observe`
            self._fail(bug)

    def _fail(self, bug: Exception) -> None:
        if not self._bug.done():
            self._bug.set_exception(bug)

    def _follow_up(self, observation: o.Observation) -> None:
        """What is to be done, beyond saying it."""
        if isinstance(observation, o.Appeared):
            container = self._fleet.get(observation.path)
            if container is not None and container.inode == observation.inode:
                self._schedule.add(observation.path, self._clock.monotonic_ns())
                self._more_to_sample.set()
                if self._sources.runtime is not None and container.owner.runtime == "docker" and container.details.name is None:
                    self._sources.runtime.request(container.owner.container_id)
        elif isinstance(observation, o.Vanished):
            if self._fleet.get(observation.path) is None:
                self._schedule.remove(observation.path)
                self._sampler.forget(observation.path)
        elif isinstance(observation, o.RuntimeEvent) and observation.action in ("start", "update"):
            for container in self._fleet.present(observation.container_id):
                self._sources.cgroups.reread(container.path)

    async def _raise_bugs(self) -> None:
        await self._bug

    async def _sample(self) -> None:
        while True:
            due = self._schedule.next_due()
            if due is None:
                self._more_to_sample.clear()
                await self._more_to_sample.wait()
                continue
            if await self._newcomer_within(max(0.0, (due - self._clock.monotonic_ns()) / 1e9)):
                self._more_to_sample.clear()
                await asyncio.sleep(_FIRST_LOOK_SECONDS)
            paths, skipped = self._schedule.due(self._clock.monotonic_ns(), random.random())
            if skipped:
                self._telemetry.count("streamer_samples_skipped_total", by=skipped)
                self._watch.skipped(skipped, self._now())
            looks = [container.look() for path in paths if (container := self._fleet.get(path)) is not None]
            taken = await self._sampler.read(looks)
            for first in range(0, len(taken), _AT_ONCE):
                self._sampled(taken[first : first + _AT_ONCE])
                await asyncio.sleep(0)

    async def _newcomer_within(self, limit_seconds: float) -> bool:
        """Wait; True as soon as there is a container that was never looked at: it may not live until the next batch."""
        try:
            async with asyncio.timeout(limit_seconds):
                return await self._more_to_sample.wait()
        except TimeoutError:
            return False

    def _sampled(self, taken: list[o.Sampled]) -> None:
        for sampled in taken if self._schedule.pace.dynamic else ():
            if (container := self._fleet.get(sampled.path)) is not None:
                self._schedule.seen(sampled.path, idle=container.idle(sampled.sample))
        said = self._fleet.sampled(taken, self._now())
        self._telemetry.count("streamer_observations_total", "Sampled", by=len(taken))
        self._say(said)

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_seconds)
            now = self._now()
            self._say(self._fleet.heartbeat(now))
            if now.monotonic_ns - self._kept_ns >= _KEEP_TOTALS_NS:
                self._kept_ns = now.monotonic_ns
                self._publish((), self.snapshot())

    async def _watch_clocks(self) -> None:
        """Once a second: whether the wall clock was set, and what sampling has left out."""
        while True:
            await asyncio.sleep(to_next(_LOOK_SECONDS, self._clock.monotonic_ns() / 1e9))
            for lost in self._watch.look(self._now()):
                self.observe(lost)

    def _say(self, messages: list[Message]) -> None:
        if not messages:
            return
        topics = Counter([message.topic for message in messages])
        for topic, count in topics.items():
            self._telemetry.count("streamer_messages_total", topic.type, by=count)
        if CONTROL in topics:
            for message in messages:
                if isinstance(message.record, Control) and message.record.kind in _TOLD_TO_THE_LOG:
                    _log(message.record, self._telemetry)
        self._telemetry.set("streamer_containers", len(self._fleet))
        lasting = any(topic.lane == "durable" for topic in topics)
        self._publish(messages, self._with_cursors(self._fleet.checkpoint(messages)) if lasting else None)

    def _with_cursors(self, point: Checkpoint) -> Checkpoint:
        """How far the sources were read, without what waits to be told."""
        log, runtime = self._sources.kernel_log, self._sources.runtime
        settled = log.settled_seq if log is not None else None
        seq, said = (None, ()) if settled is None else self._fleet.log_cursor(settled)
        docker_ns = runtime.last_event_ns if runtime is not None else None
        known_ns = self._sources.cgroups.known_until_ns if self._fleet.surveyed else 0
        return structs.replace(point, alive_ns=known_ns or point.alive_ns, kmsg_seq=seq, kmsg_said=said, docker_ns=docker_ns)

    def _now(self) -> Now:
        return Now(self._clock.wall_ns(), self._clock.monotonic_ns())
