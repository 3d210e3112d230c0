"""The outbox with its state file: written through, spilled, read back, taken over by the next run; and when the disk fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from streamer.config import Outbox as OutboxSettings
from streamer.contracts import Receipt
from streamer.errors import NotConnected
from streamer.model.inventory import Checkpoint
from streamer.model.messages import TOPICS, Message
from streamer.model.observations import Degraded, Lost, Observation, Recovered
from streamer.model.wire import Entry
from streamer.outbox import disk
from streamer.outbox.journal import DEAD_LETTERS
from streamer.outbox.lock import StoreFailed
from streamer.outbox.outbox import Outbox
from streamer.outbox.state import limits
from streamer.outbox.store import FILE, Committed, Limits, Store, Work
from streamer.telemetry import Telemetry
from streamer.testing.clock import FakeClock
from streamer.testing.messages import Speaker
from streamer.testing.sinks import FlakySink, Hang, RecordingSink

ALL = frozenset(topic.short for topic in TOPICS)
LOST = NotConnected("cable cut")


class FailingStore(Store):
    """A store whose disk fails while `failing` has a reason, and hangs while `works` is not set."""

    failing = ""
    damaged = False

    def __init__(self, where: Path, most: Limits) -> None:
        super().__init__(where, most)
        self.works = threading.Event()
        self.works.set()

    def commit(self, works: Sequence[Work], now_ms: int) -> Committed:
        self.works.wait(30)
        if self.failing:
            raise StoreFailed(self.failing, damaged=self.damaged)
        return super().commit(works, now_ms)

    def set_aside(self, now_ms: int) -> str:
        self.failing, self.damaged = "", False
        return super().set_aside(now_ms)


class Run:
    """One run of an outbox on a directory."""

    def __init__(
        self,
        where: Path,
        *sinks: RecordingSink,
        epoch: int = 1000,
        settings: OutboxSettings | None = None,
        types: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self.settings = settings or OutboxSettings()
        self.store = FailingStore(where, limits(self.settings))
        self.store.open()
        self.past = self.store.leftovers.past()
        self.clock, self.speaker = FakeClock(), Speaker(epoch=epoch)
        self.heard: list[Observation] = []
        self.outbox = Outbox(
            self.clock, self.settings, "binary", Telemetry(), self.heard.append, chance=lambda: 0.0, store=self.store, snapshot=self.point,
        )  # fmt: skip
        for sink in sinks:
            self.outbox.add(sink, (types or {}).get(sink.name, ALL))
        self.unsaid = self.outbox.left_unsaid(self.past)
        self._task: asyncio.Task[None] | None = None

    def point(self) -> Checkpoint:
        return Checkpoint(epoch=self.speaker.epoch, boot_id="b", alive_ns=self.clock.wall_ns(), whole=True)

    def publish(self, *messages: Message) -> list[Entry]:
        return self.outbox.publish(messages, self.point() if any(m.topic.lane == "durable" for m in messages) else None)

    def said(self, kind: type[Observation]) -> list[Observation]:
        return [one for one in self.heard if isinstance(one, kind)]

    @contextlib.asynccontextmanager
    async def running(self, *, killed: bool = False) -> AsyncIterator[None]:
        """`killed`: at the end nothing more is written, as after SIGKILL."""
        self.outbox.start()
        task = asyncio.create_task(self.outbox.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if killed:
                self.store.failing = "killed"
            await self.outbox.close()


async def until(condition: Callable[[], object], deadline_seconds: float = 30) -> None:
    """Wait until it holds; fails at the deadline."""
    async with asyncio.timeout(deadline_seconds):
        while not condition():
            await asyncio.sleep(0.005)


def _ids(sink: RecordingSink) -> list[str]:
    return [entry.id for entry in sink.entries]


async def test_who_waits_for_no_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """Whom `tell` wakes has had its turn when the first write is handed over; all that is published until then is one write."""
    order: list[str] = []
    written = threading.Event()

    class Telling(FailingStore):
        def commit(self, works: Sequence[Work], now_ms: int) -> Committed:
            order.append(f"commit {sum(len(work.durable) for work in works)}")
            written.set()
            return super().commit(works, now_ms)

    run = Run(tmp_path, RecordingSink("a"))
    run.store.__class__ = Telling
    loop = asyncio.get_running_loop()

    def woken() -> None:  # the second comes behind the hand-over, which the first publish asked for
        order.append("woken" if not written.wait(0.1 if not order else 0) else "late")

    async with run.running():
        for _ in range(2):
            run.outbox.publish([run.speaker.oom("a")], run.point(), lambda *_: loop.call_soon(woken) and None)
        assert not written.wait(0.1)
        await until(written.is_set)
        assert order[0] == "woken"
        assert next(step for step in order if step.startswith("commit")) == "commit 2"


@pytest.mark.slow
async def test_a_turn_that_takes_long_is_no_stall_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a write may take begins when it is handed over."""
    monkeypatch.setattr(disk, "STALL_SECONDS", 2.0)
    sink = RecordingSink("a")
    run = Run(tmp_path, sink)
    async with run.running():
        sent = [entry.id for entry in run.publish(run.speaker.oom("a"))]
        await sink.wait_for(1)
        sent += [entry.id for entry in run.publish(run.speaker.oom("b"))]
        time.sleep(2.5)  # this very turn
        await sink.wait_for(2)
    assert _ids(sink) == sent
    assert run.said(Degraded) == []


