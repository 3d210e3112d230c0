"""`/events`: lifecycle, OOM kills and what is said about the stream, as it happens, as Server-Sent Events or JSON Lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from streamer.memory import Event
from streamer.sidecar import following
from streamer.sidecar.context import Context, Query
from streamer.sidecar.exchange import Lines
from streamer.sidecar.feed import Follower
from streamer.sidecar.following import EVENTS, LINES, SSE, Dropped, Framing, Past, Place, Wish
from streamer.sidecar.query import encode

PART_BYTES: Final = 8192
"""Made at once for one client: a part that it does not take is what it costs."""
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
    wish = Wish(query["types"] or _ALL_EVENTS, query["container"], query["label"], query["runtime"])
    since, resumed = query["since"], query["last-event-id"]

    def begin() -> Past:
        if resumed is not None and following.place(resumed) is None:
            return following.of_unknown(context.memory, wish.types, resumed)
        return following.past(context.memory, wish.types, following.place(resumed) if resumed else since, context.now_ms)

    framing = LINES if LINES.content_type in query["accept"].lower() else SSE
    follower = context.feed.follow(wish)

    def close() -> None:
        if follower.is_lost:
            context.telemetry.count("streamer_http_streams_dropped_total")
        follower.close()

    told = _told(context, follower, framing, begin if since is not None or resumed is not None else None)
    return Lines(told, close, framing.content_type, _HEADERS)


async def _told(context: Context, follower: Follower, framing: Framing, begin: Callable[[], Past] | None) -> AsyncIterator[bytes]:
    """Nothing that was made stays here while the client takes it."""
    if begin is None:  # cut off before the first event, it resumes from here
        yield framing.begin + framing.heartbeat(Place(context.memory.epoch, follower.last))
    else:
        async with context.replaying:
            await asyncio.sleep(0)
            past = begin()
            follower.begin(past)  # and goes on in this step: of what is known now, nothing is forgotten before it is taken
            first = framing.begin + (framing.said("gap", encode(past.gap)) if past.gap else b"")
            part = _frames(context, framing, follower.take(PART_BYTES))
        if first:
            yield first
        if part:
            yield part
        del first, part
    loop = asyncio.get_running_loop()
    while True:
        if follower.is_behind:
            async with context.replaying:  # the others queue for it, and all else goes on
                await asyncio.sleep(0)
        # From here to the next `yield` or wait is one step: what is forgotten or said in between would never be told.
        if follower.is_lost:
            break
        gap = follower.missed()
        part = framing.said("gap", encode(gap)) if gap else b""
        part += _frames(context, framing, follower.take(PART_BYTES))
        if part:
            yield part
            del part
        elif not follower.is_behind:
            news = loop.create_future()  # an `asyncio.Event` is a kilobyte
            follower.wait(partial(_done, news))
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await news
            except TimeoutError:
                yield framing.heartbeat(Place(context.memory.epoch, follower.last))
    yield framing.said("dropped", encode(Dropped(_TOO_SLOW, str(Place(context.memory.epoch, follower.last)))))


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _frames(context: Context, framing: Framing, events: list[Event]) -> bytes:
    return following.frames(framing, context.memory.epoch, events)
