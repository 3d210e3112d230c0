"""What waits for one sink, and what goes next: decided here, without waiting, clock or chance.

Two lanes. `durable` holds lifecycle, OOM, host, state and control messages, `stats` the samples; each is bounded by
bytes, and when it is full its oldest go, counted with their `seq` so that a `gap` can be declared.

Order. Each lane is first in, first out, and a batch is taken from one lane only, so that all of it is acknowledged
before the other lane's turn. The durable lane goes first. Together that gives, per container:

- `created` is acknowledged before its first sample is attempted, because a sample waits for an empty durable lane;
- `deleted` is attempted after the last sample is acknowledged: while older samples of its container wait, it lets the
  stats lane go first, up to its own position. Everything that old may go, as whatever it depends on is older still
  and already sent. `stopped`, the last word of a run, lets all older samples go first in the same way.

Letting the stats lane go first costs a send when the sink keeps up, and one drain of the lane after an outage. When
the stats lane has overflowed, the sink is too slow for the samples, which are lost already: then facts do not queue
behind them; the samples of that container are given up (`overtaken`), counted and declared like the rest.

A disk-backed outbox keeps this interface: `settle` moves the sink's cursor over what was taken, `give_back` leaves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from streamer.model.messages import CONTROL, Topic
from streamer.model.wire import Entry

Cause = Literal["overflow", "overtaken", "rejected", "gone"]


class Loss(Struct, frozen=True):
    """Messages of a topic that will not reach this sink, for one cause, since the last call of `losses`.

    `count` of the numbers `first_seq`..`last_seq` are missing: the range may hold others that were delivered.
    `detail` is the latest text of a peer that rejected, "" otherwise.
    """

    topic: Topic
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


class _Lane:
    """A queue and the bytes in it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes: Final = most_bytes
        self.waiting: deque[Entry] = deque()
        self.bytes = 0
        self.overflowed = False  # has lost something since it was last empty

    def append(self, entry: Entry) -> None:
        self.waiting.append(entry)
        self.bytes += entry.size

    def pop(self) -> Entry:
        entry = self.waiting.popleft()
        self.bytes -= entry.size
        if not self.waiting:
            self.overflowed = False
        return entry

    def push_front(self, batch: Sequence[Entry]) -> None:
        self.waiting.extendleft(reversed(batch))
        self.bytes += sum(entry.size for entry in batch)

    @property
    def too_full(self) -> bool:
        # The newest stays even if it is bigger than the lane: it may still be delivered, and it is only one.
        return self.bytes > self.most_bytes and len(self.waiting) > 1


