"""What the agent itself was late for, and what happened to its clock: said as gaps. Pure; it is asked once a second."""

from __future__ import annotations

from typing import Final

from streamer.clock import rfc3339
from streamer.manager.narrator import MS, Now
from streamer.model.observations import Lost

CLOCK_STEP_NS: Final = 500 * MS  # NTP slews by less than a millisecond a second; whatever moves the clock more sets it
DECLARE_EVERY_NS: Final = 10_000 * MS


class Watchdog:
    """Notes samples that were left out, and compares the two clocks."""

    def __init__(self, now: Now) -> None:
        self._before = now
        self._skipped = 0
        self._skipped_since_ns = 0
        self._declared_ns = now.monotonic_ns - DECLARE_EVERY_NS

    def skipped(self, count: int, now: Now) -> None:
        """So many samples were left out, because sampling was more than an interval late."""
        if not self._skipped:
            self._skipped_since_ns = self._before.wall_ns
        self._skipped += count

    def look(self, now: Now) -> list[Lost]:
        """What is to be declared now."""
        lost: list[Lost] = []
        expected_ns = self._before.wall_ns + now.monotonic_ns - self._before.monotonic_ns
        step_ns = now.wall_ns - expected_ns
        self._before = now
        if abs(step_ns) >= CLOCK_STEP_NS:
            reason = f"the wall clock was set by {step_ns / 1e9:+.3f} s: times before and after do not compare"
            lost.append(Lost("clock", now.wall_ns, reason, first=rfc3339(expected_ns), last=rfc3339(now.wall_ns)))
        if self._skipped and now.monotonic_ns - self._declared_ns >= DECLARE_EVERY_NS:
            self._declared_ns = now.monotonic_ns
            reason = "sampling was behind: samples were left out"
            first, last = rfc3339(self._skipped_since_ns), rfc3339(now.wall_ns)
            lost.append(Lost("sampling", now.wall_ns, reason, self._skipped, first, last))
            self._skipped = 0
        return lost
