"""The outbox with sinks that fail at an exact point."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from streamer.config import Outbox as OutboxSettings
from streamer.contracts import Receipt, Sink
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.messages import TOPICS, Message
from streamer.model.observations import Degraded, Lost, Observation, Recovered
from streamer.model.wire import Entry
from streamer.outbox import delivery
from streamer.outbox.outbox import Outbox
from streamer.telemetry import Telemetry
from streamer.testing.clock import FakeClock
from streamer.testing.messages import Speaker, encoded
from streamer.testing.sinks import FlakySink, Hang, RecordingSink, Stored


class Slow(RecordingSink):
    """Answers once it is let; to the send of the number `hold_at` once it is let again."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.hold_at = 0

    async def send(self, batch: Sequence[Entry]) -> Receipt:
        self.calls.append("send")
        if self.calls.count("send") == self.hold_at:
            self.go.clear()
        await self.go.wait()
        await self._keep(batch)
        return Receipt()


ALL = frozenset(topic.short for topic in TOPICS)
LOST = NotConnected("cable cut", remedy="plug it in")


class Bench:
    """An outbox with what it says, and the messages its losses and troubles make."""

    def __init__(self, *sinks: Sink, types: frozenset[str] = ALL, settings: OutboxSettings | None = None) -> None:
        self.clock, self.telemetry, self.speaker = FakeClock(), Telemetry(), Speaker()
        self.heard: list[Observation] = []
        self.feed_back = False
        self.outbox = Outbox(self.clock, settings or OutboxSettings(), "binary", self.telemetry, self._hear, chance=lambda: 0.0)
        for sink in sinks:
            self.outbox.add(sink, types)

    def said(self, kind: type[Observation]) -> list[Observation]:
        return [observation for observation in self.heard if isinstance(observation, kind)]

    def publish(self, *messages: Message) -> list[Entry]:
        return self.outbox.publish(messages)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.outbox.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _hear(self, observation: Observation) -> None:
        self.heard.append(observation)
        if self.feed_back:  # as the manager does
            self.publish(self.speaker.control("gap"))