class Backlog:
    """The two lanes of one sink.

    Use: `offer` at any time; `take` a batch, then `settle` or `give_back` it before the next `take`.
    The caps hold for what waits; one batch in flight comes on top.
    """

    def __init__(self, *, durable_bytes: int, stats_bytes: int) -> None:
        self._durable: Final = _Lane(durable_bytes)
        self._stats: Final = _Lane(stats_bytes)
        self._in_flight: list[Entry] = []
        self._newest_sample: dict[str, int] = {}  # container -> position of its last sample that waits
        self._overtaken: dict[str, int] = {}  # container -> samples up to this position are given up when they are met
        self._losses: dict[tuple[str, Cause], Loss] = {}

    def offer(self, entry: Entry) -> None:
        """Put an entry at the end of its topic's lane; the lane's oldest go if it is too full."""
        lane = self._lane_of(entry)
        lane.append(entry)
        if lane is self._stats:
            self._newest_sample[entry.subject] = entry.position
        self._fit(lane)

    def urgency(self, max_messages: int, max_bytes: int) -> Literal["none", "gather", "now"]:
        """Whether to send: `now` for any durable message or a full batch, `gather` for a few samples, `none` when empty."""
        if self._durable.waiting:
            return "now"
        if not self._stats.waiting:
            return "none"
        return "now" if len(self._stats.waiting) >= max_messages or self._stats.bytes >= max_bytes else "gather"

    def take(self, max_messages: int, max_bytes: int) -> list[Entry]:
        """The next batch, of one lane, in order; empty when nothing waits. A single entry may be over `max_bytes`.

        Raises:
            RuntimeError: the batch before was neither settled nor given back.
        """
        if self._in_flight:
            raise RuntimeError("a batch is in flight: settle() or give_back() first")
        # Samples that are given up on the way can leave a round without a batch; it has made the lane shorter.
        while not self._in_flight and (self._durable.waiting or self._stats.waiting):
            self._in_flight = self._from_durable(max_messages, max_bytes) or self._from_stats(max_messages, max_bytes)
        return list(self._in_flight)

    def settle(self, rejected: Sequence[tuple[int, str]] = ()) -> None:
        """The batch is acknowledged but for the `rejected` ones: (index, reason), which count as lost."""
        for index, reason in rejected:
            entry = self._in_flight[index]
            self.lose(entry.topic, entry.seq, "rejected", reason)
        self._in_flight = []

    def give_back(self) -> None:
        """The batch may not have arrived: it goes back to the front of its lane, in the same order."""
        batch, self._in_flight = self._in_flight, []
        if not batch:
            return
        lane = self._lane_of(batch[0])
        lane.push_front(batch)
        if lane is self._stats:
            for entry in batch:
                self._newest_sample[entry.subject] = max(entry.position, self._newest_sample.get(entry.subject, 0))
        self._fit(lane)

    def lose(self, topic: Topic, seq: int, cause: Cause, detail: str = "") -> None:
        """Count one message of `topic` as lost."""
        known = self._losses.get((topic.short, cause))
        if known is None:
            self._losses[topic.short, cause] = Loss(topic, cause, seq, seq, 1, detail)
        else:
            first, last = min(seq, known.first_seq), max(seq, known.last_seq)
            self._losses[topic.short, cause] = Loss(topic, cause, first, last, known.count + 1, detail or known.detail)

    def abandon(self) -> None:
        """Nothing will be taken any more: all that waits is lost (`gone`)."""
        self.give_back()
        for lane in (self._durable, self._stats):
            while lane.waiting:
                entry = lane.pop()
                self.lose(entry.topic, entry.seq, "gone")
        self._newest_sample.clear()
        self._overtaken.clear()

    @property
    def has_losses(self) -> bool:
        """Whether `losses` has something to tell."""
        return bool(self._losses)

    def losses(self) -> list[Loss]:
        """What was lost since the last call, one value per topic and cause."""
        losses, self._losses = list(self._losses.values()), {}
        return losses

    def statistics(self) -> Statistics:
        """How much is not settled yet."""
        durable = [len(self._durable.waiting), self._durable.bytes]
        stats = [len(self._stats.waiting), self._stats.bytes]
        if self._in_flight:
            flying = stats if self._lane_of(self._in_flight[0]) is self._stats else durable
            flying[0] += len(self._in_flight)
            flying[1] += sum(entry.size for entry in self._in_flight)
        return Statistics(LaneStatistics(*durable), LaneStatistics(*stats))

    def _lane_of(self, entry: Entry) -> _Lane:
        return self._stats if entry.topic.lane == "stats" else self._durable

    def _from_durable(self, max_messages: int, max_bytes: int) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._durable.waiting and len(batch) < max_messages:
            entry = self._durable.waiting[0]
            if batch and size + entry.size > max_bytes:
                break
            if entry.ends and self._samples_go_first(entry):
                break
            batch.append(self._durable.pop())
            size += entry.size
        return batch

    def _from_stats(self, max_messages: int, max_bytes: int) -> list[Entry]:
        durable = self._durable.waiting
        before = durable[0].position if durable else None
        batch: list[Entry] = []
        size = 0
        while self._stats.waiting and len(batch) < max_messages:
            entry = self._stats.waiting[0]
            if before is not None and entry.position > before:
                break  # its `created` may be among what waits in the durable lane
            if batch and size + entry.size > max_bytes:
                break
            self._pop_sample()
            if entry.position <= self._overtaken.get(entry.subject, 0):
                self._give_up(entry)
            else:
                batch.append(entry)
                size += entry.size
        return batch

    def _samples_go_first(self, entry: Entry) -> bool:
        """Whether samples that are older than this entry still wait and must be sent before it: its container's, or all."""
        if not self._stats.waiting or self._stats.waiting[0].position > entry.position:
            return False
        if entry.topic is CONTROL:
            return not self._stats.overflowed
        newest = self._newest_sample.get(entry.subject)
        if newest is None:
            return False
        if self._stats.overflowed:
            self._overtaken[entry.subject] = newest
            del self._newest_sample[entry.subject]
            return False
        return True

    def _pop_sample(self) -> Entry:
        entry = self._stats.pop()
        if self._newest_sample.get(entry.subject) == entry.position:
            del self._newest_sample[entry.subject]
        return entry

    def _give_up(self, entry: Entry) -> None:
        self.lose(entry.topic, entry.seq, "overtaken")
        if self._overtaken[entry.subject] == entry.position:
            del self._overtaken[entry.subject]

    def _fit(self, lane: _Lane) -> None:
        while lane.too_full:
            entry = self._pop_sample() if lane is self._stats else lane.pop()
            self.lose(entry.topic, entry.seq, "overflow")
            if self._overtaken.get(entry.subject) == entry.position:
                del self._overtaken[entry.subject]
            lane.overflowed = True
