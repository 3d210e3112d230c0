"""Keeps aiokafka's log quiet enough to be read."""

from __future__ import annotations

import logging
from typing import Final


class _Seldom(logging.Filter):
    """Lets a kind of message through once in 30 s: without its broker aiokafka logs 40 lines a second."""

    EVERY_SECONDS: Final = 30.0

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.name, str(record.msg)
        if record.created - self._last.get(kind, 0.0) < self.EVERY_SECONDS:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._last[kind] = record.created
        if left_out := self._left_out.pop(kind, 0):
            record.msg = f"{record.msg} ({left_out} more like this were left out)"
        return True


def quieten() -> None:
    """Let each kind of complaint through once in a while."""
    seldom = _Seldom()
    for name in ("client", "cluster", "conn"):
        # A filter of a logger is not asked about its children's records: each needs it.
        logging.getLogger(f"aiokafka.{name}").addFilter(seldom)
