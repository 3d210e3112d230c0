"""Write-through: what is durable is on disk before a sink is offered it; samples only while some sink lags.

    publish ──▶ nothing to write, nothing being written ──▶ offered at once
           └──▶ journal ──committed──▶ offered, in the order of publishing
                       └──failed─────▶ offered all the same, held in memory; tried again until the disk takes all of it

On the event loop; nothing here waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from streamer.contracts import Clock, Emit, Status
from streamer.model.inventory import Checkpoint
from streamer.model.messages import Lane
from streamer.model.observations import Degraded, Lost, Recovered
from streamer.model.wire import Entry
from streamer.outbox.backlog import Rejected
from streamer.outbox.delivery import LANES, Delivery, Fetched
from streamer.outbox.journal import Journal, Trouble
from streamer.outbox.retry import delay_seconds
from streamer.outbox.store import Committed, Cursor, Work
from streamer.telemetry import Telemetry

COMPONENT: Final = "state"
FLUSH_SECONDS: Final = 1.0  # how long an acknowledged message may stay on disk when nothing else is written
STALL_SECONDS: Final = 2.0  # what a disk has not taken by then is offered without it
FIRST_RETRY_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 10.0
REMEDY: Final = "make room, or writable, in state_dir; until then what waits is in memory, and a crash of the agent loses it"


class _Batch(Struct, eq=False):
    """What was published together and is not offered yet."""

    entries: Sequence[Entry]
    stats_stored: bool
    done: bool = False
    failed: bool = False
    since: float = 0.0  # seconds on the event loop's clock: the write was asked for


class Disk:
    """The state file as the outbox sees it. `snapshot`: all that is to be kept besides messages, for a file begun anew."""

    def __init__(
        self,
        journal: Journal,
        deliveries: Sequence[Delivery],
        *,
        clock: Clock,
        telemetry: Telemetry,
        emit: Emit,
        snapshot: Callable[[], Checkpoint | None],
        offered: int,
        sign: Callable[[], None] = lambda: None,
    ) -> None:
        """`offered`: the last position of the run before. `sign` is called when something is on disk for the first time."""
        self._journal, self._deliveries = journal, deliveries
        self._clock, self._telemetry, self._emit, self._snapshot = clock, telemetry, emit, snapshot
        self._sign: Callable[[], None] | None = sign
        self._batches: deque[_Batch] = deque()
        self._all_offered = asyncio.Event()
        self._offered = offered
        self._stored_stats = 0  # every sample from the beginning of the present spill up to this position is on disk
        self._asked_stats = 0  # or is being written
        self._bytes: dict[Lane, int] = {"durable": 0, "stats": 0}
        self._moved = True  # cursors, since they were written last; the first write says from where a sink begins
        self._flush: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._failures = 0
        self._trying = False
        self._status = Status(COMPONENT, "ok", since_ms=clock.wall_ns() // 1_000_000)

    def start(self, trouble: str) -> None:
        """Begin; on the event loop. `trouble`: why the file cannot be written; who starts us has said so."""
        self._journal.start()
        if trouble:
            self._status = Status(COMPONENT, "degraded", trouble, REMEDY, self._clock.wall_ns() // 1_000_000)
            self._telemetry.set("streamer_state_up", 0)
            self._retry = asyncio.get_running_loop().call_later(FIRST_RETRY_SECONDS, self._try_again)
        else:
            self._telemetry.set("streamer_state_up", 1)

    def status(self) -> Status:
        return self._status

    @property
    def works(self) -> bool:
        """Whether the disk takes what it is given."""
        return self._status.state == "ok"

    def publish(self, entries: Sequence[Entry], checkpoint: Checkpoint | None) -> None:
        """Write what has to be written and offer all of it to the sinks, in order."""
        lag = [d for d in self._deliveries if d.backlog.lane("stats").lags] if self.works or self._trying else []
        spills = bool(lag) and any(entry.topic.lane == "stats" for entry in entries)
        batch = _Batch(entries, spills, since=asyncio.get_running_loop().time())
        self._batches.append(batch)
        durable = [entry for entry in entries if entry.topic.lane == "durable"]
        if not (durable or spills or checkpoint) or not (self.works or self._trying):
            batch.done, batch.failed = True, not self.works
            self._offer_ready()
            return
        stats = [*self._not_stored_yet(lag), *(entry for entry in entries if entry.topic.lane == "stats")] if spills else []
        if stats:
            self._asked_stats = max(self._asked_stats, stats[-1].position)
        if self._stall is None:
            self._stall = asyncio.get_running_loop().call_later(STALL_SECONDS, self._look_for_a_stall)
        self._journal.write(
            Work(durable, stats, checkpoint, self._cursors() if self._moved else None),
            lambda answer: self._written(batch, stats, answer),
        )

    def read(self, delivery: Delivery, lane: Lane, after: int, through: int, most_bytes: int, hear: Fetched) -> None:
        """Read back what is on disk only; a failure is dealt with here."""

        def got(answer: tuple[list[Entry], int] | Trouble) -> None:
            if isinstance(answer, Trouble):
                hear(None)
                self._in_trouble(answer)
            else:
                hear(answer)

        self._journal.read(lane, after, through, delivery.types, most_bytes, got)

    def settled(self) -> None:
        """Some sink has come further."""
        self._moved = True
        if self._flush is None and self.works and any(self._bytes.values()):
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._write_cursors)

    def dead_letters(self, delivery: Delivery, refused: Sequence[Rejected]) -> None:
        """Keep what a peer will never take, where people can look at it."""
        now_ms = self._clock.wall_ns() // 1_000_000

        def done(problem: str) -> None:
            if problem:
                self._emit(Lost(COMPONENT, self._clock.wall_ns(), f"refused messages could not be kept: {problem}", len(refused)))

        self._journal.dead_letters([_letter(delivery, one, now_ms) for one in refused], done)

    async def flush(self) -> None:
        """Until everything that was published is offered to the sinks."""
        while self._batches:
            self._all_offered.clear()
            await self._all_offered.wait()

    async def close(self) -> bool:
        """Write down everything that is still in memory and let go of the file; whether nothing is lost by ending now."""
        for timer in (self._flush, self._retry, self._stall):
            if timer is not None:
                timer.cancel()
        closed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        work = self._everything(clean=True)

        def ended(answer: Committed | Trouble) -> None:
            if not closed.done():
                closed.set_result(isinstance(answer, Committed))

        self._journal.write(work, ended)
        await asyncio.wait({closed}, timeout=CLOSE_SECONDS)
        kept = closed.done() and closed.result()
        closed.cancel()
        await self._journal.close()
        return kept

    # answers

    def _written(self, batch: _Batch, stats: Sequence[Entry], answer: Committed | Trouble) -> None:
        if batch.done:  # given up, and offered without
            self._late(answer)
            return
        batch.done = True
        if isinstance(answer, Committed):
            self._account(answer)
            if stats:
                self._stored_stats = max(self._stored_stats, stats[-1].position)
            self._offer_ready()
            return
        batch.failed = True
        self._offer_ready()
        self._in_trouble(answer)

    def _offer_ready(self) -> None:
        while self._batches and self._batches[0].done:
            batch = self._batches.popleft()
            if not batch.entries:
                continue
            stored: tuple[Lane, ...] = () if batch.failed else LANES if batch.stats_stored else LANES[:1]
            for delivery in self._deliveries:
                delivery.offer(batch.entries, stored)
            self._offered = batch.entries[-1].position
        if not self._batches:
            self._all_offered.set()

    def _account(self, answer: Committed) -> None:
        if self._sign is not None:
            self._sign()
            self._sign = None
        self._telemetry.count("streamer_state_commits_total")
        for lane, heads in answer.dropped.items():
            if heads:
                for delivery in self._deliveries:
                    delivery.backlog.gone_from_disk(lane, heads)
                    delivery.told_of_losses()
        self._bytes = answer.bytes
        for lane, size in answer.bytes.items():
            self._telemetry.set("streamer_state_bytes", size, lane)

    # cursors

    def _cursors(self) -> list[Cursor]:
        self._moved = False
        return [
            Cursor(d.sink.describe(), d.sink.name, d.reached("durable", self._offered).position, d.reached("stats", self._offered))
            for d in self._deliveries
        ]

    def _write_cursors(self) -> None:
        self._flush = None
        if self._moved and self.works:
            batch = _Batch((), stats_stored=False)
            self._batches.append(batch)
            self._journal.write(Work(cursors=self._cursors()), lambda answer: self._written(batch, (), answer))

    # samples of a sink that lags

    def _not_stored_yet(self, lag: Sequence[Delivery]) -> list[Entry]:
        """The samples in the memory of lagging sinks that are not on disk: with them, a crash from here on loses nothing."""
        waiting = {
            entry.position: entry
            for delivery in lag
            for entry in delivery.backlog.in_memory()
            if entry.topic.lane == "stats" and entry.position > self._asked_stats
        }
        return [waiting[position] for position in sorted(waiting)]

    # trouble

    def _in_trouble(self, trouble: Trouble, *, retry: bool = True) -> None:
        now_ns = self._clock.wall_ns()
        if trouble.aside:
            self._begin_anew(trouble, now_ns)
        self._trying = False
        self._asked_stats = self._stored_stats
        if self.works:
            self._status = Status(COMPONENT, "degraded", trouble.problem, REMEDY, now_ns // 1_000_000)
            self._emit(Degraded(COMPONENT, now_ns, trouble.problem, REMEDY))
        self._telemetry.set("streamer_state_up", 0)
        if retry and self._retry is None:
            self._failures += 1
            pause = 0.0 if trouble.aside else delay_seconds(self._failures + 3, 0.5)
            self._retry = asyncio.get_running_loop().call_later(pause, self._try_again)

    def _look_for_a_stall(self) -> None:
        """A disk that hangs must not hold up the sinks: what waits for it too long is offered without."""
        self._stall = None
        waiting = [batch for batch in self._batches if not batch.done]
        if not waiting:
            return
        loop = asyncio.get_running_loop()
        if (due := waiting[0].since + STALL_SECONDS) > loop.time():
            self._stall = loop.call_at(due, self._look_for_a_stall)
            return
        for batch in waiting:
            batch.done = batch.failed = True
        self._offer_ready()
        self._in_trouble(Trouble(f"a write has not ended within {STALL_SECONDS:g} s"), retry=False)  # its end will be heard of

    def _late(self, answer: Committed | Trouble) -> None:
        """The end of a write that was given up."""
        if isinstance(answer, Trouble):
            self._in_trouble(answer)
        elif not self.works and not self._trying and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(0, self._try_again)

    def _begin_anew(self, trouble: Trouble, now_ns: int) -> None:
        reason = f"the state file was damaged ({trouble.problem}) and is kept as {trouble.aside}; a new one was begun"
        self._emit(Lost(COMPONENT, now_ns, reason, count=None))
        self._stored_stats = 0
        for delivery in self._deliveries:
            delivery.backlog.lose_disk()
            delivery.told_of_losses()

    def _try_again(self) -> None:
        """Write all that should be on disk; what is published from now on queues behind it, and fails or goes with it."""
        self._retry = None
        self._trying = True
        batch = _Batch((), stats_stored=False, since=asyncio.get_running_loop().time())
        self._batches.append(batch)
        work = self._everything(clean=False)
        if work.stats:
            self._asked_stats = work.stats[-1].position

        def done(answer: Committed | Trouble) -> None:
            if isinstance(answer, Committed):
                self._recovered()
            self._written(batch, work.stats, answer)

        self._journal.write(work, done)

    def _recovered(self) -> None:
        self._trying, self._failures = False, 0
        now_ns = self._clock.wall_ns()
        self._status = Status(COMPONENT, "ok", since_ms=now_ns // 1_000_000)
        self._telemetry.set("streamer_state_up", 1)
        for delivery in self._deliveries:
            for lane in LANES:
                delivery.backlog.lane(lane).stow()
            delivery.fetch()
        self._emit(Recovered(COMPONENT, now_ns))

    def _everything(self, *, clean: bool) -> Work:
        """All that is in memory and should be, or at the end had better be, on disk."""
        waiting: dict[Lane, dict[int, Entry]] = {"durable": {}, "stats": {}}
        lag = [d for d in self._deliveries if clean or d.backlog.lane("stats").lags]
        for delivery in self._deliveries:
            for entry in delivery.backlog.in_memory():
                if entry.topic.lane == "durable" or (delivery in lag and entry.position > self._stored_stats):
                    waiting[entry.topic.lane][entry.position] = entry
        for batch in self._batches:  # published, and not offered yet
            for entry in batch.entries:
                if entry.topic.lane == "durable" or clean:
                    waiting[entry.topic.lane][entry.position] = entry
        durable, stats = ([entries[position] for position in sorted(entries)] for entries in waiting.values())
        return Work(durable, stats, self._snapshot(), self._cursors(), clean)


def _letter(delivery: Delivery, refused: Rejected, now_ms: int) -> dict[str, Any]:
    entry = refused.entry
    return {
        "time_ms": now_ms,
        "sink": delivery.sink.name,
        "url": delivery.sink.describe(),
        "topic": entry.topic.suffix,
        "reason": refused.reason,
        "id": entry.id,
        "key": entry.key,
        "epoch": entry.epoch,
        "seq": entry.seq,
        "value": None if entry.value is None else entry.value.decode("utf-8", "backslashreplace"),
    }
