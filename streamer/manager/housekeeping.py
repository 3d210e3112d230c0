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


class Schedule:
    """Containers by the time of their next sample.

    The first look is at once; the second after a random part of the interval, which spreads containers that were
    found together; then every interval. A container that did nothing between two samples is looked at half as often,
    down to `max_interval`, and at full pace again once it did something.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._turns: dict[int, list[tuple[int, int, str]]] = {}  # slot of time -> when, number of the turn, key
        self._slots: list[int] = []  # a heap
        self._waiting = 0  # turns in all slots
        self._current: dict[str, int] = {}  # key -> the one turn of it that counts; others that wait are stale
        self._interval: dict[str, int] = {}
        self._number = 0
        self._hastened: set[str] = set()

    def __len__(self) -> int:
        return len(self._current)

    def add(self, key: str, now_ns: int) -> None:
        """Look at this container, the first time now."""
        self._interval[key] = 0
        self._enqueue(key, now_ns)

    def remove(self, key: str) -> None:
        """Look at it no more. Unknown keys are fine: it may have gone before it was added."""
        self._current.pop(key, None)
        self._interval.pop(key, None)
        self._hastened.discard(key)

    def hasten(self, key: str, now_ns: int) -> None:
        """Look at it now, and go on from there at its pace. Unknown keys are fine: it may have gone."""
        if key in self._interval:
            if self.pace.dynamic:
                self._hastened.add(key)
            self._enqueue(key, now_ns)

    def set_pace(self, pace: Pace, now_ns: int) -> None:
        """Sample everybody at another pace from now on, beginning with a look at once."""
        self.pace = pace
        self._hastened.clear()
        for key in list(self._interval):
            self.add(key, now_ns)

    def next_due(self) -> int | None:
        """When the next sample is due, or None when there is nothing to look at."""
        current = self._current
        while self._slots:
            slot = self._slots[0]
            if turns := [turn for turn in self._turns[slot] if current.get(turn[2]) == turn[1]]:
                return min(turns)[0]
            heapq.heappop(self._slots)
            self._waiting -= len(self._turns.pop(slot))
        return None

    def due(self, now_ns: int, spread: float) -> tuple[list[str], int]:
        """Take what is due and plan its next turn; `spread` in [0, 1) is drawn by the caller, once per call.

        Returns the keys, and how many samples were left out because we came more than an interval late.
        """
        keys: list[str] = []
        skipped = 0
        while self._slots and self._slots[0] * _SLOT_NS <= now_ns:
            turns = self._turns.pop(heapq.heappop(self._slots))
            self._waiting -= len(turns)
            turns.sort()
            for place, (due, number, key) in enumerate(turns):
                if due > now_ns:
                    for turn in turns[place:]:
                        self._put(turn)
                    return keys, skipped
                if self._current.get(key) == number:
                    keys.append(key)
                    # each container of one call gets another offset, from one random number
                    skipped += self._plan(key, due, now_ns, (spread + len(keys) * 0.618034) % 1.0)
        return keys, skipped

    def seen(self, key: str, *, idle: bool) -> None:
        """What the look found: an idle container is looked at half as often, a busy one at full pace.

        One that was idle until a look that came before its time is no idle one yet.
        """
        interval, early = self._interval.get(key), key in self._hastened
        self._hastened.discard(key)
        if interval is None or not self.pace.dynamic or (idle and early):
            return
        base = self.pace.interval_ns
        self._interval[key] = min(2 * max(interval, base), self.pace.max_interval_ns) if idle else base

    def _plan(self, key: str, due: int, now_ns: int, spread: float) -> int:
        pace = self.pace
        interval = self._interval[key]
        if interval == 0:
            self._interval[key] = pace.interval_ns
            self._enqueue(key, now_ns + int(spread * pace.interval_ns))
            return 0
        following = due + interval + int((spread - 0.5) * pace.jitter * interval)
        skipped = 0
        if following <= now_ns:
            skipped = (now_ns - following) // interval + 1
            following = now_ns + int(spread * interval)
        self._enqueue(key, following)
        return skipped

    def _enqueue(self, key: str, at_ns: int) -> None:
        self._number += 1
        self._current[key] = self._number
        self._put((at_ns, self._number, key))
        if self._waiting > 2 * len(self._current) + _STALE:
            all_turns, self._turns, self._slots, self._waiting = self._turns.values(), {}, [], 0
            for turn in (turn for turns in all_turns for turn in turns if self._current.get(turn[2]) == turn[1]):
                self._put(turn)

    def _put(self, turn: tuple[int, int, str]) -> None:
        slot = turn[0] // _SLOT_NS
        turns = self._turns.get(slot)
        if turns is None:
            self._turns[slot] = [turn]
            heapq.heappush(self._slots, slot)
        else:
            turns.append(turn)
        self._waiting += 1
