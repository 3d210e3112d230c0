"""Where the time of a sample goes: each stage of the agent's pipeline alone, in this process, round after round."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import UNSET, structs

from benchmarks import report
from streamer.clock import SystemClock, rfc3339
from streamer.config import Outbox as OutboxSettings
from streamer.config import Publishing, SinkSettings
from streamer.contracts import Sink
from streamer.kernel.cgroup import CgroupReader, DescriptorBudget
from streamer.kernel.hierarchy import Hierarchies
from streamer.manager.fleet import Fleet
from streamer.manager.narrator import Host, Now
from streamer.memory import Memory
from streamer.model.messages import STATS, Again, Message
from streamer.model.observations import Appeared, Sampled
from streamer.model.spec import ContainerSpec
from streamer.model.stats import Sample
from streamer.model.wire import Entry, encode
from streamer.outbox.backlog import Backlog
from streamer.outbox.delivery import Delivery
from streamer.sinks import make
from streamer.telemetry import Telemetry
from streamer.wiring import raise_descriptor_limit

_STAGE_SECONDS: Final = 1.0
_BATCHES: Final = 2  # in a second: what the manager reads, says and sends together
_PACED_SECONDS: Final = 4
_LANE_BYTES: Final = 64_000_000
_ROUNDS_REMEMBERED: Final = 64  # memory packs several samples of a container together
_MOVING: Final = (
    "cpu_usage_ns", "cpu_user_ns", "cpu_system_ns", "memory_usage_bytes", "memory_working_set_bytes", "memory_rss_bytes",
    "memory_mapped_file_bytes", "memory_kernel_bytes", "memory_page_faults", "psi_cpu_some_ns", "psi_cpu_full_ns",
)  # fmt: skip
"""What moves in a container that computes and takes and gives back memory."""

_T = TypeVar("_T")


class Stages(NamedTuple):
    """CPU of this process, all threads, in µs per sample and stage."""

    us: dict[str, float]

    def table(self) -> str:
        """As Markdown."""
        return report.table(["stage", "µs"], [(name, f"{us:.1f}") for name, us in self.us.items()])


def measure(hierarchies: Hierarchies, paths: Sequence[str], sinks: dict[str, str]) -> Stages:
    """Read, observe, encode, remember, queue and send the samples of these cgroups; `sinks`: name -> URL."""
    clock = SystemClock()
    budget = DescriptorBudget(raise_descriptor_limit())
    readers = [CgroupReader(hierarchies, path, budget) for path in paths]
    us: dict[str, float] = {}
    try:

        def read() -> list[Sample]:
            return [reader.read(clock.wall_ns()) for reader in readers]

        us["read: cgroup files to values"] = _cost(read, len(paths))
        samples = read()
    finally:
        for reader in readers:
            reader.close()
    fleet = Fleet(Host("host", "0" * 32, "boot", 1, "0"), docker=False)
    for inode, path in enumerate(paths):
        fleet.observe(
            Appeared(path, hierarchies.anchor, inode, clock.wall_ns(), "live", ContainerSpec()),
            Now(clock.wall_ns(), clock.monotonic_ns()),
        )
    sampled = [Sampled(path, inode, sample) for inode, (path, sample) in enumerate(zip(paths, samples, strict=True))]

    def observe() -> list[Message]:
        return fleet.sampled(sampled, Now(clock.wall_ns(), clock.monotonic_ns()))

    us["fleet: values to message"] = _cost(observe, len(paths))
    messages = observe()

    def encoded() -> list[Entry]:
        return [encode(message, position, 0) for position, message in enumerate(messages, 1)]

    us["wire: message to JSON"] = _cost(encoded, len(paths))
    entries = encoded()
    us["memory: kept for queries, idle"] = _remembering(messages, entries)
    us["memory: kept for queries, busy"] = _remembering(messages, entries, moving=_MOVING)
    us["backlog: in and out"] = _cost(lambda: _queue(entries), len(paths))
    for name, url in sinks.items():
        us[f"sink {name}: to acknowledgement"] = asyncio.run(_sending(make(SinkSettings(url=url), Publishing(), "0" * 32), entries))
        us[f"outbox and sink {name}: at the agent's pace"] = asyncio.run(
            _delivering(make(SinkSettings(url=url), Publishing(), "0" * 32), messages)
        )
    return Stages(us)


def _cost(stage: Callable[[], object], samples: int) -> float:
    stage()  # warm
    rounds, began, end = 0, time.process_time(), time.monotonic() + _STAGE_SECONDS
    while rounds == 0 or time.monotonic() < end:
        stage()
        rounds += 1
    return (time.process_time() - began) * 1e6 / (rounds * samples)


def _remembering(messages: Sequence[Message], entries: Sequence[Entry], moving: Sequence[str] = ()) -> float:
    """`moving`: the columns that are greater each time."""
    memory, spent, rounds, end = Memory(120), 0.0, 0, time.monotonic() + _STAGE_SECONDS
    while rounds < _ROUNDS_REMEMBERED or time.monotonic() < end:
        messages = [_later(message, moving) for message in messages]
        began = time.process_time()
        for message, entry in zip(messages, entries, strict=True):
            memory.remember(message, entry)
        spent += time.process_time() - began
        rounds += 1
    if memory.ignored:
        raise AssertionError("what was not kept was measured")
    return spent * 1e6 / (rounds * len(messages))


def _later(message: Message, moving: Sequence[str]) -> Message:
    """The sample of a second later, which was said after this one."""
    time_ms = message.time_ms + 1000
    time_ns = time_ms * 1_000_000
    record: Any = message.record
    if not moving and type(record) is Again:
        later = structs.replace(record, seq=record.seq + 1, time=rfc3339(time_ns), time_ns=time_ns)
        return message._replace(time_ms=time_ms, record=later)
    record = message.whole
    values = {name: getattr(record, name) for name in moving}
    return message._replace(
        time_ms=time_ms,
        record=structs.replace(
            record,
            seq=record.seq + 1,
            time=rfc3339(time_ns),
            time_ms=time_ms,
            **{name: value + 4096 + record.seq % 7 for name, value in values.items() if value is not UNSET},
        ),
    )


def _queue(entries: Sequence[Entry]) -> None:
    backlog = Backlog(memory_bytes=_LANE_BYTES)
    for batch in _batches(entries):
        backlog.offer_all(batch)
        while backlog.take(1000, 900_000):
            backlog.settle()


def _batches(all_: Sequence[_T]) -> list[Sequence[_T]]:
    size = max(1, len(all_) // _BATCHES)
    return [all_[at : at + size] for at in range(0, len(all_), size)]


async def _sending(sink: Sink, entries: Sequence[Entry]) -> float:
    await sink.connect()
    try:
        rounds, began, end = 0, time.process_time(), time.monotonic() + _STAGE_SECONDS
        while rounds == 0 or time.monotonic() < end:
            for batch in _batches(entries):
                await sink.send(batch)
            rounds += 1
        return (time.process_time() - began) * 1e6 / (rounds * len(entries))
    finally:
        await sink.close()


async def _delivering(sink: Sink, messages: Sequence[Message]) -> float:
    """As in life: a batch offered every so often, gathered, sent, settled; each new, as what was just encoded is still in the cache."""
    delivery = Delivery(
        sink,
        frozenset({STATS.short}),
        settings=OutboxSettings(),
        clock=SystemClock(),
        telemetry=Telemetry(),
        emit=lambda _: None,
        chance=random.random,
        on_loss=lambda: None,
        on_settled=lambda *_: None,
    )
    running = asyncio.create_task(delivery.run())
    loop, position, encoding = asyncio.get_running_loop(), time.time_ns() // 1000, 0.0
    try:
        while delivery.status().state != "ok":  # noqa: ASYNC110  a status has no event
            await asyncio.sleep(0.01)
        cpu, began, count = time.process_time(), loop.time(), 0
        for turn in range(_PACED_SECONDS):
            for number, batch in enumerate(_batches(messages)):
                await asyncio.sleep(began + turn + number / _BATCHES - loop.time())
                at = time.process_time()
                entries = [encode(message, position + index, time.time_ns() // 1_000_000) for index, message in enumerate(batch, 1)]
                encoding += time.process_time() - at
                position += len(batch)
                count += len(batch)
                delivery.offer(entries)
        await delivery.drain()
        return (time.process_time() - cpu - encoding) * 1e6 / count
    finally:
        running.cancel()
        await asyncio.wait([running])
