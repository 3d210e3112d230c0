"""Write-through: what is durable is on disk before a sink is offered it; samples only while some sink lags.

    publish ──▶ nothing to write, nothing being written ──▶ offered at once
           └──▶ journal ──committed──▶ offered, in the order of publishing
                       └──failed, or hangs──▶ offered all the same, held in memory; written later

What is on disk is known exactly: a durable entry stands in `_unstored` from its publishing until a commit that holds it
succeeded, a sample's number in `_stored` once it did. Whatever went wrong, `_heal` writes all that is missing, until nothing
is: then the state is `ok` again. On the event loop; nothing here waits.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
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
from streamer.outbox.leftovers import Cursor
from streamer.outbox.ranges import Ranges
from streamer.outbox.retry import delay_seconds
from streamer.outbox.store import Committed, Work
from streamer.telemetry import Telemetry

COMPONENT: Final = "state"
FLUSH_SECONDS: Final = 1.0  # how long an acknowledged message may stay on disk when nothing else is written
STALL_SECONDS: Final = 2.0  # what a disk has not taken by then is offered without it
FIRST_RETRY_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 10.0
REMEDY: Final = "make room, or writable, in state_dir; until then what waits is in memory, and a crash of the agent loses it"
_MOST_BAD_READS: Final = 8  # in a row; then what is on disk counts as lost, and the sink goes on with what came after it
_PRUNE_ABOVE: Final = 10_000  # entries that are not on disk: those that no sink needs any more are forgotten then


class _Batch(Struct, eq=False):
    """What was published together and is not offered yet. `done`: it may be offered; its write has ended, or is not waited for."""

    entries: Sequence[Entry]
    durable: Sequence[Entry] = ()  # those of them
    done: bool = False
    since: float = math.inf  # seconds on the event loop's clock: the write was handed over


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
        self._unstored: dict[int, Entry] = {}  # durable entries that are not known to be on disk, by position
        self._prune_at = _PRUNE_ABOVE
        self._stored: dict[int, Ranges] = {}  # numbers of samples that are on disk, or were, by epoch
        self._asked: dict[int, Ranges] = {}  # the same, and those being written
        self._before = offered  # what an earlier run left, up to this position, is on disk
        self._bytes: dict[Lane, int] = {"durable": 0, "stats": 0}
        self._moved = True  # cursors, since they were written last; the first write says from where a sink begins
        self._paused = False  # nothing is written until `_heal` tries again
        self._flush: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._closing = False
        self._failures = 0
        self._unanswered = 0  # writes that were asked for
        self._bad_reads: dict[tuple[Delivery, Lane], int] = {}  # how often in a row what is on disk could not be read
        self._spilling: frozenset[str] = frozenset()  # sinks whose samples in memory are all on disk, or being written
        self._status = Status(COMPONENT, "ok", since_ms=clock.wall_ns() // 1_000_000)

    def start(self, trouble: str) -> None:
        """Begin; on the event loop. `trouble`: why the file cannot be written; who starts us has said so."""
        self._journal.start()
        self._telemetry.set("streamer_state_up", 0 if trouble else 1)
        if trouble:
            self._status = Status(COMPONENT, "degraded", trouble, REMEDY, self._clock.wall_ns() // 1_000_000)
            self._paused = True
            self._heal_in(FIRST_RETRY_SECONDS)

    def status(self) -> Status:
        return self._status

    @property
    def bug(self) -> asyncio.Future[None]:
        """Fails with what went wrong where nobody could be told."""
        return self._journal.bug

    @property
    def works(self) -> bool:
        """Whether the disk has everything that it should."""
        return self._status.state == "ok"

    def publish(self, entries: Sequence[Entry], checkpoint: Checkpoint | None) -> None:
        """Write what has to be written and offer all of it to the sinks, in order."""
        durable = _of("durable", entries)
        batch = _Batch(entries, durable)
        self._batches.append(batch)
        self._unstored.update((entry.position, entry) for entry in durable)
        if self._paused:
            self._prune()
            self._done(batch)
            return
        stats = self._to_spill() if len(durable) < len(entries) else []
        if durable or stats or checkpoint is not None:
            self._write(batch, Work(durable, stats, checkpoint, self._cursors() if self._moved else None))
        else:
            self._done(batch)

    def read(self, delivery: Delivery, lane: Lane, after: int, through: int, most_bytes: int, hear: Fetched) -> None:
        """Read back what is on disk only; a failure is dealt with here."""

        def got(answer: tuple[list[Entry], int] | Trouble) -> None:
            place = (delivery, lane)
            if not isinstance(answer, Trouble):
                self._bad_reads.pop(place, None)
                hear(answer)
                return
            self._bad_reads[place] = self._bad_reads.get(place, 0) + 1
            if self._bad_reads[place] > _MOST_BAD_READS:
                del self._bad_reads[place]
                delivery.backlog.lose_disk(lane)
                delivery.told_of_losses()
            hear(None)
            self._in_trouble(answer)

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

    @property
    def has_let_go(self) -> bool:
        """Whether the journal's thread has ended."""
        return self._journal.has_ended

    async def close(self) -> bool:
        """Write down everything that is still in memory and let go of the file; whether nothing is lost by ending now."""
        self._closing = True
        for timer in (self._flush, self._retry, self._stall):
            if timer is not None:
                timer.cancel()
        closed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def ended(answer: Committed | Trouble) -> None:
            if not closed.done():
                closed.set_result(isinstance(answer, Committed))

        self._journal.write(self._missing(clean=True), ended)
        await asyncio.wait({closed}, timeout=CLOSE_SECONDS)
        kept = closed.done() and closed.result()
        await self._journal.close(patient=closed.done())
        closed.cancel()
        return kept

    # writing

    def _write(self, batch: _Batch, work: Work) -> None:
        self._unanswered += 1
        for epoch, first, last in _runs(work.stats):
            self._asked.setdefault(epoch, Ranges()).add(first, last)
        self._journal.write(work, partial(self._written, batch, work))
        asyncio.get_running_loop().call_soon(self._handed_over, batch)

    def _handed_over(self, batch: _Batch) -> None:
        """It is the journal's now: from here on it may stall. Of a turn that took long, the disk knows nothing."""
        loop = asyncio.get_running_loop()
        batch.since = loop.time()
        if self._stall is None and not self._closing:
            self._stall = loop.call_later(STALL_SECONDS, self._look_for_a_stall)

    def _written(self, batch: _Batch, work: Work, answer: Committed | Trouble) -> None:
        self._unanswered -= 1
        if isinstance(answer, Committed):
            for entry in work.durable:
                self._unstored.pop(entry.position, None)
            for epoch, first, last in _runs(work.stats):
                self._stored.setdefault(epoch, Ranges()).add(first, last)
                self._asked.setdefault(epoch, Ranges()).add(first, last)
            self._account(answer)
        self._done(batch)
        if isinstance(answer, Trouble):
            self._in_trouble(answer)
        elif not self.works or self._any_tail():
            self._look_whether_all_is_well()

    def _done(self, batch: _Batch) -> None:
        batch.done = True
        while self._batches and self._batches[0].done:
            ready = self._batches[0]
            if ready.entries:
                stored: list[Lane] = ["durable"] if all(map(self._is_stored, ready.durable)) else []
                if self._stored and all(map(self._is_stored, _of("stats", ready.entries))):
                    stored.append("stats")
                for delivery in self._deliveries:
                    delivery.offer(ready.entries, stored)
                self._offered = ready.entries[-1].position
            self._batches.popleft()
        if not self._batches:
            self._all_offered.set()

    def _is_stored(self, entry: Entry) -> bool:
        if entry.topic.lane == "durable":
            return entry.position not in self._unstored
        return entry.seq in self._stored.get(entry.epoch, ())

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
        return [Cursor(d.sink.describe(), d.sink.name, *d.reached(self._offered)) for d in self._deliveries]

    def _write_cursors(self) -> None:
        self._flush = None
        if self._moved and self.works:
            batch = _Batch(())
            self._batches.append(batch)
            self._write(batch, Work(cursors=self._cursors()))

    # what is missing on disk

    def _to_spill(self) -> list[Entry]:
        """The samples to write now: all that are not on disk, once some sink lags. A crash from then on loses none of them."""
        lag = [delivery for delivery in self._deliveries if delivery.backlog.lane("stats").lags]
        names = frozenset(delivery.sink.name for delivery in lag)
        fresh = not names <= self._spilling  # of the others, all that came before this is on its way already
        self._spilling = names
        return self._samples(lag if fresh else (), self._asked) if lag else []

    def _samples(self, of: Iterable[Delivery], but: dict[int, Ranges]) -> list[Entry]:
        """Samples in the memory of these sinks, or published and not offered yet, whose numbers are not among `but`, in order."""
        waiting = chain(*(delivery.backlog.in_memory() for delivery in of), *(batch.entries for batch in self._batches))
        found = {
            entry.position: entry
            for entry in _of("stats", waiting)
            if entry.position > self._before and entry.seq not in but.get(entry.epoch, ())
        }
        return [found[position] for position in sorted(found)]

    def _missing(self, *, clean: bool) -> Work:
        """All that is in memory and should be, or at the end had better be, on disk."""
        self._prune(always=True)
        durable = [self._unstored[position] for position in sorted(self._unstored)]
        lag = [d for d in self._deliveries if clean or d.backlog.lane("stats").lags]
        stats = self._samples(lag, self._stored) if lag else []
        return Work(durable, stats, self._snapshot(), self._cursors(), clean)

    def _prune(self, *, always: bool = False) -> None:
        """Forget those that every sink has: while the disk takes nothing, nothing else does."""
        if always or len(self._unstored) > self._prune_at:
            needed = {entry.position for delivery in self._deliveries for entry in delivery.backlog.in_memory()}
            needed.update(entry.position for batch in self._batches for entry in batch.entries)
            self._unstored = {position: entry for position, entry in self._unstored.items() if position in needed}
            self._prune_at = max(_PRUNE_ABOVE, 2 * len(self._unstored))

    # trouble

    def _in_trouble(self, trouble: Trouble) -> None:
        """Note it, and try again later: a file begun anew is tried at once, the first time."""
        now_ns = self._clock.wall_ns()
        if trouble.aside:
            self._begin_anew(trouble, now_ns)
        self._asked = {epoch: ranges.copy() for epoch, ranges in self._stored.items()}
        self._spilling = frozenset()
        self._degrade(trouble.problem, now_ns)
        self._failures += self._retry is None  # several at once are one
        self._heal_in(0.0 if trouble.aside and self._failures == 1 else delay_seconds(self._failures + 3, 0.5))

    def _degrade(self, problem: str, now_ns: int) -> None:
        self._paused = True
        self._telemetry.set("streamer_state_up", 0)
        if self.works:
            self._status = Status(COMPONENT, "degraded", problem, REMEDY, now_ns // 1_000_000)
            self._emit(Degraded(COMPONENT, now_ns, problem, REMEDY))

    def _begin_anew(self, trouble: Trouble, now_ns: int) -> None:
        reason = f"the state file was damaged ({trouble.problem}) and is kept as {trouble.aside}; a new one was begun"
        self._emit(Lost(COMPONENT, now_ns, reason, count=None))
        self._before = 0
        self._stored = {}
        for delivery in self._deliveries:
            for lane in LANES:
                delivery.backlog.lose_disk(lane)
            delivery.told_of_losses()
            self._unstored.update((e.position, e) for e in _of("durable", delivery.backlog.in_memory()))
        for batch in self._batches:
            self._unstored.update((entry.position, entry) for entry in _of("durable", batch.entries))

    def _look_for_a_stall(self) -> None:
        """A disk that hangs must not hold up the sinks: what waits for it too long is offered without."""
        self._stall = None
        waiting = [batch for batch in self._batches if not batch.done]
        if not waiting or waiting[0].since == math.inf:  # `_handed_over` comes for it
            return
        loop = asyncio.get_running_loop()
        if (due := waiting[0].since + STALL_SECONDS) > loop.time():
            self._stall = loop.call_at(due, self._look_for_a_stall)
            return
        self._degrade(f"a write has not ended within {STALL_SECONDS:g} s", self._clock.wall_ns())  # its end will be heard of
        for batch in waiting:
            self._done(batch)

    def _heal_in(self, seconds: float) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(seconds, self._heal)

    def _heal(self) -> None:
        """Write all that is missing; what is published from now on queues behind it, and fails or goes with it."""
        self._retry = None
        if self._unanswered:
            return  # what is being written would be written twice; the answer looks again
        self._paused = False
        for delivery in self._deliveries:
            delivery.fetch()
        batch = _Batch(())
        self._batches.append(batch)
        self._write(batch, self._missing(clean=False))

    def _look_whether_all_is_well(self) -> None:
        """After a write that succeeded: whether anything is missing on disk, or cannot be read."""
        for delivery in self._deliveries:
            for lane in LANES:
                delivery.backlog.lane(lane).stow(self._is_stored)
        if self._unanswered:
            return  # the next answer looks again
        if self._unstored or self._any_tail():
            self._heal_in(0.0)
            return
        self._paused = False
        if self._bad_reads:
            self._heal_in(delay_seconds(self._failures + 3, 0.5))
            return
        self._failures = 0
        for delivery in self._deliveries:
            delivery.fetch()
        if not self.works:
            now_ns = self._clock.wall_ns()
            self._status = Status(COMPONENT, "ok", since_ms=now_ns // 1_000_000)
            self._telemetry.set("streamer_state_up", 1)
            self._emit(Recovered(COMPONENT, now_ns))

    def _any_tail(self) -> bool:
        return any(delivery.backlog.lane(lane).tail for delivery in self._deliveries for lane in LANES)


def _of(lane: Lane, entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.topic.lane == lane]


def _runs(samples: Sequence[Entry]) -> list[tuple[int, int, int]]:
    """(epoch, first, last) of the numbers of these samples, which are in order."""
    runs: list[tuple[int, int, int]] = []
    for entry in samples:
        if runs and (runs[-1][0], runs[-1][2] + 1) == (entry.epoch, entry.seq):
            runs[-1] = (entry.epoch, runs[-1][1], entry.seq)
        else:
            runs.append((entry.epoch, entry.seq, entry.seq))
    return runs


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
