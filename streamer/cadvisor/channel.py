"""Events to one who watches: a bounded queue between memory, which never waits, and a reader that may be slow.

cAdvisor's events have no place in which a hole could be told. So there is none: who is too slow gets what waited for it, in
order and whole, and then the end. It knows by that where it stands, and can ask for the past since then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from streamer.cadvisor.shapes import Event

_MOST_WAITING: Final = 1000


class EventChannel:
    """An async iterator of events, for one reader; it ends when what waits has been read and the channel was closed, or full.

    watch_id  what `close_event_channel` wants to know
    dropped   how many came when there was no room: the reader was too slow, and none follow on those that wait
    """

    def __init__(self, watch_id: int, on_close: Callable[[int], None], most_waiting: int = _MOST_WAITING) -> None:
        self.watch_id = watch_id
        self.dropped = 0
        self._on_close = on_close
        self._waiting: deque[Event] = deque()
        self._most = most_waiting
        self._something = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """How many wait to be read."""
        return len(self._waiting)

    def offer(self, events: Iterable[Event]) -> None:
        """Put in; never waits: once there was no room, nothing more is."""
        for event in events:
            if self._closed:
                return
            if self.dropped or len(self._waiting) >= self._most:
                self.dropped += 1
                continue
            self._waiting.append(event)
            self._something.set()

    def close(self) -> None:
        """No more events; twice is fine."""
        if not self._closed:
            self._closed = True
            self._something.set()
            self._on_close(self.watch_id)

    def __aiter__(self) -> EventChannel:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self.dropped:
                self.close()
            if self._closed:
                raise StopAsyncIteration
            self._something.clear()
            await self._something.wait()
        return self._waiting.popleft()

    async def __aenter__(self) -> EventChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
