"""A long outage: what waits for a dead sink takes of memory and disk, what is dropped, how it drains, and whether facts queue.

The time is simulated, the messages, the outbox and its state file are the real ones. First, in the same run, what writing
through to the state file adds to the time from a fact to the moment in which a sink is offered it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks import report
from benchmarks.command import progress
from benchmarks.messages import Tenants
from streamer.config import Outbox as OutboxSettings
from streamer.contracts import Receipt
from streamer.model.inventory import Checkpoint
from streamer.model.messages import TOPICS, Message
from streamer.model.observations import Lost, Observation
from streamer.model.wire import Entry
from streamer.outbox.outbox import Outbox
from streamer.outbox.state import limits
from streamer.outbox.store import Store
from streamer.telemetry import Telemetry

_ALL: Final = frozenset(topic.short for topic in TOPICS)
_MS: Final = 1_000_000
_FACTS: Final = 500
_PAUSE_SECONDS: Final = 0.004
_LIVE_EVERY_SECONDS: Final = 0.02


class _Clock:
    """Wall time as the benchmark says."""

    def __init__(self) -> None:
        self.now_ns = time.time_ns()

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class _Sink:
    """Takes nothing until it is `open`, then everything at once; notes when it is offered what."""

    name = "kafka"

    def __init__(self) -> None:
        self.open, self.got = asyncio.Event(), asyncio.Event()
        self.taken = 0
        self.at: dict[str, float] = {}

    async def connect(self) -> None:
        await self.open.wait()

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        now = time.perf_counter()
        self.taken += len(batch)
        if batch[0].topic.lane == "durable":
            self.at.update((entry.id, now) for entry in batch)
            self.got.set()
        await asyncio.sleep(0)
        return Receipt()

    async def close(self) -> None: ...

    def describe(self) -> str:
        return "kafka://nowhere"


class _Run:
    """An outbox, with or without a state file, and what it declared lost."""

    def __init__(self, where: Path | None, settings: OutboxSettings) -> None:
        self.clock, self.sink, self.lost = _Clock(), _Sink(), 0
        self.settings = settings
        store = Store(where, limits(settings), synchronous=settings.sync) if where is not None else None
        if store is not None:
            store.open()
        self.outbox = Outbox(self.clock, settings, "binary", Telemetry(), self._hear, store=store)
        self.outbox.add(self.sink, _ALL)
        self.kept = store is not None

    def _hear(self, seen: Observation) -> None:
        self.lost += (seen.count or 0) if isinstance(seen, Lost) else 0

    def publish(self, messages: Sequence[Message]) -> None:
        self.outbox.publish(messages, Checkpoint(epoch=1, boot_id="b", alive_ns=self.clock.now_ns) if self.kept else None)

    async def __aenter__(self) -> _Run:
        self.outbox.start()
        self._task = asyncio.create_task(self.outbox.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.outbox.close()


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks outage`."""
    parser.add_argument("--containers", type=int, default=50, metavar="N", help="each sampled once a simulated second")
    parser.add_argument("--hours", type=float, default=10.0, metavar="H", help="of outage")
    parser.add_argument("--events", type=int, default=60, metavar="N", help="messages of lives in each simulated minute")
    parser.add_argument("--save", action="store_true", help="write the report and the raw figures to benchmarks/results/")


def run(args: argparse.Namespace) -> int:
    """Measure, print, save."""
    sys.setswitchinterval(0.0005)  # as the agent does
    with tempfile.TemporaryDirectory(prefix="streamer-outage-") as place:
        added = asyncio.run(_write_through(Path(place)))
        hours, facts = asyncio.run(_outage(Path(place), args))
    text = "\n\n".join(
        [
            report.table(["fact to offered, ms", "p50", "p99"], added),
            report.table(["simulated hour", "RSS MB", "state file MB", "waiting", "declared lost"], hours),
            report.table(["", ""], facts),
        ]
    )
    print(text)
    if args.save:
        figures = {"machine": report.machine(), "write_through": added, "hours": hours, "drain": facts}
        report.save(f"outage-{args.containers}x{args.hours:g}h", text, figures)
    return 0