async def test_what_has_a_number_is_delivered_though_who_is_told_raises(tmp_path: Path) -> None:
    """Whoever published ends the run for it, as after any bug; what was said until then is no less true."""
    sink = RecordingSink("a")
    run = Run(tmp_path, sink)

    def broken(*_: object) -> None:
        raise RuntimeError

    async with run.running():
        with pytest.raises(RuntimeError):
            run.outbox.publish([run.speaker.oom("a")], run.point(), broken)
        await sink.wait_for(1)


async def test_nothing_durable_is_offered_before_it_is_on_disk(tmp_path: Path) -> None:
    """When a sink gets a message, the file has it; samples alone are not written."""
    on_disk: list[bool] = []
    run: Run

    class Looking(RecordingSink):
        async def send(self, batch: Sequence[Entry]) -> Receipt:
            stored, _ = run.store.read("durable", 0, 10**9, ALL, 10**9)
            on_disk.extend(entry in stored for entry in batch if entry.topic.lane == "durable")
            return await super().send(batch)

    sink = Looking()
    run = Run(tmp_path, sink)
    async with run.running():
        for number in range(20):
            run.publish(run.speaker.lifecycle(str(number)), run.speaker.stats(str(number)))
            await asyncio.sleep(0)
        await sink.wait_for(40)
        assert run.store.read("stats", 0, 10**9, ALL, 10**9)[0] == []
    assert on_disk == [True] * 20


async def test_a_killed_run_leaves_its_facts_to_the_next_one_in_order(tmp_path: Path) -> None:
    """What no sink had acknowledged comes first in the next run, with its own epoch and numbers; lost samples are named."""
    dead = FlakySink(connects=[Hang()], name="kafka")
    first = Run(tmp_path, dead)
    async with first.running(killed=True):
        facts = [entry.id for n in range(50) for entry in first.publish(first.speaker.oom(str(n)))]
        first.publish(*(first.speaker.stats("a") for _ in range(10)))
        await until(lambda: first.outbox.left()["kafka"] == 60)
    alive = RecordingSink("kafka")
    alive.describe = dead.describe  # type: ignore[method-assign]  the same place
    second = Run(tmp_path, alive, epoch=2000)
    async with second.running():
        new = second.publish(second.speaker.oom("later"))
        await alive.wait_for(51)
    assert _ids(alive) == [*facts, new[0].id]
    assert [entry.position for entry in alive.entries] == sorted(entry.position for entry in alive.entries)
    (lost,) = second.unsaid
    assert isinstance(lost, Lost)
    assert (lost.component, lost.topic, lost.epoch, lost.first, lost.last) == ("sink.kafka", "container.stats", 1000, "1", "")


async def test_each_sink_has_its_own_cursor(tmp_path: Path) -> None:
    """A dead sink does not hold up a living one, neither now nor over a restart; a new sink gets nothing of the past."""
    dead, alive = FlakySink(connects=[Hang()], name="kafka"), RecordingSink("redis")
    first = Run(tmp_path, dead, alive)
    async with first.running():
        first.publish(*(first.speaker.oom(str(n)) for n in range(10)))
        await alive.wait_for(10)
        await until(lambda: first.outbox.left() == {"kafka": 10, "redis": 0})
    kafka, redis, new = FlakySink(name="kafka"), RecordingSink("redis"), RecordingSink("file")
    second = Run(tmp_path, kafka, redis, new, epoch=2000)
    async with second.running():
        entry = second.publish(second.speaker.oom("later"))[0]
        await kafka.wait_for(11)
        await redis.wait_for(1)
        await new.wait_for(1)
        await until(lambda: not any(second.outbox.left().values()))
    assert _ids(redis) == _ids(new) == [entry.id]
    third = Run(tmp_path, redis, new, epoch=3000)
    assert third.unsaid == []
    third.store.close()


