"""When to look at which container next. Pure: it is given the time and the spread, and answers with what is due."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

_STALE: Final = 100
"""Turns that do not count any more and may wait until they are due, beside as many as there are containers."""

_BATCH_NS: Final = 1_000_000_000
"""Looks are gathered for at most this long and made in one go: each one brings a hand-over to the thread, and a send."""


class Pace(NamedTuple):
    """How often containers are sampled; times in ns.

    interval      between two samples of a container
    max_interval  of one that does nothing, when `dynamic`
    jitter        share of the interval by which each one may be off, in whole batches
    """

    interval_ns: int
    max_interval_ns: int
    dynamic: bool
    jitter: float

    @property
    def batches(self) -> int:
        """How many batches an interval has."""
        return -(-self.interval_ns // _BATCH_NS)

    @property
    def batch_ns(self) -> int:
        """From one batch to the next: the interval, or an equal part of it of a second at most."""
        return self.interval_ns // self.batches


class _Line:
    """The turns of one container, one of which waits; they come to nothing once it was removed, or looked at before its time."""

    __slots__ = ("counts", "early", "every", "key", "spread")

    def __init__(self, key: str, every: int = 0, *, early: bool = False) -> None:
        """`every`: so many batches; 0 before the first look. `early`: the next look comes before its time."""
        self.key, self.every, self.early = key, every, early
        self.spread = every - 1 if early else 0  # so many batches its next turn may be earlier: who fell into step leaves it
        self.counts = True


class Schedule:
    """Containers by the batch of their next sample.

    Batches come one `Pace.batch_ns` after the other, and a container's samples in every so many of them: evenly, where
    gathering what is due would let a container miss one batch now and then and be two apart. The first look is at once;
    the second after a random part of the interval, which spreads containers that were found together; then every interval.
    A container that did nothing between two samples is looked at half as often, down to `max_interval`, and at full pace
    again once it did something. `phase` in [0, 1): by which part of a batch all are later, so that two agents of one
    machine, or of many that were started from one image, are not in step.
    """

    def __init__(self, pace: Pace, phase: float = 0.0) -> None:
        self.pace, self._phase = pace, phase
        self._lines: dict[str, _Line] = {}  # by key: those that count
        self._clear()

    def _clear(self) -> None:
        self._turns: dict[int, list[_Line]] = {}  # number of the batch -> whose turn it is
        self._batches: list[int] = []  # a heap of those numbers
        self._waiting = 0  # turns in all batches
        self._batch_ns = self.pace.batch_ns
        self._first_ns = int(self._phase * self._batch_ns)

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, key: str, now_ns: int) -> None:
        """Look at this container, the first time now."""
        self._begin(_Line(key), now_ns)

    def remove(self, key: str) -> None:
        """Look at it no more. Unknown keys are fine: it may have gone before it was added."""
        if (line := self._lines.pop(key, None)) is not None:
            line.counts = False

    def hasten(self, key: str, now_ns: int) -> None:
        """Look at it now, and go on from there at its pace. Unknown keys are fine: it may have gone."""
        if (line := self._lines.get(key)) is not None:
            self._begin(_Line(key, line.every, early=line.every > 0), now_ns)

    def set_pace(self, pace: Pace, now_ns: int) -> None:
        """Sample everybody at another pace from now on, beginning with a look at once."""
        self.pace = pace
        self._clear()
        for key in list(self._lines):
            self.add(key, now_ns)

    def next_due(self) -> int | None:
        """When the next sample is due, or None when there is nothing to look at."""
        while self._batches:
            batch = self._batches[0]
            if any(line.counts for line in self._turns[batch]):
                return self._first_ns + batch * self._batch_ns
            heapq.heappop(self._batches)
            self._waiting -= len(self._turns.pop(batch))
        return None

    def due(self, now_ns: int, spread: float) -> tuple[list[str], int]:
        """Take what is due and plan its next turn; `spread` in [0, 1) is drawn by the caller, once per call.

        Returns the keys, and how many samples were left out because we came more than an interval late.
        """
        keys: list[str] = []
        skipped, jitter = 0, self.pace.jitter
        present = self._batch_at(now_ns)
        nearest = self._batch_at(now_ns + self._batch_ns // 2)
        while self._batches and self._batches[0] <= present:
            batch = heapq.heappop(self._batches)
            lines = self._turns.pop(batch)
            self._waiting -= len(lines)
            for line in lines:
                if not line.counts:
                    continue
                keys.append(line.key)
                # each container of one call gets another offset, from one random number
                own = (spread + len(keys) * 0.618034) % 1.0
                every = line.every
                away = every + int((own - 0.5) * jitter * every)
                if batch + away > present:
                    following = (nearest if line.early else batch) + away - int(own * (line.spread + 1))
                else:
                    if every:
                        skipped += (present - batch - away) // every + 1
                    else:
                        every = line.every = self.pace.batches
                    following = present + 1 + int(own * every)
                line.early, line.spread = line.early and self.pace.dynamic, 0
                self._put(max(following, present + 1), line)
        return keys, skipped

    def seen(self, key: str, *, idle: bool) -> None:
        """What the look found: an idle container is looked at half as often, a busy one at full pace.

        One that was idle until a look that came before its time is no idle one yet.
        """
        line = self._lines.get(key)
        if line is None:
            return
        early, line.early = line.early, False
        if not self.pace.dynamic or (idle and early):
            return
        base = self.pace.batches
        most = max(base, self.pace.max_interval_ns // self._batch_ns)
        every = min(2 * max(line.every, base), most) if idle else base
        line.spread = max(0, every - line.every)  # those that fell idle together
        line.every = every

    def _begin(self, line: _Line, now_ns: int) -> None:
        self.remove(line.key)
        self._lines[line.key] = line
        self._put(self._batch_at(now_ns), line)  # one whose time has come
        if self._waiting > 2 * len(self._lines) + _STALE:
            turns = self._turns
            self._clear()
            for batch, lines in turns.items():
                for counting in lines:
                    if counting.counts:
                        self._put(batch, counting)

    def _batch_at(self, now_ns: int) -> int:
        """The last batch whose time has come."""
        return (now_ns - self._first_ns) // self._batch_ns

    def _put(self, batch: int, line: _Line) -> None:
        lines = self._turns.get(batch)
        if lines is None:
            self._turns[batch] = [line]
            heapq.heappush(self._batches, batch)
        else:
            lines.append(line)
        self._waiting += 1
