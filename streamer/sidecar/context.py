"""What the function of a route is given: what it may look at, and what was asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from streamer.cadvisor.operations import Operations
from streamer.contracts import Clock, Status
from streamer.memory import Memory
from streamer.sidecar.feed import Feed
from streamer.sidecar.prometheus import Exposition
from streamer.telemetry import Telemetry

Query = dict[str, Any]


class Context(NamedTuple):
    """What a query may look at.

    essential   components without which the agent cannot do its main job
    operations  cAdvisor's, for its API
    replaying   held while past events are looked through for one client: however many come back at once, it is one at a time
    feed        what the clients of `/events` are told
    """

    memory: Memory
    telemetry: Telemetry
    statuses: Callable[[], list[Status]]
    exposition: Exposition
    essential: Sequence[str]
    operations: Operations
    clock: Clock
    replaying: asyncio.Lock
    feed: Feed

    @property
    def now_ms(self) -> int:
        """Wall clock, ms since 1970."""
        return self.clock.wall_ns() // 1_000_000