async def test_what_waits_for_a_sink_that_is_configured_no_more_is_declared(tmp_path: Path) -> None:
    """By topic, epoch and number."""
    first = Run(tmp_path, FlakySink(connects=[Hang()], name="kafka"))
    async with first.running():
        first.publish(*(first.speaker.oom(str(n)) for n in range(10)))
        await asyncio.sleep(0)
    second = Run(tmp_path, RecordingSink("redis"), epoch=2000)
    (lost,) = second.unsaid
    assert (lost.component, lost.topic, lost.epoch, lost.first, lost.last, lost.count) == (
        "sink.kafka", "container.oom", 1000, "1", "10", 10,
    )  # fmt: skip
    assert "no longer configured" in lost.reason
    second.store.close()


async def test_samples_go_to_disk_while_a_sink_lags_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays small, nothing is lost, a living sink is not disturbed, and a kill loses none of what was spilled."""
    monkeypatch.setattr(disk, "STALL_SECONDS", 60.0)  # so many at once, and a machine that is slow, are no disk that hangs
    settings = OutboxSettings(batch_bytes=900_000, connect_timeout="1h")
    dead, alive = FlakySink(connects=[Hang()], name="kafka"), RecordingSink("redis")
    first = Run(tmp_path, dead, alive, settings=settings)
    async with first.running(killed=True):
        sent = [first.publish(first.speaker.control("started"))[0].id]
        await alive.wait_for(1)
        for _ in range(150):
            sent += [entry.id for entry in first.publish(*(first.speaker.stats("a", name="x" * 1000) for _ in range(50)))]
            await asyncio.sleep(0)
        await alive.wait_for(7501, 60)
        lane = next(d for d in first.outbox._deliveries if d.sink.name == "kafka").backlog.lane("stats")
        await until(lambda: lane.messages == 7500 and lane.head_bytes < 6_000_000 and lane.disk_messages > 3000)
        await until(lambda: (tmp_path / FILE).exists() and first.store.leftovers.spilled(1000))
    assert _ids(alive) == sent
    kafka = FlakySink(name="kafka")
    second = Run(tmp_path, kafka, alive, epoch=2000)
    async with second.running():
        await kafka.wait_for(7501, 60)
        await until(lambda: not any(second.outbox.left().values()))
    assert _ids(kafka) == sent
    assert [(one.component, one.first, one.last) for one in second.unsaid if isinstance(one, Lost)] == [
        ("sink.kafka", "7501", ""),
        ("sink.redis", "7501", ""),
    ]


async def test_an_end_in_order_leaves_everything_to_the_next_run(tmp_path: Path) -> None:
    """Samples too, also those that were only in memory; then no sample is declared lost."""
    first = Run(tmp_path, FlakySink(connects=[Hang()], name="kafka"))
    async with first.running():
        sent = [entry.id for entry in first.publish(*first.speaker.some(200, containers=4))]
        await asyncio.sleep(0)
    kafka = FlakySink(name="kafka")
    second = Run(tmp_path, kafka, epoch=2000)
    async with second.running():
        await kafka.wait_for(200)
    assert sorted(_ids(kafka)) == sorted(sent)
    assert second.unsaid == []


async def test_the_last_words_are_delivered_before_the_end(tmp_path: Path) -> None:
    """What was published right before the drain is still being written then: it is waited for."""
    sink = RecordingSink()
    run = Run(tmp_path, sink)
    async with run.running():
        run.publish(run.speaker.oom("a"))
        await sink.wait_for(1)
        last = run.publish(run.speaker.control("stopped"))[0]
        assert await run.outbox.drain(10) == {"recording": 0}
        assert sink.entries[-1] == last


async def test_while_the_disk_takes_nothing_messages_go_on_and_it_is_said(tmp_path: Path) -> None:
    """Degraded once, recovered once, nothing missing; what still waits then is on disk again, and a kill does not lose it."""
    dead, alive = FlakySink(connects=[Hang()], name="kafka"), RecordingSink("redis")
    run = Run(tmp_path, dead, alive)
    async with run.running(killed=True):
        sent = [run.publish(run.speaker.oom("before"))[0].id]
        await alive.wait_for(1)
        run.store.failing = "no space left"
        sent += [run.publish(run.speaker.oom(str(n)))[0].id for n in range(30)]
        await alive.wait_for(31)
        status = run.outbox.disk_status()
        assert status is not None and (status.state, status.reason) == ("degraded", "no space left")
        run.store.failing = ""
        await until(lambda: run.said(Recovered))
        sent.append(run.publish(run.speaker.oom("after"))[0].id)
        await alive.wait_for(32)
        assert len(run.said(Degraded)) == len(run.said(Recovered)) == 1
    assert _ids(alive) == sent
    kafka = FlakySink(name="kafka")
    second = Run(tmp_path, kafka, alive, epoch=2000)
    async with second.running():
        await kafka.wait_for(32)
    assert _ids(kafka) == sent


@pytest.mark.slow
async def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are offered without it after a moment, in order, and said so; when it goes on, what waits is on it again."""
    dead, alive = FlakySink(connects=[Hang()], name="kafka"), RecordingSink("redis")
    run = Run(tmp_path, dead, alive)
    async with run.running(killed=True):
        sent = [run.publish(run.speaker.oom("before"))[0].id]
        await alive.wait_for(1)
        monkeypatch.setattr(disk, "STALL_SECONDS", 0.05)  # only now: an honest write may take longer
        run.store.works.clear()
        sent += [run.publish(run.speaker.oom(str(n)))[0].id for n in range(10)]
        await alive.wait_for(11)
        sent += [run.publish(run.speaker.oom(f"late {n}"))[0].id for n in range(10)]
        await alive.wait_for(21)
        assert len(run.said(Degraded)) == 1 and not run.said(Recovered)
        run.store.works.set()
        await until(lambda: run.said(Recovered))
    assert _ids(alive) == sent
    kafka = FlakySink(name="kafka")
    second = Run(tmp_path, kafka, alive, epoch=2000)
    async with second.running():
        await kafka.wait_for(21)
    assert _ids(kafka) == sent