async def until(condition: Callable[[], object], deadline_seconds: float = 30) -> None:
    """Wait until it holds; fails at the deadline."""
    async with asyncio.timeout(deadline_seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_positions_increase_and_order_time_never_goes_back() -> None:
    """Each message gets the next position; its order time stands still while the clock is behind."""
    bench = Bench()
    first = bench.publish(bench.speaker.oom("a"), bench.speaker.stats("a"))
    bench.clock.step(-3600)
    second = bench.publish(bench.speaker.oom("a"))
    bench.clock.advance(7200)
    third = bench.publish(bench.speaker.oom("a"))
    assert [entry.position for entry in first + second + third] == [1, 2, 3, 4]
    assert first[0].order_ms == second[0].order_ms < third[0].order_ms


async def test_each_sink_gets_the_types_it_wants_encoded_once() -> None:
    """All sinks share the entries; a sink gets only the topics it was added with."""
    everything, alarms = RecordingSink("everything"), RecordingSink("alarms")
    bench = Bench(everything)
    bench.outbox.add(alarms, frozenset({"oom"}))
    async with bench.running():
        entries = bench.publish(bench.speaker.stats("a"), bench.speaker.oom("a"))
        await everything.wait_for(2)
        await alarms.wait_for(1)
    assert alarms.entries[0] is entries[1]
    assert {id(entry) for entry in everything.entries} == {id(entry) for entry in entries}


async def test_without_a_sink_it_goes_on_all_the_same() -> None:
    """A program that only asks has none; what is said is encoded and waits for nobody."""
    bench = Bench()
    running = asyncio.create_task(bench.outbox.run())
    (entry,) = bench.publish(bench.speaker.oom("a"))
    await asyncio.wait({running}, timeout=0.05)
    assert not running.done()
    assert (entry.position, bench.outbox.left()) == (1, {})
    assert await bench.outbox.drain(1.0) == {}
    running.cancel()
    await asyncio.wait({running})
    assert await bench.outbox.close()


async def test_two_sinks_of_one_name_are_a_bug() -> None:
    """Metrics and statuses tell sinks apart by name."""
    with pytest.raises(ValueError, match="two sinks"):
        Bench(RecordingSink("same"), RecordingSink("same"))


async def test_samples_gather_and_facts_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples published one by one share a send; a durable message in between is sent without waiting for more."""
    monkeypatch.setattr(delivery, "GATHER_SECONDS", 1.0)  # longer than it takes to publish them, also where others have the CPU
    sink = RecordingSink()
    bench = Bench(sink)
    async with bench.running():
        await until(lambda: "connect" in sink.calls)
        for _ in range(50):
            bench.publish(bench.speaker.stats("a"))
            await asyncio.sleep(0)
        bench.publish(bench.speaker.oom("a"))
        await sink.wait_for(51)
    assert [len(batch) for batch in sink.batches] == [1, 50]
    assert sink.batches[0][0].topic.short == "oom"


async def test_a_fact_waits_for_a_piece_of_what_has_gathered_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples of a second go in pieces, without gathering anew in between; a fact that comes meanwhile is next."""
    piece = delivery.GATHERED_AT_ONCE
    monkeypatch.setattr(delivery, "GATHER_SECONDS", 1.0)
    sink = Slow()
    bench = Bench(sink)
    async with bench.running():
        await until(lambda: "connect" in sink.calls)
        bench.publish(*(bench.speaker.stats("a") for _ in range(2 * piece + 10)))
        began = asyncio.get_running_loop().time()
        await until(lambda: "send" in sink.calls)
        monkeypatch.setattr(delivery, "GATHER_SECONDS", 60.0)
        bench.publish(bench.speaker.oom("b"))
        sink.go.set()
        await sink.wait_for(2 * piece + 11)
        assert asyncio.get_running_loop().time() - began < 60
        bench.publish(bench.speaker.stats("a"))
        await asyncio.sleep(0.02)
        assert len(sink.entries) == 2 * piece + 11  # what comes later gathers again
    assert [len(batch) for batch in sink.batches] == [piece, 1, piece, 10]
    assert sink.batches[1][0].topic.short == "oom"


async def test_where_an_answer_takes_its_time_all_that_gathered_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is far away: each piece would wait for an answer of its own, and a second has not so many."""
    piece = delivery.GATHERED_AT_ONCE
    sink = Slow()
    bench = Bench(sink)
    async with bench.running():
        await until(lambda: "connect" in sink.calls)
        bench.publish(*(bench.speaker.stats("a") for _ in range(4 * piece)))
        await until(lambda: "send" in sink.calls)
        bench.clock.advance(delivery.QUICK_SECONDS)
        sink.go.set()
        await sink.wait_for(4 * piece)
        sink.go.clear()
        bench.publish(*(bench.speaker.stats("a") for _ in range(2 * piece)))  # the next second is asked anew
        await until(lambda: len(sink.calls) == 4)
        sink.go.set()
        await sink.wait_for(6 * piece)
    assert [len(batch) for batch in sink.batches] == [piece, 3 * piece, piece, piece]


async def test_what_waited_behind_a_disk_that_cannot_be_read_waits_no_more() -> None:
    """Facts that were on disk only are given up; samples that came after them go on without another message to wake them."""
    speaker, sink, asked = Speaker(), RecordingSink(), []
    each = delivery.Delivery(
        sink, frozenset({"oom", "stats"}), settings=OutboxSettings(memory_bytes=10_000), clock=FakeClock(), telemetry=Telemetry(),
        emit=lambda _: None, chance=lambda: 0.0, on_loss=lambda: None, on_settled=lambda *_: None, read=lambda *a: asked.append(a),
    )  # fmt: skip
    each.offer(encoded([speaker.oom("a") for _ in range(20)]), ["durable"])
    each.offer(encoded([speaker.stats("a")], first_position=21))
    running = asyncio.create_task(each.run())
    await until(lambda: asked and each.backlog.urgency(5000, 8_000_000) == "none")
    each.backlog.lose_disk("durable")
    each.told_of_losses()
    await until(lambda: sink.entries and sink.entries[-1].position == 21)
    assert [entry.position for entry in sink.entries if entry.topic.short == "stats"] == [21]
    running.cancel()
    await asyncio.wait([running])


async def test_what_went_before_a_deleted_counts_as_gathered_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that an end lets go first are sent; those that come later gather as ever."""
    piece = delivery.GATHERED_AT_ONCE
    sink = Slow()
    bench = Bench(sink)
    async with bench.running():
        await until(lambda: "connect" in sink.calls)
        bench.publish(*(bench.speaker.stats("a") for _ in range(2 * piece)))
        await until(lambda: "send" in sink.calls)
        monkeypatch.setattr(delivery, "GATHER_SECONDS", 60.0)
        bench.publish(bench.speaker.lifecycle("a", "deleted"))
        sink.hold_at = 3
        sink.go.set()
        await until(lambda: sink.calls.count("send") == 3)  # the end itself is on its way, and something waits at any time
        bench.publish(bench.speaker.stats("b"))
        sink.go.set()
        await sink.wait_for(2 * piece + 1)
        await asyncio.sleep(0.02)
    assert [len(batch) for batch in sink.batches] == [piece, piece, 1]


async def test_how_far_a_sink_is_and_how_long_it_takes_is_counted() -> None:
    """By sends that were acknowledged; the newest message of each lane, as of when it was made."""
    sink = FlakySink([None, LOST, Stored(LOST)])
    bench = Bench(sink)
    async with bench.running():
        first = bench.publish(bench.speaker.oom("a"))
        await sink.wait_for(1)
        bench.clock.advance(60)
        last = bench.publish(bench.speaker.oom("a"))
        await until(lambda: bench.telemetry.value("streamer_sink_delivered_total", "flaky", "durable") == 2)
    assert bench.telemetry.value("streamer_sink_delivered_timestamp_seconds", "flaky", "durable") == last[0].order_ms / 1000
    assert last[0].order_ms - first[0].order_ms == 60_000
    assert bench.telemetry.value("streamer_sink_delivered_timestamp_seconds", "flaky", "stats") == 0
    ((_, sends),) = [h for h in bench.telemetry.histograms() if h[0].name == "streamer_sink_send_seconds"]
    assert sum(sends["flaky",].counts) == 2, "the two that failed are none"


@pytest.mark.slow
async def test_a_lost_connection_is_replayed_in_order() -> None:
    """After any failure of connect or send everything arrives, in order; said as degraded once and recovered once."""
    sink = FlakySink([None, LOST, LOST, Stored(LOST)], connects=[None, LOST, LOST])
    bench = Bench(sink, types=frozenset({"oom"}))
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await sink.wait_for(1)
        bench.publish(*(bench.speaker.oom("a") for _ in range(5)))
        await sink.wait_for(11)  # the last failure lost only the acknowledgement: that batch came twice
        await until(lambda: bench.said(Recovered))
    assert sink.positions == [1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6]
    assert bench.said(Degraded) == [Degraded("sink.flaky", bench.clock.wall_ns(), "cable cut", "plug it in")]
    assert len(bench.said(Recovered)) == 1
    assert bench.telemetry.value("streamer_sink_failures_total", "flaky") == 5
    assert bench.telemetry.value("streamer_sink_delivered_total", "flaky", "durable") == 6


async def test_a_sink_is_closed_before_it_is_connected_again() -> None:
    """The order of calls that a sink can rely on."""
    sink = FlakySink([LOST])
    bench = Bench(sink)
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await sink.wait_for(1)
    assert sink.calls == ["connect", "send", "close", "connect", "send", "close"]


async def test_calls_that_hang_are_ended_by_their_deadlines() -> None:
    """A connect and a send that never return are given up, and tried again."""
    settings = OutboxSettings(connect_timeout="50ms", send_timeout="50ms")
    sink = FlakySink([Hang()], connects=[Hang()])
    bench = Bench(sink, settings=settings)
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await sink.wait_for(1)
    (degraded,) = bench.said(Degraded)
    assert isinstance(degraded, Degraded)
    assert degraded.reason == "no connection within 0.05 s"


async def test_a_close_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A sink whose close never returns is connected again all the same."""

    class Clinging(FlakySink):
        async def close(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(delivery, "CLOSE_SECONDS", 0.05)
    sink = Clinging([LOST])
    bench = Bench(sink)
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await sink.wait_for(1)
    assert "did not close" in caplog.text


async def test_a_slow_sink_does_not_slow_another() -> None:
    """While one sink hangs for good, the other gets everything."""
    slow, quick = FlakySink([Hang()], name="slow"), RecordingSink("quick")
    bench = Bench(slow, quick)
    async with bench.running():
        for _ in range(200):
            bench.publish(bench.speaker.oom("a"), bench.speaker.stats("a"))
        await quick.wait_for(400)
        assert bench.outbox.left() == {"slow": 400, "quick": 0}
        assert bench.telemetry.value("streamer_sink_backlog_messages", "slow", "durable") == 200


async def test_a_bug_in_a_sink_is_logged_once_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception counts as a lost connection: one traceback, nothing lost, the others undisturbed."""
    bug = ZeroDivisionError("oops")
    broken, sound = FlakySink([bug, bug, bug], name="broken"), RecordingSink("sound")
    bench = Bench(broken, sound)
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await broken.wait_for(1)
        await sound.wait_for(1)
    tracebacks = [record for record in caplog.records if record.exc_info and record.levelno == logging.ERROR]
    assert len(tracebacks) == 1
    assert "ZeroDivisionError" in bench.said(Degraded)[0].reason  # type: ignore[union-attr]


async def test_a_refusal_is_said_with_its_remedy_and_retried_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """PermanentlyRefused shows in the status; when the operator has acted, it goes on by itself."""
    monkeypatch.setattr(delivery, "REFUSED_RETRY_SECONDS", 0.2)
    sink = FlakySink(connects=[LOST, PermanentlyRefused("no such topic", remedy="create it"), PermanentlyRefused("no such topic")])
    bench = Bench(sink)
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await until(lambda: len(bench.said(Degraded)) == 2)
        (status,) = bench.outbox.statuses()
        assert (status.component, status.state, status.reason, status.remedy) == (
            "sink.flaky",
            "down",
            "no such topic",
            "create it",
        )
        await sink.wait_for(1)
        await until(lambda: bench.outbox.statuses()[0].state == "ok")
    assert [one.reason for one in bench.said(Degraded)] == ["cable cut", "no such topic"]  # type: ignore[union-attr]


async def test_statuses_follow_the_sink() -> None:
    """starting until it is connected, ok, down with the reason and since when, ok again."""
    gate = asyncio.Event()

    class Gated(RecordingSink):
        async def connect(self) -> None:
            await gate.wait()

        async def send(self, batch: Sequence[Entry]) -> Receipt:
            if not gate.is_set():
                raise LOST
            return await super().send(batch)

    bench = Bench(Gated("gated"))

    def state() -> str:
        return bench.outbox.statuses()[0].state

    assert state() == "starting"
    async with bench.running():
        gate.set()
        await until(lambda: state() == "ok")
        gate.clear()
        bench.clock.advance(5)
        bench.publish(bench.speaker.oom("a"))
        await until(lambda: state() == "down")
        assert bench.outbox.statuses()[0].since_ms == bench.clock.wall_ns() // 1_000_000
        assert bench.telemetry.value("streamer_sink_up", "gated") == 0
        gate.set()
        await until(lambda: state() == "ok")
        assert bench.telemetry.value("streamer_sink_up", "gated") == 1


async def test_rejected_messages_are_declared() -> None:
    """What a peer will never take is a loss with its words; the lane goes on."""
    sink = FlakySink([Receipt([(1, "too large")])])
    bench = Bench(sink)
    async with bench.running():
        bench.publish(*(bench.speaker.oom("a") for _ in range(3)))
        await until(lambda: bench.said(Lost))
    assert bench.said(Lost) == [
        Lost(
            "sink.flaky",
            bench.clock.wall_ns(),
            "it will never take them: too large",
            1,
            "2",
            "2",
            "container.oom",
            bench.speaker.epoch,
        )
    ]
    assert bench.telemetry.value("streamer_sink_dropped_total", "flaky", "durable", "rejected") == 1


async def test_an_overflow_is_declared_once_and_does_not_feed_itself() -> None:
    """10000 messages over the cap of a dead sink make a handful of gaps, though each gap is a message that overflows too."""
    settings = OutboxSettings(memory_bytes=1_000_000)
    sink = FlakySink(connects=[Hang()])
    bench = Bench(sink, settings=settings)
    bench.feed_back = True
    async with bench.running():
        for _ in range(100):
            bench.publish(*(bench.speaker.stats("a") for _ in range(50)), *(bench.speaker.oom("a") for _ in range(50)))
        await until(lambda: len(bench.said(Lost)) >= 2)
        await asyncio.sleep(0)
    lost = [one for one in bench.said(Lost) if isinstance(one, Lost)]
    assert {one.topic for one in lost} == {"container.stats", "container.oom"}
    assert len(lost) == 2
    undeclared = 10_000 + len(lost) - bench.outbox.left()["flaky"] - sum(one.count or 0 for one in lost)
    assert 0 <= undeclared <= len(lost)  # what the gap messages themselves pushed out: for the next declaration
    assert bench.telemetry.value("streamer_sink_dropped_total", "flaky", "stats", "overflow") > 0


async def test_a_sink_that_is_gone_for_good_ends_the_outbox() -> None:
    """A final refusal ends its sink, its backlog is declared, and `run` returns when no sink is left."""
    gone = FlakySink([PermanentlyRefused("the reader went away", final=True)], name="stdout")
    bench = Bench(gone)
    bench.publish(bench.speaker.oom("a"), bench.speaker.stats("a"))
    async with asyncio.timeout(10):
        await bench.outbox.run()
    assert {one.topic: one.count for one in bench.said(Lost)} == {"container.oom": 1, "container.stats": 1}  # type: ignore[union-attr]
    bench.publish(bench.speaker.oom("a"))
    assert bench.outbox.left() == {"stdout": 0}
    assert bench.outbox.statuses()[0].state == "down"


@pytest.mark.slow
async def test_drain_delivers_what_waits_and_tells_what_is_left() -> None:
    """At the end samples do not gather, a sink in back-off is tried at once, and a dead one has its rest counted."""
    dead, slow, sound = FlakySink([Hang()], name="dead"), FlakySink([LOST], name="slow"), RecordingSink("sound")
    bench = Bench(dead, slow, sound, types=frozenset({"stats", "oom"}))
    async with bench.running():
        bench.publish(*(bench.speaker.stats("a") for _ in range(5)))
        left = await bench.outbox.drain(2)
    assert left == {"dead": 5, "slow": 0, "sound": 0}
    assert len(slow.entries) == len(sound.entries) == 5


async def test_drain_declares_the_last_losses_and_delivers_the_declaration() -> None:
    """What was lost a moment before the end is said, and the saying of it is delivered."""
    sink = FlakySink([Receipt([(0, "no")]), None, Receipt([(0, "no")])])
    bench = Bench(sink, types=frozenset({"oom", "control"}))
    bench.feed_back = True
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await sink.wait_for(2)
        bench.publish(bench.speaker.oom("a"))  # within a second of the last declaration
        left = await bench.outbox.drain(10)
    assert left == {"flaky": 0}
    assert [one.first for one in bench.said(Lost) if isinstance(one, Lost) and one.topic == "container.oom"] == ["1", "2"]
    assert sum(entry.topic.short == "control" for entry in sink.entries) == 2


async def test_a_cancelled_send_counts_as_left() -> None:
    """Ending in the middle of a send forgets nothing: the batch is still in the backlog."""
    sink = FlakySink([Hang()])
    bench = Bench(sink)
    async with bench.running():
        bench.publish(bench.speaker.oom("a"))
        await until(lambda: "send" in sink.calls)
    assert bench.outbox.left() == {"flaky": 1}
    assert sink.calls[-1] == "close"


async def test_text_that_is_not_utf8_is_delivered_written_out() -> None:
    """A name of any bytes cannot stop the message it stands in."""
    bench = Bench()
    (entry,) = bench.publish(bench.speaker.lifecycle("caf\udce9", name="n\udcff", labels={"k\udc80": "v"}))
    assert entry.key == "caf\\udce9"
    assert b'"name":"n\\\\udcff"' in (entry.value or b"")
