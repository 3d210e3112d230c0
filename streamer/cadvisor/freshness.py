"""Samples that are not older than asked for: whoever asks waits for a look, and takes what there is when that takes too long.

Where there is nothing to take yet, he waits longer: right after the start of an agent on a host with many containers, or
with nothing to spare, "no samples" would be an answer that is wrong a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from streamer.contracts import Clock
from streamer.memory import Memory

_PATIENCE_SECONDS: Final = 1.0
_FIRST_PATIENCE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.01


class Freshener:
    """`Operations`' `freshen`, over whoever samples.

    hasten  has these cgroups sampled as soon as can be; returns at once
    """

    def __init__(
        self,
        memory: Memory,
        clock: Clock,
        hasten: Callable[[Sequence[str]], None],
        patience_seconds: float = _PATIENCE_SECONDS,
        first_patience_seconds: float = _FIRST_PATIENCE_SECONDS,
    ) -> None:
        self._memory, self._clock, self._hasten = memory, clock, hasten
        self._patience_seconds, self._first_patience_seconds = patience_seconds, first_patience_seconds

    async def __call__(self, paths: Sequence[str], max_age_seconds: float) -> None:
        """Have those sampled whose newest sample is older than this; return when all are, or after the patience."""
        oldest_ns = self._clock.wall_ns() - int(max_age_seconds * 1_000_000_000)
        old = self._older(paths, oldest_ns)
        if not old:
            return
        self._hasten(old)
        await self._looked_at(old, oldest_ns, self._patience_seconds)
        never = self._older(old, 0)
        await self._looked_at(never, 0, self._first_patience_seconds - self._patience_seconds)

    async def _looked_at(self, paths: Sequence[str], oldest_ns: int, limit_seconds: float) -> None:
        try:
            async with asyncio.timeout(limit_seconds):
                for path in paths:  # one after the other: to look at all of them each time would take a loop's whole time
                    while self._older([path], oldest_ns):  # noqa: ASYNC110  memory wakes nobody for samples, of which there are many
                        await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return

    def _older(self, paths: Sequence[str], oldest_ns: int) -> list[str]:
        """Those that live and whose newest sample is from before, or that have none; in ms two questions in one would share a sample at `max_age=0`."""
        found = []
        for path in paths:
            container = self._memory.by_path(path)
            if container is not None and (not (looks := container.looks) or looks[-1][0] < oldest_ns):
                found.append(path)
        return found
