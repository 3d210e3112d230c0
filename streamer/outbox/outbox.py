"""Between the manager and the sinks: each message is encoded once, numbered, and put into every sink's backlog.

`publish` returns at once; a task per sink does the rest (`delivery.py`), so that no sink waits for another.
Losses come back as `Lost` observations, from a task of their own: a `Lost` makes a control message, which is published
in turn, and saying it from inside `publish` would publish in the middle of publishing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from streamer.config import Outbox as OutboxSettings
from streamer.contracts import Clock, Emit, Lapse, Sink, Status
from streamer.model.inventory import Checkpoint, Past
from streamer.model.messages import STATS, TOPICS, Lane, Message
from streamer.model.observations import Lost
from streamer.model.wire import Entry, Envelope, encode
from streamer.outbox.backlog import Cause, Loss, Rejected
from streamer.outbox.delivery import Delivery, Fetched
from streamer.outbox.disk import Disk
from streamer.outbox.journal import Journal
from streamer.outbox.lane import Mark, Stretch
from streamer.outbox.leftovers import Cursor
from streamer.outbox.state import lost_samples
from streamer.outbox.store import Store
from streamer.telemetry import Telemetry

DECLARE_SECONDS: Final = 1.0
"""Losses of a sink are said at most this often, so that a lasting overflow cannot feed itself with gap messages."""

_POSITIONS_SKIPPED: Final = 1_000_000
_ALL_TYPES: Final = frozenset(topic.short for topic in TOPICS)

_WHY: Final[dict[Cause, str]] = {
    "overflow": "its backlog was full: the oldest went",
    "unreadable": "they were on disk and could not be read back",
    "rejected": "it will never take them",
    "gone": "it is gone for good",
}


class Outbox:
    """Numbers, encodes and delivers messages to any number of sinks.

    `add` the sinks, then `run`; `publish` at any time; `drain` while `run` still runs, then cancel it, then `close`.
    """

    def __init__(
        self,
        clock: Clock,
        settings: OutboxSettings,
        envelope: Envelope,
        telemetry: Telemetry,
        emit: Emit,
        *,
        chance: Callable[[], float] = random.random,
        store: Store | None = None,
        trouble: str = "",
        sign: Callable[[], None] = lambda: None,
        snapshot: Callable[[], Checkpoint | None] = lambda: None,
    ) -> None:
        """`store`: the state file, the outbox's own from now on; None: everything is held in memory.

        `trouble`: why it cannot be written now; "": it can. `sign` is called when something is on disk for the first time.
        `snapshot`: everything to be kept besides messages, when the state file has to be written anew.
        """
        self._clock, self._settings, self._envelope = clock, settings, envelope
        self._telemetry, self._emit, self._chance = telemetry, emit, chance
        self._deliveries: list[Delivery] = []
        self._store, self._trouble = store, trouble
        self._disk: Disk | None = None
        before, self._order_ms = store.last if store is not None else (0, 0)
        # what was numbered after the last commit of a crashed run, samples alone, may be at a sink already
        self._position = before + _POSITIONS_SKIPPED if before else 0
        if trouble and not before:  # nobody knows which numbers are used up
            self._position = clock.wall_ns() // 1_000
        self._dropped: list[tuple[str, Stretch]] = []  # by sink: what an earlier run had no room for and had not declared
        self._cursors = store.leftovers.cursors() if store is not None and store.file.readable else {}
        if store is not None:
            self._disk = Disk(
                Journal(store, clock),
                self._deliveries,
                clock=clock,
                telemetry=telemetry,
                emit=emit,
                snapshot=snapshot,
                sign=sign,
                offered=before,
            )
        self._lost: Final = asyncio.Event()

    def add(self, sink: Sink, types: frozenset[str]) -> None:
        """Send entries of the topics with these short names to `sink` from now on. Before `run`.

        A sink that the run before had too is given what it did not acknowledge then; it is known by what it describes.

        Raises:
            ValueError: another sink has the same name.
            StoreFailed: the state file cannot be read.
        """
        if any(sink.name == other.sink.name for other in self._deliveries):
            raise ValueError(f"two sinks are named {sink.name!r}")
        delivery = Delivery(
            sink,
            types,
            settings=self._settings,
            clock=self._clock,
            telemetry=self._telemetry,
            emit=self._emit,
            chance=self._chance,
            on_loss=self._lost.set,
            on_settled=self._settled,
            read=None if self._disk is None else lambda *question: self._read(delivery, *question),
        )
        cursor = self._cursors.pop(sink.describe(), None)
        if cursor is None or self._store is None:
            delivery.begin_at(self._position)
        else:
            left = self._store.leftovers.left(cursor, types)
            delivery.adopt("durable", left["durable"], Mark(cursor.durable))
            delivery.adopt("stats", left["stats"], cursor.stats)
            self._dropped += self._store.leftovers.dropped(cursor, types)
        self._deliveries.append(delivery)

    def left_unsaid(self, past: Past) -> list[Lost]:
        """What did not survive to this run, for the sinks that were to have it. Once, after all were added.

        The samples that a killed run had in memory, what its disk had no room for, and what waits for sinks that are no
        longer configured.
        """
        store, now_ns = self._store, self._clock.wall_ns()
        if store is None or not store.file.readable or past.damaged:
            return []
        reached = [
            Cursor(d.sink.describe(), d.sink.name, stats=d.backlog.lane("stats").mark)
            for d in self._deliveries
            if STATS.short in d.types
        ]
        lost = lost_samples(past, reached, store.leftovers.spilled(past.epoch), now_ns)
        lost += [_observation(f"sink.{name}", now_ns, _loss(stretch, "overflow")) for name, stretch in self._dropped]
        for cursor in self._cursors.values():
            why = f"{cursor.sink} is no longer configured"
            stretches = [stretch for left in store.leftovers.left(cursor, _ALL_TYPES).values() for stretch in left.stretches]
            lost += [_observation(f"sink.{cursor.name}", now_ns, _loss(stretch, "gone"), why) for stretch in stretches]
        self._cursors.clear()
        return lost

    def publish(
        self,
        messages: Sequence[Message],
        checkpoint: Checkpoint | None = None,
        tell: Callable[[Message, Entry], None] | None = None,
    ) -> list[Entry]:
        """Encode and offer to every sink; returns the entries, one per message, and never waits.

        With a state file, what is durable is offered once it is committed, and `checkpoint` goes into the same transaction.
        `tell` is called with each message first: whom it wakes has its turn before anything is written.
        """
        self._order_ms = max(self._order_ms, self._clock.wall_ns() // 1_000_000)
        first = self._position + 1
        entries = [encode(message, position, self._order_ms, self._envelope) for position, message in enumerate(messages, first)]
        self._position += len(entries)
        try:
            if tell is not None:
                for message, entry in zip(messages, entries, strict=True):
                    tell(message, entry)
        finally:  # what has a number is delivered, also when whoever is told raises and ends the run
            self._accept(entries, checkpoint)
        return entries

    def _accept(self, entries: list[Entry], checkpoint: Checkpoint | None) -> None:
        if self._disk is not None:
            self._disk.publish(entries, checkpoint)
        else:
            for delivery in self._deliveries:
                delivery.offer(entries)

    def start(self) -> None:
        """Begin to use the state file. On the event loop, before the first `publish`."""
        if self._disk is not None:
            self._disk.start(self._trouble)
        for delivery in self._deliveries:
            delivery.fetch()

    async def run(self) -> None:
        """Deliver until cancelled. Returns only when every sink, if there is one, is gone for good (the reader of stdout went away)."""
        async with asyncio.TaskGroup() as group:
            declaring = group.create_task(self._declare_losses(), name="losses")
            watching = group.create_task(self._raise_bugs(), name="bugs")
            deliveries = [group.create_task(each.run(), name=each.component) for each in self._deliveries]
            await asyncio.wait(deliveries or [watching])
            declaring.cancel()
            watching.cancel()
        self._declare()

    async def close(self) -> bool:
        """After `run`: write down what is left and let go of the state file. Whether nothing is lost by ending now."""
        if self._disk is None:
            return not any(self.left().values())
        return await self._disk.close()

    @property
    def has_let_go(self) -> bool:
        """Whether nobody writes to the state file any more: a disk that hangs may after `close`."""
        return self._disk is None or self._disk.has_let_go

    async def drain(self, deadline_seconds: float) -> dict[str, int]:
        """Deliver what waits, losses declared first; returns how many messages are left for each sink at the deadline."""
        patient = self._disk is None
        try:
            async with asyncio.timeout(deadline_seconds):
                while True:
                    self._declare()
                    await self.flush()
                    await asyncio.gather(
                        *(delivery.drain(patient=patient or not self._disk_works()) for delivery in self._deliveries)
                    )
                    if not self._any_losses():
                        break
        except TimeoutError:
            self._declare()  # too late to be delivered, but not to be seen in memory and counted
        return self.left()

    async def flush(self) -> None:
        """Until what was published is offered to the sinks: with a state file, until it is committed."""
        if self._disk is not None:
            await self._disk.flush()

    def _disk_works(self) -> bool:
        return self._disk is not None and self._disk.works

    def left(self) -> dict[str, int]:
        """Messages that are not acknowledged, by sink."""
        return {delivery.sink.name: delivery.backlog.statistics().messages for delivery in self._deliveries}

    def statuses(self) -> list[Status]:
        """How every sink is, in the order they were added."""
        return [delivery.status() for delivery in self._deliveries]

    def disk_status(self) -> Status | None:
        """How the state file is; None: there is none."""
        return None if self._disk is None else self._disk.status()

    def _read(
        self, delivery: Delivery, lane: Lane, after: int, through: int, types: frozenset[str], most: int, hear: Fetched
    ) -> None:
        if self._disk is not None:
            self._disk.read(delivery, lane, after, through, most, hear)

    def _settled(self, delivery: Delivery, refused: Sequence[Rejected], lapses: Sequence[Lapse]) -> None:
        if self._disk is not None:
            self._disk.settled()
            if refused:
                self._disk.dead_letters(delivery, refused)
        for lapse in lapses:
            lost = Lost(delivery.component, self._clock.wall_ns(), lapse.reason)
            if lapse.last_seq:
                lost = structs.replace(lost, first="1", last=str(lapse.last_seq), topic=lapse.topic.suffix, epoch=lapse.epoch)
            self._emit(lost)

    async def _raise_bugs(self) -> None:
        """What went wrong in a callback of the journal, which has nobody to raise to."""
        await (asyncio.Event().wait() if self._disk is None else asyncio.shield(self._disk.bug))

    async def _declare_losses(self) -> None:
        while True:
            await self._lost.wait()
            self._declare()
            await asyncio.sleep(DECLARE_SECONDS)

    def _any_losses(self) -> bool:
        return any(delivery.backlog.has_losses for delivery in self._deliveries)

    def _declare(self) -> None:
        self._lost.clear()
        for delivery in self._deliveries:
            delivery.declaring = True  # the first gap's commit must not move the sink past the others
            for loss in delivery.backlog.losses():
                name, lane = delivery.sink.name, loss.topic.lane
                self._telemetry.count("streamer_sink_dropped_total", name, lane, loss.cause, by=loss.count)
                self._emit(_observation(delivery.component, self._clock.wall_ns(), loss))
            delivery.declaring = False


def _loss(stretch: Stretch, cause: Cause) -> Loss:
    return Loss(stretch.topic, stretch.epoch, cause, stretch.first_seq, stretch.last_seq, stretch.count)


def _observation(component: str, time_ns: int, loss: Loss, why: str = "") -> Lost:
    reason = (why or _WHY[loss.cause]) + (f": {loss.detail}" if loss.detail else "")
    if loss.topic.compacted:  # its numbers promise nothing
        return Lost(component, time_ns, reason, loss.count, topic=loss.topic.suffix)
    return Lost(component, time_ns, reason, loss.count, str(loss.first_seq), str(loss.last_seq), loss.topic.suffix, loss.epoch)
