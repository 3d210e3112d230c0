"""The clock as a value to hand in. Nothing else in the package asks the machine for the time."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from functools import lru_cache


class SystemClock:
    """Wall and monotonic time of this machine, both in nanoseconds."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


def to_next(period: float, now: float) -> float:
    """Seconds from `now`, of a monotonic clock, to the next multiple of a period.

    Tasks that look about now and then, and sleep so in between, are woken together: to be woken costs more than most of them do.
    A timer may go off a little early, so a multiple that is all but there counts as passed.
    """
    return (math.floor(now / period + 0.01) + 1) * period - now


def rfc3339(time_ns: int) -> str:
    """`1700000000123456789` -> `2023-11-14T22:13:20.123456789Z` (RFC 3339, UTC, always nine digits)."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


@lru_cache(16)  # a host says thousands of things within a second, of this one and of when its containers were started
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
