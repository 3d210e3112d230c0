"""The clock as a value to hand in. Nothing else in the package asks the machine for the time."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """Wall and monotonic time of this machine, both in nanoseconds."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


def rfc3339(time_ns: int) -> str:
    """`1700000000123456789` -> `2023-11-14T22:13:20.123456789Z` (RFC 3339, UTC, always nine digits)."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


_last_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def _second(seconds: int) -> str:
    # A host says thousands of things within one second: the calendar part is worked out once for each.
    global _last_second  # noqa: PLW0603  one-entry cache; a lost race only costs one more strftime
    known = _last_second
    if known[0] != seconds:
        known = (seconds, datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
        _last_second = known
    return known[1]
