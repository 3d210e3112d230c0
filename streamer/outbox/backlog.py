"""What waits for one sink, and what goes next: decided here, without waiting, clock or chance.

Two lanes (`lane.py`). `durable` holds lifecycle, OOM, host, state and control messages, `stats` the samples. What is
dropped is counted with its `seq`, so that a `gap` can be declared.

Order. Each lane is first in, first out, and a batch is taken from one lane only, so that all of it is acknowledged
before the other lane's turn. The durable lane goes first. Together that gives, per container:

- `created` is acknowledged before its first sample is attempted, because a sample waits for an empty durable lane;
- `deleted` is attempted after the last sample is acknowledged: while older samples of its container wait, it lets the
  stats lane go first, up to its own position. Everything that old may go, as whatever it depends on is older still
  and already sent. `stopped`, the last word of a run, lets all older samples go first in the same way.

Letting the stats lane go first costs a send when the sink keeps up. When the stats lane lags, facts do not queue behind
old samples: `deleted` goes at once, and samples of that container may follow it, late but not lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from streamer.model.messages import CONTROL, Lane, Topic
from streamer.model.wire import Entry
from streamer.outbox.lane import Head, Stretch
from streamer.outbox.lane import Lane as Queue

Cause = Literal["overflow", "rejected", "gone", "unreadable"]


class Loss(Struct, frozen=True):
    """Messages of a topic and epoch that will not reach this sink, for one cause, since the last call of `losses`.

    `count` of the numbers `first_seq`..`last_seq` are missing: the range may hold others that were delivered.
    `detail` is the latest text of a peer that rejected, "" otherwise.
    """

    topic: Topic
    epoch: int
    cause: Cause
    first_seq: int
    last_seq: int
    count: int
    detail: str = ""


class LaneStatistics(NamedTuple):
    """What is not settled yet in a lane, in flight included."""

    messages: int
    bytes: int


class Statistics(NamedTuple):
    """Both lanes at one moment."""

    durable: LaneStatistics
    stats: LaneStatistics

    @property
    def messages(self) -> int:
        return self.durable.messages + self.stats.messages


class Rejected(NamedTuple):
    """An entry that the peer will never take, and why."""

    entry: Entry
    reason: str


class Backlog:
    """The two lanes of one sink.

    Use: `offer` at any time; `take` a batch, then `settle` or `give_back` it before the next `take`. While `wants` names
    a lane, read from disk what comes after its `after` and `refill` it.
    `memory_bytes` is the most that a lane holds in memory; one batch in flight comes on top, and, until the next offer, what is
    read back. `window_bytes`, how much of what is on disk it holds there too, half of `memory_bytes` at most (None: no disk).
    """

    def __init__(self, *, memory_bytes: int, window_bytes: int | None = None) -> None:
        # beyond its window a lane is on disk: one as wide as the memory would be full, and lose, before anything was left there
        window = memory_bytes if window_bytes is None else min(window_bytes, memory_bytes // 2)
        self._durable: Final = Queue(window_bytes=window, most_bytes=memory_bytes)
        self._stats: Final = Queue(window_bytes=window, most_bytes=memory_bytes)
        self._in_flight: list[Entry] = []
        self._in_flight_bytes = 0
        self._newest_sample: dict[str, int] = {}  # container -> position of its last sample that waits in memory
        self._losses: dict[tuple[str, int, Cause], Loss] = {}

    def lane(self, name: Lane) -> Queue:
        """One of the two."""
        return self._stats if name == "stats" else self._durable

    def offer(self, entry: Entry, *, stored: bool = False) -> None:
        """Put an entry at the end of its topic's lane; `stored`: it is on disk too. If memory is too full some go, see `lane.py`."""
        lane = self._lane_of(entry)
        gone = lane.offer(entry, stored)
        if lane is self._stats and lane.head and lane.head[-1] is entry:
            self._newest_sample[entry.subject] = entry.position
        self._overflow(gone)

    def offer_all(self, entries: Sequence[Entry], *, stored: Collection[Lane] = ()) -> None:
        """`offer` each of these, in their order; entries of the lanes `stored` are on disk too."""
        durable = [entry for entry in entries if entry.topic.lane != "stats"]
        samples = [entry for entry in entries if entry.topic.lane == "stats"] if durable else entries
        for entry in durable:
            self.offer(entry, stored="durable" in stored)
        if self._stats.extend(samples, sum(entry.size for entry in samples), "stats" in stored):
            newest = self._newest_sample
            for entry in samples:
                newest[entry.subject] = entry.position
        else:
            for entry in samples:
                self.offer(entry, stored="stats" in stored)

    def urgency(self, max_messages: int, max_bytes: int) -> Literal["none", "gather", "now"]:
        """Whether to send: `now` for any durable message or a full batch, `gather` for a few samples, `none` when nothing can go."""
        stats = self._stats
        if self._durable.head:
            return "now"
        if not stats.head or (self._durable.messages and stats.head[0].position > (self._durable.first_position or 0)):
            return "none"
        full = len(stats.head) >= max_messages or stats.head_bytes >= max_bytes
        return "now" if full or stats.disk_messages else "gather"  # with more on disk there is nothing to gather for

    def take(self, max_messages: int, max_bytes: int) -> list[Entry]:
        """The next batch, of one lane, in order; empty when nothing can go now. A single entry may be over `max_bytes`.

        Raises:
            RuntimeError: the batch before was neither settled nor given back.
        """
        if self._in_flight:
            raise RuntimeError("a batch is in flight: settle() or give_back() first")
        held = self._durable.bytes + self._stats.bytes
        self._in_flight = self._from_durable(max_messages, max_bytes) or self._from_stats(max_messages, max_bytes)
        self._in_flight_bytes = held - self._durable.bytes - self._stats.bytes
        return list(self._in_flight)

    def settle(self, rejected: Sequence[tuple[int, str]] = ()) -> list[Rejected]:
        """The batch is acknowledged but for the `rejected` ones: (index, reason), which count as lost and are returned."""
        batch, self._in_flight = self._in_flight, []
        if batch:
            self._lane_of(batch[-1]).settled(batch[-1])
        refused = [Rejected(batch[index], reason) for index, reason in rejected]
        for entry, reason in refused:
            self._lose(entry.topic, entry.epoch, entry.seq, entry.seq, 1, "rejected", reason)
        return refused

    def give_back(self) -> None:
        """The batch may not have arrived: it goes back to the front of its lane, in the same order."""
        batch, self._in_flight = self._in_flight, []
        if not batch:
            return
        lane = self._lane_of(batch[0])
        gone = lane.push_front(batch)
        if lane is self._stats:
            for entry in batch:
                self._newest_sample[entry.subject] = max(entry.position, self._newest_sample.get(entry.subject, 0))
        self._overflow(gone)

    # what is on disk only

    def wants(self, name: Lane) -> bool:
        """Whether entries of this lane should be read back from disk now. What is in flight may come back, and counts."""
        lane = self.lane(name)
        flying = self._in_flight_bytes if self._in_flight and self._lane_of(self._in_flight[0]) is lane else 0
        return lane.wants_more and lane.head_bytes + flying < lane.window_bytes

    def refill(self, name: Lane, entries: Sequence[Entry], through: int) -> None:
        """Take in what was read from disk, up to position `through`."""
        lane = self.lane(name)
        entries = [entry for entry in entries if entry.position not in lane.holes]
        self._unreadable(lane.refill(entries, through))
        if name == "stats":
            self._newest_sample.update((entry.subject, entry.position) for entry in entries)

    def gone_from_disk(self, name: Lane, heads: Sequence[Head]) -> None:
        """The disk was too small for these."""
        for head in self.lane(name).gone_from_disk(heads):
            self._lose(head.topic, head.epoch, head.seq, head.seq, 1, "overflow")

    def lose_disk(self, name: Lane) -> None:
        """What of this lane is on disk only will never be read."""
        self._unreadable(self.lane(name).lose_disk())

    def in_memory(self) -> Iterator[Entry]:
        """Everything that is not settled and held in memory, in no order across the lanes."""
        yield from self._in_flight
        yield from self._durable.in_memory()
        yield from self._stats.in_memory()

    def reached(self, name: Lane, offered: int) -> int:
        """The position up to which this sink needs nothing of a lane, given that everything up to `offered` was offered."""
        lane = self.lane(name)
        waiting = lane.first_position
        if self._in_flight and self._lane_of(self._in_flight[0]) is lane:
            waiting = self._in_flight[0].position
        return offered if waiting is None else min(offered, waiting - 1)

    # what is lost

    def abandon(self) -> None:
        """Nothing will be taken any more: all that waits is lost (`gone`)."""
        self.give_back()
        for lane in (self._durable, self._stats):
            for stretch in lane.lose_disk():
                self._lose_stretch(stretch, "gone")
            for entry in lane.head:
                lane.settled(entry)
                self._lose(entry.topic, entry.epoch, entry.seq, entry.seq, 1, "gone")
            lane.head.clear()
            lane.popped(lane.head_bytes)
        self._newest_sample.clear()

    @property
    def has_losses(self) -> bool:
        """Whether `losses` has something to tell."""
        return bool(self._losses)

    def losses(self) -> list[Loss]:
        """What was lost since the last call, one value per topic, epoch and cause."""
        losses, self._losses = list(self._losses.values()), {}
        return losses

    def statistics(self) -> Statistics:
        """How much is not settled yet."""
        durable = [self._durable.messages, self._durable.bytes]
        stats = [self._stats.messages, self._stats.bytes]
        if self._in_flight:
            flying = stats if self._lane_of(self._in_flight[0]) is self._stats else durable
            flying[0] += len(self._in_flight)
            flying[1] += self._in_flight_bytes
        return Statistics(LaneStatistics(*durable), LaneStatistics(*stats))

    def _lane_of(self, entry: Entry) -> Queue:
        return self._stats if entry.topic.lane == "stats" else self._durable

    def _from_durable(self, max_messages: int, max_bytes: int) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        head = self._durable.head
        while head and len(batch) < max_messages:
            entry = head[0]
            if batch and size + entry.size > max_bytes:
                break
            if entry.ends and self._samples_go_first(entry):
                break
            batch.append(head.popleft())
            size += entry.size
        self._durable.popped(size)
        return batch

    def _from_stats(self, max_messages: int, max_bytes: int) -> list[Entry]:
        lane = self._stats
        before = self._durable.first_position
        newest = self._newest_sample
        if lane.head and before is None and len(lane.head) <= max_messages and lane.head_bytes <= max_bytes:
            whole = list(lane.head)
            lane.head.clear()
            newest.clear()  # it names none but those
            lane.popped(lane.head_bytes)
            return whole
        batch: list[Entry] = []
        size = 0
        head = lane.head
        while head and len(batch) < max_messages:
            entry = head[0]
            if before is not None and entry.position > before:
                break  # its `created` may be among what waits in the durable lane
            if batch and size + entry.size > max_bytes:
                break
            batch.append(head.popleft())
            size += entry.size
            if newest.get(entry.subject) == entry.position:
                del newest[entry.subject]
        lane.popped(size)
        return batch

    def _samples_go_first(self, entry: Entry) -> bool:
        """Whether samples that are older than this entry still wait and must be sent before it: its container's, or all."""
        stats = self._stats
        if stats.lags or not stats.head or stats.head[0].position > entry.position:
            return False
        return entry.topic is CONTROL or entry.subject in self._newest_sample

    def _overflow(self, gone: Iterable[Entry]) -> None:
        for entry in gone:
            if self._newest_sample.get(entry.subject) == entry.position:
                del self._newest_sample[entry.subject]
            self._lose(entry.topic, entry.epoch, entry.seq, entry.seq, 1, "overflow")

    def _unreadable(self, stretches: Iterable[Stretch]) -> None:
        for stretch in stretches:
            self._lose_stretch(stretch, "unreadable")

    def _lose_stretch(self, stretch: Stretch, cause: Cause) -> None:
        self._lose(stretch.topic, stretch.epoch, stretch.first_seq, stretch.last_seq, stretch.count, cause)

    def _lose(self, topic: Topic, epoch: int, first: int, last: int, count: int, cause: Cause, detail: str = "") -> None:
        known = self._losses.get((topic.short, epoch, cause))
        if known is not None:
            first, last, count = min(first, known.first_seq), max(last, known.last_seq), count + known.count
            detail = detail or known.detail
        self._losses[topic.short, epoch, cause] = Loss(topic, epoch, cause, first, last, count, detail)
