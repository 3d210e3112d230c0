"""Runs of an outbox in which anything happens in any order: sinks fail, the disk fails or hangs, the run is killed.

Whatever was published is delivered to every sink that wants it, over all runs, or declared to that sink, in the order of
publishing. A seed repeats the choices, not the interleaving of threads.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamer.config import Outbox as OutboxSettings
from streamer.contracts import Receipt
from streamer.errors import NotConnected
from streamer.model.messages import CONTROL, STATS, TOPICS, Message
from streamer.model.observations import Lost, Observation
from streamer.model.wire import Entry
from streamer.outbox import delivery, disk, outbox
from streamer.outbox.lock import StoreFailed
from streamer.outbox.store import Committed, Work
from streamer.testing.sinks import RecordingSink
from tests.outbox.test_disk import ALL, Run, until

SUFFIX = {topic.short: topic.suffix for topic in TOPICS}
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
"""Of each kind; a thousand more were run when this was written."""


class Moody(RecordingSink):
    """Does what its mood says: ok, down, hang, half (some arrives), unheard (all arrives, its acknowledgement does not), dead."""

    mood = "ok"

    async def connect(self) -> None:
        if self.mood not in ("ok", "dead"):
            await asyncio.sleep(0.005)
            raise NotConnected("down")

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        if self.mood == "dead":
            await asyncio.Event().wait()
        if self.mood == "hang":
            await asyncio.sleep(0.05)
        if self.mood == "down":
            raise NotConnected("down")
        await self._keep(batch[: len(batch) // 2] if self.mood == "half" else batch)
        if self.mood in ("half", "unheard"):
            raise NotConnected("cut")
        return Receipt()


class Story:
    """Several runs on one directory, and what reached each sink."""

    def __init__(self, where: Path, seed: int, fault: str) -> None:
        self.where, self.fault, self.chance = where, fault, random.Random(seed)
        self.types = {"a": ALL, "b": self.chance.choice([ALL, frozenset({"lifecycle", "oom", "control"})])}
        self.got: dict[str, list[Entry]] = {"a": [], "b": []}
        self.said: dict[int, dict[str, int]] = {}  # epoch -> topic -> highest number
        self.epoch = 0
        self.slow_seconds = 0.0
        self.failing = 0

    async def run(self, *, last: bool = False) -> None:
        self.epoch += 1000
        sinks = [Moody("a"), Moody("b")]
        run = Run(self.where, *sinks, epoch=self.epoch, settings=OutboxSettings(batch_bytes=2000), types=self.types)
        said = self.said[self.epoch] = {}

        def publish(*messages: Message) -> None:
            said.update((message.topic.short, message.record.seq) for message in messages if message.record is not None)
            run.publish(*messages)

        def gap(lost: Observation) -> list[Message]:
            if not isinstance(lost, Lost) or not lost.topic:
                return []
            about = {"component": lost.component, "gap_topic": lost.topic, "gap_first": lost.first, "gap_epoch": lost.epoch}
            return [run.speaker.control("gap", **about, **({"gap_last": lost.last} if lost.last else {}))]

        self._break(run, lambda lost: publish(*gap(lost)) if gap(lost) else None)
        kill = not last and self.chance.random() < 0.6
        async with run.running():
            publish(run.speaker.control("started"), *(message for lost in run.unsaid for message in gap(lost)))
            if last:
                await until(lambda: not any(run.outbox.left().values()))
                await asyncio.sleep(0.1)  # what is declared only now is delivered too
                await until(lambda: not any(run.outbox.left().values()))
            else:
                for _ in range(self.chance.randint(20, 100)):
                    await self._something(run, sinks, publish)
            self.slow_seconds = 0.0
            if kill:
                self.failing = 0  # a disk that took nothing, and then a kill: that loses what waits, as the README says
                await run.outbox.flush()
                await until(lambda: (status := run.outbox.disk_status()) is not None and status.state == "ok")
                for sink in sinks:
                    sink.mood = "dead"
                run.store.failing = "killed"
            self.failing = 0
        for sink in sinks:
            self.got[sink.name] += sink.entries

    def _break(self, run: Run, hear: object) -> None:
        for owner in (run.outbox, run.outbox._disk, *run.outbox._deliveries):
            owner._emit = hear  # type: ignore[union-attr, assignment]
        commit = run.store.commit

        def faulty(works: Sequence[Work], now_ms: int) -> Committed:
            time.sleep(self.slow_seconds)
            if self.failing:
                self.failing -= 1
                raise StoreFailed("no room")
            return commit(works, now_ms)

        run.store.commit = faulty  # type: ignore[method-assign]

    async def _something(self, run: Run, sinks: list[Moody], publish: object) -> None:
        what, say = self.chance.random(), run.speaker
        if what < 0.5:
            publish(*(say.stats("c" * self.chance.randint(1, 100)) for _ in range(self.chance.randint(1, 6))))  # type: ignore[operator]
        elif what < 0.75:
            publish(say.oom("c" * 50))  # type: ignore[operator]
        elif what < 0.85:
            self.chance.choice(sinks).mood = self.chance.choice(["ok", "ok", "hang", "down", "half", "unheard"])
        elif what < 0.93:
            await asyncio.sleep(self.chance.choice([0, 0, 0.005, 0.02]))
        elif self.fault == "fails":
            self.failing = self.chance.choice([0, 1, 2])
        elif self.fault == "hangs":
            self.slow_seconds = self.chance.choice([0, 0, 0.3, 0.02])
        if self.chance.random() < 0.3:
            await asyncio.sleep(0)

    def complaints(self) -> list[str]:
        """What is missing and not declared, and what came out of order."""
        wrong: list[str] = []
        for name, entries in self.got.items():
            have = {(entry.epoch, entry.topic.short, entry.seq) for entry in entries}
            gaps = [
                json.loads(entry.value or b"") for entry in entries if entry.topic is CONTROL and b'"gap"' in (entry.value or b"")
            ]
            for epoch, topics in self.said.items():
                if (epoch, "control", 1) not in have:
                    continue  # killed before its first commit: it has said nothing
                for short, most in topics.items():
                    if short in self.types[name]:
                        top = most if short == STATS.short else max((n for e, t, n in have if (e, t) == (epoch, short)), default=0)
                        missing = [
                            n
                            for n in range(1, top + 1)
                            if (epoch, short, n) not in have and not _declared(gaps, name, epoch, short, n)
                        ]
                        wrong += [f"{name}: {short} {missing} of {epoch} are missing"] if missing else []
            wrong += _out_of_order(name, entries)
        return wrong


def _declared(gaps: list[dict[str, str]], sink: str, epoch: int, short: str, number: int) -> bool:
    return any(
        gap["component"] == f"sink.{sink}" and gap["gap_topic"] == SUFFIX[short] and int(gap["gap_epoch"]) == epoch
        and int(gap["gap_first"]) <= number <= int(gap.get("gap_last", number))
        for gap in gaps
    )  # fmt: skip


def _out_of_order(name: str, entries: list[Entry]) -> list[str]:
    wrong: list[str] = []
    seen: set[tuple[str, int, int]] = set()
    last: dict[str, tuple[int, int]] = {}
    for entry in entries:
        number, key = (entry.epoch, entry.seq), (entry.topic.short, entry.epoch, entry.seq)
        if key not in seen and number < last.get(entry.topic.short, (0, 0)):
            wrong.append(f"{name}: {key} came after {last[entry.topic.short]}")
        seen.add(key)
        last[entry.topic.short] = max(number, last.get(entry.topic.short, (0, 0)))
    return wrong


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", ["none", "fails", "hangs"])
async def test_nothing_is_lost_without_a_word(fault: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two to four runs, most of them killed, then one in which all is well."""
    for module, name, value in (
        (delivery, "WINDOW_BYTES", 5000), (delivery, "GATHER_SECONDS", 0.005), (delivery, "delay_seconds", lambda *_, **__: 0.01),
        (disk, "FLUSH_SECONDS", 0.02), (disk, "STALL_SECONDS", 0.25), (disk, "delay_seconds", lambda *_, **__: 0.03),
        (outbox, "DECLARE_SECONDS", 0.02),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    story = Story(tmp_path, seed, fault)
    for _ in range(story.chance.randint(2, 4)):
        await story.run()
    await story.run(last=True)
    assert story.complaints() == []
    assert len(story.got["a"]) > 10
