"""`/events`: lifecycle, OOM kills and what is said about the stream, as it happens, as Server-Sent Events or JSON Lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from streamer.sidecar import following
from streamer.sidecar.api import Context, Query
from streamer.sidecar.exchange import PART_BYTES, Lines
from streamer.sidecar.following import EVENTS, LINES, SSE, Dropped, Follower, Framing, Place, Wish
from streamer.sidecar.query import encode

HEARTBEAT_SECONDS: Final = 15.0
_HEADERS: Final = (("x-accel-buffering", "no"), ("vary", "accept"))
"""nginx would hold the stream back until a buffer is full."""

_ALL_EVENTS: Final = frozenset(topic.short for topic in EVENTS)
_TOO_SLOW: Final = "more happened than was taken in time"


def follow(context: Context, query: Query) -> Lines:
    """What happens, as it happens: records as published, as Server-Sent Events or JSON Lines (`Accept: application/x-ndjson`).

    Resumes behind the id that a client was told last, exactly while that is in memory; otherwise a `gap` comes first, then
    everything there is. A client that is too slow is told `dropped`, and its answer ends.
    """
    memory, something = context.memory, asyncio.Event()
    wish = Wish(query["types"] or _ALL_EVENTS, query["container"], query["label"], query["runtime"])
    since, resumed = query["since"], query["last-event-id"]
    if resumed is not None and following.place(resumed) is None:
        begin = following.of_unknown(memory, wish.types, resumed)
    else:
        since = following.place(resumed) if resumed is not None else since
        begin = following.past(memory, wish.types, since, context.now_ms)
    follower = Follower(memory, wish, begin, something.set, most=following.MOST_WAITING, most_bytes=following.MOST_WAITING_BYTES)
    framing = LINES if LINES.content_type in query["accept"].lower() else SSE

    def close() -> None:
        follower.close()
        if follower.lost:
            context.telemetry.count("streamer_http_streams_dropped_total")
            context.telemetry.count("streamer_http_events_dropped_total", by=follower.lost)

    first = framing.begin + (framing.said("gap", encode(begin.gap)) if begin.gap else b"")
    if since is None and resumed is None:
        first += framing.heartbeat(Place(memory.epoch, memory.position))  # cut off before the first event, it resumes from here
    return Lines(_told(context, follower, framing, first, something), close, framing.content_type, _HEADERS)


async def _told(
    context: Context, follower: Follower, framing: Framing, first: bytes, something: asyncio.Event
) -> AsyncIterator[bytes]:
    if first:
        yield first
    memory = context.memory
    while follower.replaying:
        async with context.replaying:
            found = following.frames(framing, memory.epoch, follower.take_past())
            await asyncio.sleep(0)  # while it is held: the others queue for it, and all else goes on
        if found:
            yield found
    while not follower.lost:
        if records := follower.take(PART_BYTES):
            yield following.frames(framing, memory.epoch, records)
            continue
        something.clear()
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await something.wait()
        except TimeoutError:
            yield framing.heartbeat(Place(memory.epoch, follower.last))
    yield framing.said("dropped", encode(Dropped(_TOO_SLOW, str(Place(memory.epoch, follower.last)))))
