"""Between the manager and the sinks: each message is encoded once, numbered, and put into every sink's backlog.

`publish` returns at once; a task per sink does the rest (`delivery.py`), so that no sink waits for another.
Losses come back as `Lost` observations, from a task of their own: a `Lost` makes a control message, which is published
in turn, and saying it from inside `publish` would publish in the middle of publishing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from streamer.config import Outbox as OutboxSettings
from streamer.contracts import Clock, Emit, Sink, Status
from streamer.model.messages import Message
from streamer.model.observations import Lost
from streamer.model.wire import Entry, Envelope, encode
from streamer.outbox.backlog import Cause, Loss
from streamer.outbox.delivery import Delivery
from streamer.telemetry import Telemetry

DECLARE_SECONDS: Final = 1.0
"""Losses of a sink are said at most this often, so that a lasting overflow cannot feed itself with gap messages."""

_WHY: Final[dict[Cause, str]] = {
    "overflow": "its backlog was full: the oldest went",
    "overtaken": "it was too slow for samples: those of a deleted container were given up",
    "rejected": "it will never take them",
    "gone": "it is gone for good",
}


class Outbox:
    """Numbers, encodes and delivers messages to any number of sinks.

    `add` the sinks, then `run`; `publish` at any time; `drain` while `run` still runs, then cancel it.
    """

    def __init__(
        self,
        clock: Clock,
        settings: OutboxSettings,
        envelope: Envelope,
        telemetry: Telemetry,
        emit: Emit,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._settings, self._envelope = clock, settings, envelope
        self._telemetry, self._emit, self._chance = telemetry, emit, chance
        self._deliveries: list[Delivery] = []
        self._position = 0
        self._order_ms = 0
        self._lost: Final = asyncio.Event()

    def add(self, sink: Sink, types: frozenset[str]) -> None:
        """Send entries of the topics with these short names to `sink` from now on. Before `run`.

        Raises:
            ValueError: another sink has the same name.
        """
        if any(sink.name == other.sink.name for other in self._deliveries):
            raise ValueError(f"two sinks are named {sink.name!r}")
        self._deliveries.append(
            Delivery(
                sink,
                types,
                settings=self._settings,
                clock=self._clock,
                telemetry=self._telemetry,
                emit=self._emit,
                chance=self._chance,
                on_loss=self._lost.set,
            )
        )

    def publish(self, messages: Sequence[Message]) -> list[Entry]:
        """Encode and offer to every sink; returns the entries, one per message, and never waits."""
        self._order_ms = max(self._order_ms, self._clock.wall_ns() // 1_000_000)
        first = self._position + 1
        entries = [encode(message, position, self._order_ms, self._envelope) for position, message in enumerate(messages, first)]
        self._position += len(entries)
        for delivery in self._deliveries:
            delivery.offer(entries)
        return entries

    async def run(self) -> None:
        """Deliver until cancelled. Returns only when every sink is gone for good (the reader of stdout went away)."""
        async with asyncio.TaskGroup() as group:
            declaring = group.create_task(self._declare_losses(), name="losses")
            deliveries = [group.create_task(each.run(), name=each.component) for each in self._deliveries]
            if deliveries:
                await asyncio.wait(deliveries)
            declaring.cancel()
        self._declare()

    async def drain(self, deadline_seconds: float) -> dict[str, int]:
        """Deliver what waits, losses declared first; returns how many messages are left for each sink at the deadline."""
        try:
            async with asyncio.timeout(deadline_seconds):
                while True:
                    self._declare()
                    await asyncio.gather(*(delivery.drain() for delivery in self._deliveries))
                    if not self._any_losses():
                        break
        except TimeoutError:
            self._declare()  # too late to be delivered, but not to be seen in memory and counted
        return self.left()

    def left(self) -> dict[str, int]:
        """Messages that are not acknowledged, by sink."""
        return {delivery.sink.name: delivery.backlog.statistics().messages for delivery in self._deliveries}

    def statuses(self) -> list[Status]:
        """How every sink is, in the order they were added."""
        return [delivery.status() for delivery in self._deliveries]

    async def _declare_losses(self) -> None:
        while True:
            await self._lost.wait()
            self._declare()
            await asyncio.sleep(DECLARE_SECONDS)

    def _any_losses(self) -> bool:
        return any(delivery.backlog.has_losses for delivery in self._deliveries)

    def _declare(self) -> None:
        self._lost.clear()
        for delivery in self._deliveries:
            for loss in delivery.backlog.losses():
                name, lane = delivery.sink.name, loss.topic.lane
                self._telemetry.count("streamer_sink_dropped_total", name, lane, loss.cause, by=loss.count)
                self._emit(_observation(delivery.component, self._clock.wall_ns(), loss))


def _observation(component: str, time_ns: int, loss: Loss) -> Lost:
    reason = _WHY[loss.cause] + (f": {loss.detail}" if loss.detail else "")
    if loss.topic.compacted:  # its numbers promise nothing
        return Lost(component, time_ns, reason, loss.count, topic=loss.topic.suffix)
    return Lost(component, time_ns, reason, loss.count, str(loss.first_seq), str(loss.last_seq), loss.topic.suffix)
