"""A clock that moves when it is told to."""

from __future__ import annotations

START_NS = 1_700_000_000_000_000_000


class FakeClock:
    """Wall and monotonic time, in nanoseconds, standing still between calls."""

    def __init__(self, wall_ns: int = START_NS, monotonic_ns: int = 0) -> None:
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Time passes: both clocks go on."""
        self._wall_ns += round(seconds * 1e9)
        self._monotonic_ns += round(seconds * 1e9)

    def step(self, seconds: float) -> None:
        """The wall clock is set, forward or back; the monotonic one does not notice."""
        self._wall_ns += round(seconds * 1e9)