async def test_a_file_damaged_while_running_is_put_aside_and_begun_anew(tmp_path: Path) -> None:
    """What is in memory is written to the new file; what was on disk only is declared; everything goes on."""
    dead, alive = FlakySink(connects=[Hang()], name="kafka"), RecordingSink("redis")
    run = Run(tmp_path, dead, alive)
    async with run.running(killed=True):
        sent = [run.publish(run.speaker.oom(str(n)))[0].id for n in range(10)]
        await alive.wait_for(10)
        run.store.failing, run.store.damaged = "malformed", True
        sent.append(run.publish(run.speaker.oom("then"))[0].id)
        await alive.wait_for(11)
        await until(lambda: run.said(Recovered))
    (lost,) = [one for one in run.said(Lost) if isinstance(one, Lost)]
    assert lost.component == "state" and "damaged" in lost.reason and list(tmp_path.glob(f"{FILE}.damaged-*"))
    kafka = FlakySink(name="kafka")
    second = Run(tmp_path, kafka, alive, epoch=2000)
    async with second.running():
        await kafka.wait_for(11)
    assert _ids(kafka) == sent


async def test_the_caps_hold_and_what_goes_is_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage longer than the disk has room for: the oldest samples go, with their numbers; facts stay."""
    monkeypatch.setattr(disk, "STALL_SECONDS", 60.0)  # as above
    settings = OutboxSettings(stats_bytes=1_000_000, connect_timeout="1h")
    run = Run(tmp_path, FlakySink(connects=[Hang()], name="kafka"), settings=settings)
    async with run.running():
        run.publish(run.speaker.oom("first"))
        for turn in range(400):
            run.publish(*(run.speaker.stats(f"{turn}-{n}", name=os.urandom(250).hex()) for n in range(50)))
            await asyncio.sleep(0)
        await until(lambda: run.said(Lost))
        await until(
            lambda: run.outbox.left()["kafka"] + sum(one.count or 0 for one in run.said(Lost) if isinstance(one, Lost)) == 20_001
        )
    lost = [one for one in run.said(Lost) if isinstance(one, Lost)]
    assert {(one.component, one.topic) for one in lost} == {("sink.kafka", "container.stats")}
    assert all("full" in one.reason for one in lost)
    assert run.outbox.left()["kafka"] > 1000


async def test_what_a_peer_refuses_for_good_is_kept_where_people_can_look(tmp_path: Path) -> None:
    """A line with sink, topic, id, the reason and the value; the lane goes on and the loss is declared."""
    sink = FlakySink([Receipt([(1, "too large")])], name="kafka")
    run = Run(tmp_path, sink)
    async with run.running():
        entries = run.publish(*(run.speaker.oom(str(n)) for n in range(3)))
        await until(lambda: (tmp_path / DEAD_LETTERS).exists() and run.said(Lost))
    (letter,) = [json.loads(line) for line in (tmp_path / DEAD_LETTERS).read_text().splitlines()]
    assert (letter["sink"], letter["topic"], letter["id"], letter["reason"]) == (
        "kafka",
        "container.oom",
        entries[1].id,
        "too large",
    )
    assert json.loads(letter["value"])["seq"] == 2


async def test_acknowledged_messages_leave_the_disk(tmp_path: Path) -> None:
    """Soon after, also when nothing more is published."""
    sink = RecordingSink()
    run = Run(tmp_path, sink)
    async with run.running():
        run.publish(*(run.speaker.oom(str(n)) for n in range(10)))
        await sink.wait_for(10)
        await until(lambda: not run.store.read("durable", 0, 10**9, ALL, 10**9)[0])
    assert run.outbox.left() == {"recording": 0}