async def _write_through(place: Path) -> list[tuple[str, str, str]]:
    """The same facts, one at a time, without a state file and with one that commits, or syncs, each of them."""
    rows = []
    for name, settings in (
        ("in memory", None), ("sync = normal", OutboxSettings()), ("sync = full", OutboxSettings(sync="full")),
    ):  # fmt: skip
        where = None if settings is None else place / name.split()[-1]
        if where is not None:
            where.mkdir()
        async with _Run(where, settings or OutboxSettings()) as one:
            one.sink.open.set()
            took = [await _one(one, message) for message in Tenants(10).events(_FACTS) if message.record is not None]
        took.sort()
        rows.append((name, f"{statistics.median(took):.2f}", f"{took[int(len(took) * 0.99)]:.2f}"))
    return rows


async def _one(one: _Run, message: Message) -> float:
    assert message.record is not None
    began = time.perf_counter()
    one.publish([message])
    while message.record.id not in one.sink.at:
        one.sink.got.clear()
        await one.sink.got.wait()
    await asyncio.sleep(_PAUSE_SECONDS)
    return (one.sink.at[message.record.id] - began) * 1000


async def _outage(place: Path, args: argparse.Namespace) -> tuple[list[tuple[str, ...]], list[tuple[str, str]]]:
    where = place / "outage"
    where.mkdir()
    tenants = Tenants(args.containers)
    seconds = int(args.hours * 3600)
    samples = tenants.stats(seconds * args.containers)
    rows: list[tuple[str, ...]] = []
    async with _Run(where, OutboxSettings()) as one:
        one.publish(tenants.born)
        said = len(tenants.born)
        for second in range(seconds):
            one.clock.now_ns += 1000 * _MS
            some = [message for _, message in zip(range(args.containers), samples, strict=False)]
            if second % 3600 == 0:  # the lives of an hour are another host's: what a fleet remembers of them is not measured here
                events = Tenants(1, seed=second).events(60 * args.events)
            if second % 60 == 0:
                some += [message for _, message in zip(range(args.events), events, strict=False)]
            one.publish(some)
            said += len(some)
            await (one.outbox.flush() if second % 50 == 0 else asyncio.sleep(0))
            if second % 3600 == 3599 or second == 60:
                rows.append(_row(one, where, second))
                progress(f"{(second + 1) / 3600:.1f} h simulated, {rows[-1][1]} MB")
        await one.outbox.flush()
        facts = await _drain(one, said)
    return rows, facts


def _row(one: _Run, where: Path, second: int) -> tuple[str, ...]:
    size = sum(path.stat().st_size for path in where.iterdir()) / 1e6
    rss = psutil.Process().memory_info().rss / 1e6
    return f"{(second + 1) / 3600:.2f}", f"{rss:.0f}", f"{size:.0f}", str(one.outbox.left()["kafka"]), str(one.lost)


async def _drain(one: _Run, said: int) -> list[tuple[str, str]]:
    """Open the sink; while the backlog drains, facts go on happening."""
    waiting, published, live = one.outbox.left()["kafka"], {}, Tenants(1).events(1_000_000)
    began = time.perf_counter()
    one.sink.open.set()
    while one.outbox.left()["kafka"] > len(published):
        if (message := next(live)).record is not None:
            published[message.record.id] = time.perf_counter()
            one.publish([message])
        await asyncio.sleep(_LIVE_EVERY_SECONDS)
    took = time.perf_counter() - began
    delays = sorted((one.sink.at[id_] - at) * 1000 for id_, at in published.items() if id_ in one.sink.at)
    return [
        ("published, dropped and declared", f"{said}, {one.lost}"),
        ("drained to a sink that costs nothing", f"{waiting} in {took:.1f} s: {waiting / took:,.0f}/s"),
        (
            "facts that happened meanwhile, to offered",
            f"p50 {delays[len(delays) // 2]:.1f} ms, p99 {delays[int(len(delays) * 0.99)]:.1f} ms",
        ),
    ]
