"""One sink's task: connect, take, send, settle; when that fails, close, back off, connect again and replay.

    starting ──connect──▶ ok ──failure──▶ down ──connect, send acknowledged──▶ ok
                                           └──final──▶ down for good, `run` returns

A failure never leaves this file: whatever a sink raises ends in `down` with a reason, and the batch waits again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from streamer.config import Outbox as OutboxSettings
from streamer.config import seconds
from streamer.contracts import Clock, Emit, Lapse, Sink, Status
from streamer.errors import NotConnected, PermanentlyRefused
from streamer.model.messages import Lane
from streamer.model.observations import Degraded, Recovered
from streamer.model.wire import Entry
from streamer.outbox.backlog import Backlog, Rejected
from streamer.outbox.lane import Mark
from streamer.outbox.leftovers import Left
from streamer.outbox.retry import delay_seconds
from streamer.telemetry import Telemetry

log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.1  # samples wait this long for company: they are read together, but said a few at a time
GATHERED_AT_ONCE: Final = 250
"""Of samples that have gathered, so many are sent at a time: a fact that comes meanwhile need not wait for all of them."""
QUICK_SECONDS: Final = 0.05
"""Where the answer to a piece takes longer, that is the way and not the samples: such answers would add up to more than a second."""

CLOSE_SECONDS: Final = 5.0
REFUSED_RETRY_SECONDS: Final = 30.0
DRAIN_RETRY_SECONDS: Final = 1.0  # at the end nobody waits for a long back-off
_LOOK_SECONDS: Final = 0.1
WINDOW_BYTES: Final = 4_000_000
"""What waits for a sink beyond this, or two batches, stays on disk and is read back, so much at a time."""

LANES: Final[tuple[Lane, ...]] = ("durable", "stats")

Fetched = Callable[[tuple[list[Entry], int] | None], None]
Read = Callable[[Lane, int, int, frozenset[str], int, Fetched], None]
"""(lane, after, through, types, most bytes, what hears of it)"""


class Delivery:
    """Brings the entries of one sink to it, in order, however often that takes."""

    def __init__(
        self,
        sink: Sink,
        types: frozenset[str],
        *,
        settings: OutboxSettings,
        clock: Clock,
        telemetry: Telemetry,
        emit: Emit,
        chance: Callable[[], float],
        on_loss: Callable[[], None],
        on_settled: Callable[[Delivery, Sequence[Rejected], Sequence[Lapse]], None],
        read: Read | None = None,
    ) -> None:
        """`read`: how to read back what is on disk only; None: nothing is. `on_settled` hears of refused entries and lapses."""
        self.sink: Final = sink
        self.component: Final = f"sink.{sink.name}"
        window = max(WINDOW_BYTES, 2 * settings.batch_bytes) if read else None
        self.backlog: Final = Backlog(memory_bytes=settings.memory_bytes, window_bytes=window)
        self.types: Final = types
        self._read, self._on_settled = read, on_settled
        self._reading: set[Lane] = set()
        self._reached = (0, Mark())
        self.declaring = False  # its losses are being said, one after another
        self._batch: Final = (settings.batch_messages, settings.batch_bytes)
        self._piece: Final = (min(GATHERED_AT_ONCE, settings.batch_messages), settings.batch_bytes)
        self._gathered = 0  # so many samples have waited for company
        self._quick = True  # how the last send was answered, since samples have gathered
        self._connect_seconds: Final = seconds(settings.connect_timeout)
        self._send_seconds: Final = seconds(settings.send_timeout)
        self._clock, self._telemetry, self._emit, self._chance, self._on_loss = clock, telemetry, emit, chance, on_loss
        self._wake: Final = asyncio.Event()  # something is to be sent
        self._hurry: Final = asyncio.Event()  # the end is near: do not wait out a back-off
        self._settled: Final = asyncio.Event()  # nothing waits and nothing is in flight
        self._settled.set()
        self._draining = False
        self._gone = False
        self._failures = 0  # in a row
        self._said = ""  # the kind of trouble that was last emitted
        self._status = Status(self.component, "starting", since_ms=self._now_ms())
        telemetry.set("streamer_sink_up", 0, sink.name)

    def offer(self, entries: Sequence[Entry], stored: Collection[Lane] = ()) -> None:
        """Take in what this sink wants of these; never waits. `stored`: entries of these lanes are on disk too."""
        if self._gone:
            return
        idle = self.backlog.urgency(*self._batch) == "none"
        wanted = [entry for entry in entries if entry.topic.short in self.types]
        self.backlog.offer_all(wanted, stored=stored)
        urgency = self.backlog.urgency(*self._batch)
        if urgency == "now" or (idle and urgency == "gather"):
            self._wake.set()
        self.fetch()
        if self._account():
            self._settled.clear()

    def adopt(self, lane: Lane, left: Left, mark: Mark) -> None:
        """Take over what an earlier run left on disk for this sink. Before `run`."""
        queue = self.backlog.lane(lane)
        queue.mark = mark
        durable, stats = self._reached
        self._reached = (mark.position, stats) if lane == "durable" else (durable, mark)
        if left.stretches:
            queue.adopt(left.stretches, left.bytes, left.after, left.through)
            self._settled.clear()

    def begin_at(self, position: int) -> None:
        """A sink that no earlier run had: what is on disk up to this position is none of its. Before `run`."""
        self._reached = position, Mark(position)

    def fetch(self) -> None:
        """Ask for what is on disk only, where memory has room for it."""
        for lane in LANES if self._read is not None else ():
            queue = self.backlog.lane(lane)
            if self.backlog.wants(lane) and lane not in self._reading and not self._gone and self._read is not None:
                self._reading.add(lane)
                self._read(lane, queue.disk_after, queue.disk_through, self.types, queue.window_bytes, partial(self._fetched, lane))

    def _fetched(self, lane: Lane, answer: tuple[list[Entry], int] | None) -> None:
        """What was read, and how far that goes; None: it could not be read now, `fetch` will be called again."""
        self._reading.discard(lane)
        if answer is not None:
            after = self.backlog.lane(lane).disk_after  # some may have gone since the question
            self.backlog.refill(lane, [entry for entry in answer[0] if entry.position > after], answer[1])
            self._wake.set()
            self.fetch()
        self._after_settling()

    def reached(self, offered: int) -> tuple[int, Mark]:
        """Up to which position this sink needs nothing any more, of the durable lane and of the stats lane.

        Everything up to `offered` was offered to it. While something is lost that is not declared yet, it stays where it
        was: a crash before the gap is on disk would hide the loss.
        """
        if not self.backlog.has_losses and not self.declaring:
            mark = self.backlog.lane("stats").mark
            durable, stats = (self.backlog.reached(lane, offered) for lane in LANES)
            self._reached = durable, Mark(stats, mark.epoch, mark.seq)
        return self._reached

    async def run(self) -> None:
        """Deliver until cancelled, or until the sink is gone for good."""
        try:
            while not self._gone:
                try:
                    await self._connect()
                    while True:
                        await self._deliver(await self._next())
                except PermanentlyRefused as refused:
                    self._down("refused", refused.problem, refused.remedy)
                    pause = REFUSED_RETRY_SECONDS
                    self._gone = refused.final
                except NotConnected as trouble:
                    self._down("down", trouble.problem, trouble.remedy)
                    pause = delay_seconds(self._failures, self._chance())
                except Exception as bug:  # noqa: BLE001  a sink may be anybody's: its bug must not stop the others, nor lose the batch
                    self._log_bug(bug)
                    self._down("down", f"unexpected {type(bug).__name__}: {bug}", "report this with the traceback in the log")
                    pause = delay_seconds(self._failures, self._chance())
                await self._close()
                if not self._gone:
                    await self._pause(pause)
            self._abandon()
        finally:
            await self._close()

    async def drain(self, *, patient: bool = True) -> None:
        """Send what waits without gathering, and return when nothing is left.

        `patient` False: what waits is safe on disk, so one more attempt is enough for a sink that is down.
        """
        self._draining = True
        failures = self._failures
        self._hurry.set()
        self._wake.set()
        while not await _set_within(self._settled, _LOOK_SECONDS):
            if not patient and self._status.state == "down" and self._failures > failures:
                return

    def status(self) -> Status:
        """How it is, since when, and what to do about it."""
        return self._status

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self.sink.connect()
        except TimeoutError:
            raise NotConnected(f"no connection within {self._connect_seconds:g} s") from None
        if self.backlog.urgency(*self._batch) == "none":
            self._up()

    async def _next(self) -> list[Entry]:
        """Wait for the next batch: at once for a durable message or a full batch, else what gathers for a moment."""
        while True:
            urgency = self.backlog.urgency(*self._batch)
            batch: list[Entry] = []
            if urgency == "now" or self._draining:
                batch = self.backlog.take(*self._batch)
            elif urgency == "gather" and self._gathered > 0:
                batch = self.backlog.take(*(self._piece if self._quick else self._batch))
            if batch:
                if batch[0].topic.lane == "stats":
                    self._gathered = max(0, self._gathered - len(batch))
                return batch
            self._wake.clear()
            if urgency == "none":
                self._gathered = 0
                await self._wake.wait()
            elif not await _set_within(self._wake, GATHER_SECONDS):
                self._gathered, self._quick = len(self.backlog.lane("stats").head), True

    async def _deliver(self, batch: list[Entry]) -> None:
        began_ns = self._clock.monotonic_ns()
        try:
            async with asyncio.timeout(self._send_seconds):
                receipt = await self.sink.send(batch)
            took = (self._clock.monotonic_ns() - began_ns) / 1e9
            self._quick = took < QUICK_SECONDS
            refused = self.backlog.settle(receipt.rejected)
        except TimeoutError:
            self.backlog.give_back()
            raise NotConnected(f"no acknowledgement within {self._send_seconds:g} s") from None
        except BaseException:  # cancelled too: what is not acknowledged counts as left
            self.backlog.give_back()
            raise
        delivered, lane = len(batch) - len(receipt.rejected), batch[0].topic.lane
        self._telemetry.count("streamer_sink_delivered_total", self.sink.name, lane, by=delivered)
        self._telemetry.set("streamer_sink_delivered_timestamp_seconds", batch[-1].order_ms / 1000, self.sink.name, lane)
        self._telemetry.observe("streamer_sink_send_seconds", took, self.sink.name)
        self._up()
        self.fetch()
        self._on_settled(self, refused, receipt.lapses)
        self._after_settling()

    def _after_settling(self) -> None:
        if self._account() == 0:
            self._settled.set()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.sink.close()
        except TimeoutError:
            log.warning("%s did not close within %g s and is left behind", self.component, CLOSE_SECONDS)
        except Exception as bug:  # noqa: BLE001  `close` promises not to raise; what it does all the same must not stop the next attempt
            self._log_bug(bug)

    async def _pause(self, pause: float) -> None:
        if self._draining:
            pause = min(pause, DRAIN_RETRY_SECONDS)
        if await _set_within(self._hurry, pause):
            self._hurry.clear()

    def _up(self) -> None:
        if self._status.state == "ok":
            return
        self._failures = 0
        self._status = Status(self.component, "ok", since_ms=self._now_ms())
        self._telemetry.set("streamer_sink_up", 1, self.sink.name)
        if self._said:
            self._said = ""
            self._emit(Recovered(self.component, self._clock.wall_ns()))

    def told_of_losses(self) -> None:
        """The backlog has lost something on disk. What waited behind it waits for nothing more."""
        self._wake.set()
        self._after_settling()

    def _down(self, kind: str, reason: str, remedy: str) -> None:
        """Note a failure; said once for each kind of trouble until the sink works again."""
        self._failures += 1
        self._telemetry.count("streamer_sink_failures_total", self.sink.name)
        self._telemetry.set("streamer_sink_up", 0, self.sink.name)
        since_ms = self._status.since_ms if self._status.state == "down" else self._now_ms()
        self._status = Status(self.component, "down", reason, remedy, since_ms)
        if self._said != kind:
            self._said = kind
            self._emit(Degraded(self.component, self._clock.wall_ns(), reason, remedy))

    def _log_bug(self, bug: Exception) -> None:
        if self._status.state != "down":  # once, not at every attempt
            log.error("%s: unexpected error", self.component, exc_info=bug)

    def _abandon(self) -> None:
        self.backlog.abandon()
        self._settled.set()
        self._account()

    def _account(self) -> int:
        """Tell how much waits, and that there are losses to say; returns how many messages wait."""
        durable, stats = self.backlog.statistics()
        for lane, waiting in (("durable", durable), ("stats", stats)):
            self._telemetry.set("streamer_sink_backlog_messages", waiting.messages, self.sink.name, lane)
            self._telemetry.set("streamer_sink_backlog_bytes", waiting.bytes, self.sink.name, lane)
        if self.backlog.has_losses:
            self._on_loss()
        return durable.messages + stats.messages

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000


async def _set_within(event: asyncio.Event, limit_seconds: float) -> bool:
    """Whether the event was set in time."""
    try:
        async with asyncio.timeout(limit_seconds):
            return await event.wait()
    except TimeoutError:
        return False
