"""When to look at which container next. Pure: it is given the time and the spread, and answers with what is due."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

_STALE: Final = 100
"""Turns that do not count any more and may wait until they are due, beside as many as there are containers."""

_SLOT_NS: Final = 62_500_000
"""Turns wait in slots of this much time, unsorted until it has come: sorting some together is cheaper than a heap of all."""


class Pace(NamedTuple):
    """How often containers are sampled; times in ns.

    interval      between two samples of a container
    max_interval  of one that does nothing, when `dynamic`
    jitter        share of the interval by which each one may be off, so that a host's containers do not fall into step
    """

    interval_ns: int
    max_interval_ns: int
    dynamic: bool
    jitter: float


class _Line:
    """The turns of one container, one of which waits; they come to nothing once it was removed, or looked at before its time."""

    __slots__ = ("counts", "early", "interval_ns", "key", "number")

    def __init__(self, key: str, number: int, interval_ns: int = 0, *, early: bool = False) -> None:
        """`interval_ns`: 0 before the first look. `early`: that comes before its time."""
        self.key, self.number, self.interval_ns, self.early = key, number, interval_ns, early
        self.counts = True


class Schedule:
    """Containers by the time of their next sample.

    The first look is at once; the second after a random part of the interval, which spreads containers that were
    found together; then every interval. A container that did nothing between two samples is looked at half as often,
    down to `max_interval`, and at full pace again once it did something.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._turns: dict[int, list[tuple[int, int, _Line]]] = {}  # slot of time -> when, the line's number, the line
        self._slots: list[int] = []  # a heap
        self._waiting = 0  # turns in all slots
        self._lines: dict[str, _Line] = {}  # by key: those that count
        self._number = 0

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, key: str, now_ns: int) -> None:
        """Look at this container, the first time now."""
        self._begin(key, now_ns)

    def remove(self, key: str) -> None:
        """Look at it no more. Unknown keys are fine: it may have gone before it was added."""
        if (line := self._lines.pop(key, None)) is not None:
            line.counts = False

    def hasten(self, key: str, now_ns: int) -> None:
        """Look at it now, and go on from there at its pace. Unknown keys are fine: it may have gone."""
        if (line := self._lines.get(key)) is not None:
            self._begin(key, now_ns, line.interval_ns, early=self.pace.dynamic)

    def set_pace(self, pace: Pace, now_ns: int) -> None:
        """Sample everybody at another pace from now on, beginning with a look at once."""
        self.pace = pace
        for key in list(self._lines):
            self.add(key, now_ns)

    def next_due(self) -> int | None:
        """When the next sample is due, or None when there is nothing to look at."""
        while self._slots:
            slot = self._slots[0]
            if turns := [turn for turn in self._turns[slot] if turn[2].counts]:
                return min(turns)[0]
            heapq.heappop(self._slots)
            self._waiting -= len(self._turns.pop(slot))
        return None

    def due(self, now_ns: int, spread: float) -> tuple[list[str], int]:
        """Take what is due and plan its next turn; `spread` in [0, 1) is drawn by the caller, once per call.

        Returns the keys, and how many samples were left out because we came more than an interval late.
        """
        keys: list[str] = []
        skipped, jitter = 0, self.pace.jitter
        while self._slots and self._slots[0] * _SLOT_NS <= now_ns:
            turns = self._turns.pop(heapq.heappop(self._slots))
            self._waiting -= len(turns)
            turns.sort()
            for place, (due, number, line) in enumerate(turns):
                if due > now_ns:
                    for turn in turns[place:]:
                        self._put(turn)
                    return keys, skipped
                if line.counts:
                    keys.append(line.key)
                    # each container of one call gets another offset, from one random number
                    own = (spread + len(keys) * 0.618034) % 1.0
                    interval = line.interval_ns
                    following = due + interval + int((own - 0.5) * jitter * interval)
                    if following <= now_ns:
                        if interval:
                            skipped += (now_ns - following) // interval + 1
                        else:
                            interval = line.interval_ns = self.pace.interval_ns
                        following = now_ns + int(own * interval)
                    self._put((following, number, line))
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
        base = self.pace.interval_ns
        line.interval_ns = min(2 * max(line.interval_ns, base), self.pace.max_interval_ns) if idle else base

    def _begin(self, key: str, at_ns: int, interval_ns: int = 0, *, early: bool = False) -> None:
        self.remove(key)
        self._number += 1
        line = self._lines[key] = _Line(key, self._number, interval_ns, early=early)
        self._put((at_ns, self._number, line))
        if self._waiting > 2 * len(self._lines) + _STALE:
            all_turns, self._turns, self._slots, self._waiting = self._turns.values(), {}, [], 0
            for turn in (turn for turns in all_turns for turn in turns if turn[2].counts):
                self._put(turn)

    def _put(self, turn: tuple[int, int, _Line]) -> None:
        slot = turn[0] // _SLOT_NS
        turns = self._turns.get(slot)
        if turns is None:
            self._turns[slot] = [turn]
            heapq.heappush(self._slots, slot)
        else:
            turns.append(turn)
        self._waiting += 1
