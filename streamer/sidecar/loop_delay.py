"""How late the event loop is: everything here runs on one, so this is how late everything is."""

from __future__ import annotations

import asyncio
from typing import Final

from streamer.contracts import Clock
from streamer.telemetry import Telemetry

_EVERY_SECONDS: Final = 0.5
"""Also how long something must hold up the loop to be noticed for sure; of shorter ones a share is."""


async def watch(telemetry: Telemetry, clock: Clock) -> None:
    """Ask to be woken, and count by how much later that was. Until cancelled."""
    while True:
        asked_ns = clock.monotonic_ns() + int(_EVERY_SECONDS * 1e9)
        await asyncio.sleep(_EVERY_SECONDS)
        telemetry.observe("streamer_event_loop_delay_seconds", max(0, clock.monotonic_ns() - asked_ns) / 1e9)
