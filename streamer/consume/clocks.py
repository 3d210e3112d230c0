"""What records tell of their host's wall clock. Pure; only the largest of each difference is kept."""

from __future__ import annotations

from typing import Final

from streamer.model.messages import Control, Record

_TOLERANCE_MS: Final = 1000


class Clock:
    """The clock of one host."""

    def __init__(self, now_ms: int) -> None:
        """`now_ms`: of the machine that looks, ms since 1970."""
        self._now_ms = now_ms
        self._before_fact = self._ahead_of_broker = self._ahead_of_us = 0
        self._back = self._times_back = 0
        self._last: tuple[int, int, int] = (0, 0, 0)  # epoch, seq, observed_time_ms of the last control record

    def seen(self, record: Record, broker_time_ms: int | None) -> None:
        """Any record."""
        observed = record.observed_time_ms
        self._before_fact = max(self._before_fact, record.time_ms - observed)
        self._ahead_of_us = max(self._ahead_of_us, observed - self._now_ms)
        if broker_time_ms is not None and observed - broker_time_ms > self._ahead_of_broker:
            self._ahead_of_broker = observed - broker_time_ms

    def in_order(self, record: Control) -> None:
        """A control record: those of one run are compared in the order of `seq`."""
        epoch, seq, observed = self._last
        if record.epoch == epoch and record.seq > seq and record.observed_time_ms < observed:
            self._times_back += 1
            self._back = max(self._back, observed - record.observed_time_ms)
        if (record.epoch, record.seq) > (epoch, seq):
            self._last = record.epoch, record.seq, record.observed_time_ms

    def findings(self) -> list[str]:
        """What is worth a word."""
        told = []
        if self._before_fact > _TOLERANCE_MS:
            told.append(f"facts are up to {self._before_fact} ms later than the agent noticed them")
        if self._ahead_of_broker > _TOLERANCE_MS:
            told.append(f"up to {self._ahead_of_broker} ms ahead of the broker's clock")
        if self._ahead_of_us > _TOLERANCE_MS:
            told.append(f"up to {self._ahead_of_us} ms ahead of this machine's clock")
        if self._times_back:
            told.append(f"ran backwards {self._times_back} times, by up to {self._back} ms")
        return told
