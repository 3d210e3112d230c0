"""What is to be done later by a thread that waits for other things too. Synchronous; seconds on the monotonic clock."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from streamer.contracts import Clock


class Timers:
    """Ask for something to be done; whoever waits wakes at `due_s` and calls `run`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    @property
    def due_s(self) -> float:
        """When the next one is due; infinite while there is none."""
        return self._waiting[0][0] if self._waiting else math.inf

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do this so much later."""
        self._number += 1
        heapq.heappush(self._waiting, (self.now_s() + seconds, self._number, act))

    def run(self) -> None:
        """Do what is due."""
        now = self.now_s()
        while self._waiting and self._waiting[0][0] <= now:
            heapq.heappop(self._waiting)[2]()
